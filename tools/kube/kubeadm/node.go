package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"basalt/tools/kube/pki"

	kubeadmapi "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	"k8s.io/kubernetes/cmd/kubeadm/app/constants"
	"k8s.io/kubernetes/cmd/kubeadm/app/phases/certs/renewal"
)

const patience = 2 * time.Minute

// node is a machine of the control plane.
type node struct {
	name, manifests string
	config          *kubeadmapi.InitConfiguration
	kubelet         *kubelet
}

// makeSwitch connects this network namespace, which is that of kubeadm, to those of the machines.
func makeSwitch() error {
	return commands("ip link set lo up", "ip link add switch type bridge", "ip addr add 10.77.0.254/24 dev switch", "ip link set switch up")
}

func newNode(number int, dir string) (*node, error) {
	name := fmt.Sprintf("control-%d", number)
	address := fmt.Sprintf("10.77.0.%d", number)
	own := filepath.Join(dir, name)
	n := &node{name: name, manifests: filepath.Join(own, "manifests")}
	if err := os.MkdirAll(n.manifests, 0o755); err != nil {
		return nil, err
	}
	var err error
	if n.config, err = pki.Configuration(name, address, own); err != nil {
		return nil, err
	}
	return n, commands(
		"ip netns add "+name,
		fmt.Sprintf("ip link add to-%d type veth peer name eth0 netns %s", number, name),
		fmt.Sprintf("ip link set to-%d master switch up", number),
		fmt.Sprintf("ip -n %s link set lo up", name),
		fmt.Sprintf("ip -n %s addr add %s/24 dev eth0", name, address),
		fmt.Sprintf("ip -n %s link set eth0 up", name),
	)
}

func commands(lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if said, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, said)
		}
	}
	return nil
}

// makeCertificates makes those of `kubeadm init`, or with the CAs of another machine those of `kubeadm join --control-plane`.
func (n *node) makeCertificates(from *node) (string, error) {
	if from != nil {
		// `--upload-certs` and `--certificate-key` hand these over.
		for _, shared := range []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub", "etcd/ca.crt", "etcd/ca.key"} {
			content, err := os.ReadFile(filepath.Join(from.config.CertificatesDir, shared))
			if err != nil {
				return "", err
			}
			to := filepath.Join(n.config.CertificatesDir, shared)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return "", err
			}
			if err := os.WriteFile(to, content, 0o600); err != nil {
				return "", err
			}
		}
	}
	if err := pki.Make(n.config); err != nil {
		return "", err
	}
	made, err := filepath.Glob(filepath.Join(n.config.CertificatesDir, "etcd", "*.crt"))
	return fmt.Sprintf("%d in etcd/", len(made)), err
}

// renewCertificates renews all that have to do with etcd. The CA stays.
func (n *node) renewCertificates() (string, error) {
	before, err := n.presented()
	if err != nil {
		return "", err
	}
	manager, err := renewal.NewManager(&n.config.ClusterConfiguration, filepath.Dir(n.config.CertificatesDir))
	if err != nil {
		return "", err
	}
	for _, name := range []string{"etcd-server", "etcd-peer", "etcd-healthcheck-client", "apiserver-etcd-client"} {
		renewed, err := manager.RenewUsingLocalCA(name)
		if err != nil {
			return "", err
		}
		if !renewed {
			return "", fmt.Errorf("%s was not renewed", name)
		}
	}
	begun := time.Now()
	for time.Since(begun) < patience {
		now, err := n.presented()
		if err != nil {
			return "", err
		}
		if now != before {
			return fmt.Sprintf("used after %.1f s, without a restart", time.Since(begun).Seconds()), nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", fmt.Errorf("%s still shows the old certificate", n.name)
}

func (n *node) manifest() string {
	return constants.GetStaticPodFilepath(constants.Etcd, n.manifests)
}

// untilManifest waits for kubeadm to write the pod's manifest, unless kubeadm has failed.
func (n *node) untilManifest(outcome chan error) error {
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(n.manifest()); err == nil {
			return nil
		}
		select {
		case err := <-outcome:
			return fmt.Errorf("no manifest: %w", err)
		default:
		}
	}
	return fmt.Errorf("no manifest after %s", patience)
}
