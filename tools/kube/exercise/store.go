package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"basalt/tools/kube/pki"

	kubeadmapi "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	etcdphase "k8s.io/kubernetes/cmd/kubeadm/app/phases/etcd"
	etcdutil "k8s.io/kubernetes/cmd/kubeadm/app/util/etcd"
)

// store is the member below the apiserver, with the command that kubeadm writes, at free ports.
type store struct {
	*process
	url, metricsURL string
	config          *kubeadmapi.InitConfiguration
	plain           bool
	etcdctl         string
}

// newStore makes certificates and command by kubeadm's code; without TLS the flags about it are left out.
func newStore(o options) (*store, error) {
	config, err := pki.Configuration("exercise", "127.0.0.1", filepath.Join(o.dir, "machine"))
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	scheme := "https"
	if o.plain {
		scheme = "http"
	} else if err := pki.Make(config); err != nil {
		return nil, err
	}
	url := func(i int) string { return fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[i]) }
	s := &store{url: url(0), metricsURL: fmt.Sprintf("http://127.0.0.1:%d", ports[2]), config: config, plain: o.plain, etcdctl: o.etcdctl}
	// `etcd.local.extraArgs` of kubeadm's configuration.
	config.Etcd.Local.ExtraArgs = []kubeadmapi.Arg{
		{Name: "listen-client-urls", Value: s.url},
		{Name: "advertise-client-urls", Value: s.url},
		{Name: "listen-peer-urls", Value: url(1)},
		{Name: "initial-advertise-peer-urls", Value: url(1)},
		{Name: "initial-cluster", Value: "exercise=" + url(1)},
		{Name: "listen-metrics-urls", Value: s.metricsURL},
	}
	if o.reactor != "" {
		config.Etcd.Local.ExtraArgs = append(config.Etcd.Local.ExtraArgs, kubeadmapi.Arg{Name: "reactor", Value: o.reactor})
	}
	pod := etcdphase.GetEtcdPodSpec(&config.ClusterConfiguration, &config.LocalAPIEndpoint, "exercise", []etcdutil.Member{})
	var flags []string
	for _, flag := range pod.Spec.Containers[0].Command[1:] {
		if !o.plain || !isAboutTLS(flag) {
			flags = append(flags, flag)
		}
	}
	s.process = &process{binary: o.store, log: filepath.Join(o.dir, "store.log"), args: flags}
	return s, nil
}

func isAboutTLS(flag string) bool {
	return strings.Contains(flag, "cert-") || strings.Contains(flag, "key-file") || strings.Contains(flag, "trusted-ca")
}

func (s *store) apiServerFlags() []string {
	flags := []string{"--etcd-servers=" + s.url}
	if s.plain {
		return flags
	}
	files := pki.APIServer(s.config)
	return append(flags, "--etcd-cafile="+files.CA, "--etcd-certfile="+files.Certificate, "--etcd-keyfile="+files.Key)
}

// ctl runs etcdctl with the certificate that kubeadm makes for health checks.
func (s *store) ctl(ctx context.Context, words ...string) (string, error) {
	words = append(words, "--endpoints="+s.url)
	if !s.plain {
		files := pki.Healthcheck(s.config)
		words = append(words, "--cacert="+files.CA, "--cert="+files.Certificate, "--key="+files.Key)
	}
	said, err := exec.CommandContext(ctx, s.etcdctl, words...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("etcdctl %s: %w: %s", words[0], err, said)
	}
	return string(said), err
}

// operator asks as the person does who looks after the cluster.
func (w *world) operator(ctx context.Context) (string, error) {
	if _, err := w.store.ctl(ctx, "endpoint", "health"); err != nil {
		return "", err
	}
	said, err := w.store.ctl(ctx, "endpoint", "status", "-w", "json")
	if err != nil {
		return "", err
	}
	var statuses []struct {
		Status struct {
			Version string `json:"version"`
			DBSize  int64  `json:"dbSize"`
		}
	}
	if err := json.Unmarshal([]byte(said), &statuses); err != nil {
		return "", err
	}
	count, err := w.store.ctl(ctx, "get", "/registry/", "--prefix", "--count-only", "-w", "fields")
	if err != nil {
		return "", err
	}
	if !w.store.plain {
		without := *w.store
		without.plain = true
		if said, err := without.ctl(ctx, "get", "a", "--command-timeout=2s"); err == nil {
			return "", fmt.Errorf("served without a certificate: %s", said)
		}
	}
	keys := "0"
	for line := range strings.Lines(count) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), " : "); found && name == `"Count"` {
			keys = value
		}
	}
	return fmt.Sprintf("version %s, %s keys, %d bytes", statuses[0].Status.Version, keys, statuses[0].Status.DBSize), nil
}
