package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/cmd/kubeadm/app/util/staticpod"
)

var deleteNow = metav1.DeleteOptions{}

// kubelet does for one machine what the kubelet does for a static pod: mounts, the command under RuntimeDefault's
// filter, probes, and a mirror of the pod for the API.
type kubelet struct {
	node             *node
	pods             kubernetes.Interface
	program, sandbox string

	pod            *v1.Pod
	server, prober *exec.Cmd
	exited         chan struct{}
	begun          time.Time

	lock     sync.Mutex
	readyAt  time.Time
	good     int
	failures []string
}

func (k *kubelet) startPod() error {
	pod, err := staticpod.ReadStaticPodFromDisk(k.node.manifest())
	if err != nil {
		return err
	}
	if profile := pod.Spec.SecurityContext.SeccompProfile; profile == nil || profile.Type != v1.SeccompProfileTypeRuntimeDefault {
		return fmt.Errorf("the pod does not ask for RuntimeDefault: %v", profile)
	}
	for _, volume := range pod.Spec.Volumes {
		if err := os.MkdirAll(volume.HostPath.Path, 0o700); err != nil {
			return err
		}
	}
	k.pod = pod
	command := pod.Spec.Containers[0].Command
	log, err := os.OpenFile(filepath.Join(filepath.Dir(k.node.manifests), "etcd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintln(log, strings.Join(command, " "))
	k.server = k.inNamespace(append([]string{k.sandbox}, command[1:]...)...)
	k.server.Stdout, k.server.Stderr = log, log
	k.server.Env = append(os.Environ(), "SANDBOX_REFUSES=RuntimeDefault", "SANDBOX_UID=0", "SANDBOX_BIN="+k.program)
	k.lock.Lock()
	k.readyAt, k.begun = time.Time{}, time.Now()
	k.lock.Unlock()
	if err := k.server.Start(); err != nil {
		return err
	}
	k.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(k.server, k.exited)
	return k.startProber()
}

// inNamespace prepares a program on the machine. `ip netns exec` becomes it, so that it gets our signals.
func (k *kubelet) inNamespace(words ...string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", k.node.name}, words...)...)
	cmd.Dir = filepath.Dir(k.node.manifests)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// startProber starts this program once more, on the machine.
func (k *kubelet) startProber() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	k.prober = k.inNamespace(self, "probe", k.node.manifest())
	said, err := k.prober.StdoutPipe()
	if err != nil {
		return err
	}
	if err := k.prober.Start(); err != nil {
		return err
	}
	go func(prober *exec.Cmd) {
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			k.record(lines.Text())
		}
		_ = prober.Wait()
	}(k.prober)
	return nil
}

func (k *kubelet) record(line string) {
	k.lock.Lock()
	defer k.lock.Unlock()
	switch {
	case line == "started":
		k.readyAt = time.Now()
	case strings.HasSuffix(line, " ok"):
		k.good++
	default:
		k.failures = append(k.failures, line)
	}
}

func (k *kubelet) probed() (int, []string) {
	k.lock.Lock()
	defer k.lock.Unlock()
	return k.good, k.failures
}

// untilReady waits for the startup probe and shows the pod to the API.
func (k *kubelet) untilReady() error {
	for time.Since(k.begun) < patience {
		k.lock.Lock()
		ready := !k.readyAt.IsZero()
		k.lock.Unlock()
		if ready {
			return k.mirror()
		}
		select {
		case <-k.exited:
			return fmt.Errorf("%s ended: %s", k.node.name, k.server.ProcessState)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s is not ready after %s", k.node.name, patience)
}

func (k *kubelet) mirror() error {
	pod := k.pod.DeepCopy()
	pod.Name = "etcd-" + k.node.name
	pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}
	_, err := k.pods.CoreV1().Pods(pod.Namespace).Create(context.Background(), pod, metav1.CreateOptions{})
	return err
}

func (k *kubelet) started() string {
	k.lock.Lock()
	defer k.lock.Unlock()
	return fmt.Sprintf("ready after %.1f s", k.readyAt.Sub(k.begun).Seconds())
}

// stopPod is what follows when the manifest is removed. A member that was removed may have ended already.
func (k *kubelet) stopPod() (time.Duration, error) {
	if err := os.Remove(k.node.manifest()); err != nil {
		return 0, err
	}
	_ = k.prober.Process.Kill()
	begun := time.Now()
	// It may be gone.
	_ = k.server.Process.Signal(syscall.SIGTERM)
	select {
	case <-k.exited:
		return time.Since(begun), nil
	// The pod's terminationGracePeriodSeconds, by default.
	case <-time.After(30 * time.Second):
		return 0, fmt.Errorf("%s did not end", k.node.name)
	}
}

func (k *kubelet) kill() {
	for _, cmd := range []*exec.Cmd{k.prober, k.server} {
		if cmd != nil {
			_ = cmd.Process.Kill()
		}
	}
}

func (k *kubelet) isRunning() bool {
	if k.exited == nil {
		return false
	}
	select {
	case <-k.exited:
		return false
	default:
		return true
	}
}
