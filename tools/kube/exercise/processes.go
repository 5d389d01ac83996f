package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"time"
)

const (
	token         = "exercise"
	readyPatience = 90 * time.Second
	// Short, so that a run sees compactions and the end of events.
	compactionInterval = 30 * time.Second
	eventTTL           = 20 * time.Second
)

// process is a child that is killed with this program and whose log is kept over restarts.
type process struct {
	binary string
	args   []string
	log    string
	cmd    *exec.Cmd
	exited chan struct{}
}

func (p *process) start() error {
	file, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	p.cmd = exec.Command(p.binary, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(p.cmd, p.exited)
	return nil
}

// stop returns the time that the process took to end.
func (p *process) stop(signal syscall.Signal) (time.Duration, error) {
	begun := time.Now()
	if p.cmd == nil {
		return 0, nil
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return 0, err
	}
	select {
	case <-p.exited:
		return time.Since(begun), nil
	case <-time.After(readyPatience):
		_ = p.cmd.Process.Kill()
		return 0, fmt.Errorf("%s did not end within %s of %s", p.binary, readyPatience, signal)
	}
}

// untilOK waits for a page that answers 200 and returns the time that took.
func (p *process) untilOK(url string) (time.Duration, error) {
	begun := time.Now()
	for time.Since(begun) < readyPatience {
		if _, err := page(url); err == nil {
			return time.Since(begun), nil
		}
		select {
		case <-p.exited:
			return 0, fmt.Errorf("%s ended: see %s", p.binary, p.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return 0, fmt.Errorf("%s is not ready after %s", url, readyPatience)
}

// The apiserver makes its own certificate anew in every directory.
var web = &http.Client{
	Timeout:   10 * time.Second,
	Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
}

func page(url string) (string, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(url, "https:") {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := web.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return string(body), err
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func freePorts(count int) ([]int, error) {
	var ports []int
	for range count {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

func newAPIServer(binary, dir string, etcd *store) (*process, string, error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	key, tokens := filepath.Join(dir, "service-account.key"), filepath.Join(dir, "tokens.csv")
	if err := writeServiceAccountKey(key); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(tokens, []byte(token+`,admin,admin,"system:masters"`+"\n"), 0o600); err != nil {
		return nil, "", err
	}
	return &process{
		binary: binary,
		log:    filepath.Join(dir, "apiserver.log"),
		args: append(etcd.apiServerFlags(),
			"--etcd-compaction-interval="+compactionInterval.String(),
			"--event-ttl="+eventTTL.String(),
			"--bind-address=127.0.0.1",
			// The endpoint of the service `kubernetes` may not be a loopback address. No client calls it.
			"--advertise-address=10.255.255.1",
			fmt.Sprintf("--secure-port=%d", port),
			"--cert-dir="+filepath.Join(dir, "certificates"),
			"--service-account-key-file="+key,
			"--service-account-signing-key-file="+key,
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-cluster-ip-range=10.96.0.0/16",
			"--authorization-mode=RBAC",
			"--token-auth-file="+tokens,
		),
	}, fmt.Sprintf("https://127.0.0.1:%d", port), nil
}

func writeServiceAccountKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

// outage is a time in which the apiserver may complain.
type outage struct{ from, to time.Time }

var (
	klogLine = regexp.MustCompile(`^([EWF])(\d{4} \d\d:\d\d:\d\d\.\d{6})\s+\d+ (.*)`)
	aboutIt  = regexp.MustCompile(`(?i)etcd|storage|transport|grpc|compact|watch|lease|revision|deadline|unavailable|inconsisten`)
	numbers  = regexp.MustCompile(`[0-9a-f]{8,}|\d+`)
)

// complaints counts the warnings and errors about the store in an apiserver's log, numbers taken
// out so that equal ones add up: those inside outages, and those outside.
func complaints(path string, outages []outage) (inside, outside []string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	counts := map[bool]map[string]int{true: {}, false: {}}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		parts := klogLine.FindStringSubmatch(lines.Text())
		if parts == nil || !aboutIt.MatchString(parts[3]) {
			continue
		}
		at, err := time.ParseInLocation("2006 0102 15:04:05.000000", time.Now().Format("2006 ")+parts[2], time.Local)
		if err != nil {
			return nil, nil, err
		}
		in := false
		for _, o := range outages {
			in = in || at.After(o.from) && at.Before(o.to)
		}
		text := parts[1] + " " + numbers.ReplaceAllString(parts[3], "N")
		counts[in][text[:min(len(text), 300)]]++
	}
	return ranked(counts[true]), ranked(counts[false]), lines.Err()
}

func ranked(counts map[string]int) []string {
	var texts []string
	for text := range counts {
		texts = append(texts, text)
	}
	sort.Slice(texts, func(i, j int) bool {
		a, b := texts[i], texts[j]
		return counts[a] > counts[b] || counts[a] == counts[b] && a < b
	})
	for i, text := range texts {
		texts[i] = fmt.Sprintf("%6d × %s", counts[text], text)
	}
	return texts
}
