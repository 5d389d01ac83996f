// Does by kubeadm's own code what `kubeadm init`, `join --control-plane`, `certs renew` and `reset` do for a stacked etcd
// on three machines, each a network namespace, and starts the command of each pod under RuntimeDefault's seccomp filter.
// Ends with 1 if a step failed. `kubeadm.sh` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	etcdphase "k8s.io/kubernetes/cmd/kubeadm/app/phases/etcd"
	etcdutil "k8s.io/kubernetes/cmd/kubeadm/app/util/etcd"
)

const machines = 3

// world is the state that the steps share.
type world struct {
	nodes []*node
	// pods stands for the API server: kubeadm finds the members by the annotations of their pods.
	pods   kubernetes.Interface
	failed int
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "probe" {
		exitIf(probeForever(os.Args[2]))
	}
	server := flag.String("server", "", "the server to run: basalt or etcd")
	sandbox := flag.String("sandbox", "", "the program that confines it")
	dir := flag.String("dir", "", "an empty directory for certificates, manifests, data and logs")
	flag.Parse()
	// Children are killed when the thread that started them ends.
	runtime.LockOSThread()
	w, err := newWorld(*server, *sandbox, *dir)
	exitIf(err)
	w.run()
	for _, n := range w.nodes {
		n.kubelet.kill()
	}
	if w.failed > 0 {
		fmt.Printf("FAILED: %d steps did not hold\n", w.failed)
		os.Exit(1)
	}
	fmt.Println("all steps held")
}

func exitIf(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func newWorld(server, sandbox, dir string) (*world, error) {
	// The command says `etcd`, as in the image.
	program := filepath.Join(dir, "bin", "etcd")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink(server, program); err != nil {
		return nil, err
	}
	if err := makeSwitch(); err != nil {
		return nil, err
	}
	w := &world{pods: fake.NewClientset()}
	for i := range machines {
		n, err := newNode(i+1, dir)
		if err != nil {
			return nil, err
		}
		n.kubelet = &kubelet{node: n, pods: w.pods, program: program, sandbox: sandbox}
		w.nodes = append(w.nodes, n)
	}
	return w, nil
}

func (w *world) run() {
	first, last := w.nodes[0], w.nodes[machines-1]
	w.step("init: certificates", func() (string, error) { return first.makeCertificates(nil) })
	w.step("init: pod, probes", func() (string, error) { return w.initialize(first) })
	for _, n := range w.nodes[1:] {
		w.step("join "+n.name+": certificates", func() (string, error) { return n.makeCertificates(first) })
		w.step("join "+n.name+": learner, pod, promotion", func() (string, error) { return w.join(n) })
	}
	w.step("writes and reads through every member", func() (string, error) { return w.serves(w.nodes) })
	w.step("reset "+last.name, func() (string, error) { return w.reset(last) })
	w.step("writes and reads through those left", func() (string, error) { return w.serves(w.nodes[:machines-1]) })
	w.step("join "+last.name+" again", func() (string, error) { return w.join(last) })
	w.step("certs renew", func() (string, error) { return first.renewCertificates() })
	w.step("writes and reads with new certificates", func() (string, error) { return w.serves(w.nodes) })
	w.step("probes", w.probes)
	w.step("the pods end", w.end)
}

func (w *world) step(name string, do func() (string, error)) {
	if w.failed > 0 {
		return
	}
	begun := time.Now()
	seen, err := do()
	verdict := "ok  "
	if err != nil {
		w.failed++
		verdict, seen = "FAIL", err.Error()
	}
	fmt.Printf("%s %-42s %7.2f s  %s\n", verdict, name, time.Since(begun).Seconds(), seen)
}

// initialize makes the first member's pod and waits for it as `kubeadm init` does.
func (w *world) initialize(n *node) (string, error) {
	err := etcdphase.CreateLocalEtcdStaticPodManifestFile(n.manifests, "", n.name, &n.config.ClusterConfiguration, &n.config.LocalAPIEndpoint, false)
	if err != nil {
		return "", err
	}
	if err := n.kubelet.startPod(); err != nil {
		return "", err
	}
	if err := n.kubelet.untilReady(); err != nil {
		return "", err
	}
	client, err := etcdutil.NewFromCluster(w.pods, n.config.CertificatesDir)
	if err != nil {
		return "", err
	}
	return n.kubelet.started(), client.CheckClusterHealth()
}

// join adds a learner, makes its pod and promotes it. kubeadm does all of it in one call, while the kubelet of the machine starts
// the pod.
func (w *world) join(n *node) (string, error) {
	if err := etcdphase.CheckLocalEtcdClusterStatus(w.pods, n.config.CertificatesDir); err != nil {
		return "", err
	}
	learners := w.observeLearners()
	defer learners.stop()
	outcome := make(chan error, 1)
	go func() {
		outcome <- etcdphase.CreateStackedEtcdStaticPodManifestFile(w.pods, n.manifests, "", n.name,
			&n.config.ClusterConfiguration, &n.config.LocalAPIEndpoint, false, n.config.CertificatesDir)
	}()
	if err := n.untilManifest(outcome); err != nil {
		return "", err
	}
	if err := n.kubelet.startPod(); err != nil {
		return "", err
	}
	if err := <-outcome; err != nil {
		return "", err
	}
	if err := n.kubelet.untilReady(); err != nil {
		return "", err
	}
	if !learners.stop() {
		return "", fmt.Errorf("%s was never a learner", n.name)
	}
	return n.kubelet.started(), w.allVote()
}

// reset removes the member as `kubeadm reset` does: while its pod runs; then its data goes.
func (w *world) reset(n *node) (string, error) {
	if err := etcdphase.RemoveStackedEtcdMemberFromCluster(w.pods, n.config); err != nil {
		return "", err
	}
	// Kubernetes' own word for a pod that is gone.
	if err := w.pods.CoreV1().Pods("kube-system").Delete(context.Background(), "etcd-"+n.name, deleteNow); err != nil {
		return "", err
	}
	taken, err := n.kubelet.stopPod()
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(n.config.Etcd.Local.DataDir); err != nil {
		return "", err
	}
	return fmt.Sprintf("ended in %.1f s", taken.Seconds()), w.allVote()
}

// probes fails if a probe did after its pod was ready.
func (w *world) probes() (string, error) {
	asked := 0
	for _, n := range w.nodes {
		good, failures := n.kubelet.probed()
		if len(failures) > 0 {
			return "", fmt.Errorf("%s: %v", n.name, failures)
		}
		asked += good
	}
	return fmt.Sprintf("%d asked, none failed", asked), nil
}

func (w *world) end() (string, error) {
	var longest time.Duration
	for _, n := range w.nodes {
		taken, err := n.kubelet.stopPod()
		if err != nil {
			return "", err
		}
		longest = max(longest, taken)
	}
	return fmt.Sprintf("longest %.1f s", longest.Seconds()), nil
}
