// Runs a kube-apiserver over a store, uses its API as clusters do, restarts both while
// clients write, and reports for each step if it succeeded and its duration. Ends with 1 if one
// failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const stepPatience = 3 * time.Minute

// world is the state that the steps share.
type world struct {
	store  *store
	api    *process
	apiURL string

	client     kubernetes.Interface
	dynamic    dynamic.Interface
	extensions clientset.Interface

	outages []outage
	failed  int
}

// options are the flags of the command line.
type options struct {
	store, reactor, apiserver, etcdctl, dir string
	plain                                   bool
}

func main() {
	var o options
	flag.StringVar(&o.store, "store", "", "the server to run: basalt or etcd")
	flag.StringVar(&o.reactor, "reactor", "", "the reactor of Basalt")
	flag.StringVar(&o.apiserver, "apiserver", "", "the kube-apiserver to run")
	flag.StringVar(&o.etcdctl, "etcdctl", "", "the etcdctl to run")
	flag.StringVar(&o.dir, "dir", "", "an empty directory for data, certificates and logs")
	flag.BoolVar(&o.plain, "plain", false, "without TLS between the apiserver and the store")
	flag.Parse()
	// Children are killed when the thread that started them ends.
	runtime.LockOSThread()
	w, err := newWorld(o)
	if err == nil {
		w.exercise(o.dir)
		_, err = w.api.stop(syscall.SIGTERM)
		if _, stopped := w.store.stop(syscall.SIGTERM); err == nil {
			err = stopped
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if w.failed > 0 {
		fmt.Printf("FAILED: %d steps did not hold\n", w.failed)
		os.Exit(1)
	}
	fmt.Println("all steps held")
}

func newWorld(o options) (*world, error) {
	w := &world{}
	var err error
	if w.store, err = newStore(o); err != nil {
		return nil, err
	}
	if w.api, w.apiURL, err = newAPIServer(o.apiserver, o.dir, w.store); err != nil {
		return nil, err
	}
	config := &rest.Config{
		Host:            w.apiURL,
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		// The steps are to wait for the store, not for the client's own limiter.
		QPS:     -1,
		Timeout: 0,
	}
	plain := rest.CopyConfig(config)
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if w.dynamic, err = dynamic.NewForConfig(plain); err != nil {
		return nil, err
	}
	w.extensions, err = clientset.NewForConfig(plain)
	return w, err
}

func (w *world) exercise(dir string) {
	w.step("store starts", w.storeStarts)
	w.step("apiserver starts over an empty store", w.apiStarts)
	if w.failed > 0 {
		return
	}
	w.everyday("cached")
	w.step("events end with their leases", w.eventsEnd)
	w.step("custom resources", w.customResources)
	w.step("large objects", w.largeObjects)
	w.step("etcdctl", w.operator)
	w.step("apiserver restarts", w.apiRestarts)
	w.step("store restarts under writers", w.storeRestarts)

	// Without its cache the apiserver sends every list and every watch to the store.
	w.api.args = append(w.api.args, "--watch-cache=false")
	w.step("apiserver restarts without its cache", w.apiRestarts)
	w.everyday("direct")
	w.step("compaction", w.compaction)
	w.step("store restarts under writers, direct", w.storeRestarts)
	w.report(dir)
}

// everyday is run twice: each in a namespace of its own.
func (w *world) everyday(namespace string) {
	d := &day{world: w, namespace: namespace}
	for _, s := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"create", d.create},
		{"get", d.get},
		{"list at once", d.listAtOnce},
		{"list in pages", d.listInPages},
		{"watch from a revision", d.watchFromRevision},
		{"watch with its initial list", d.watchList},
		{"bookmarks", d.bookmarks},
		{"update with a stale revision", d.conflict},
		{"contended updates", d.contended},
		{"patch", d.patch},
		{"delete", d.remove},
		{"delete a collection", d.removeCollection},
		{"renew leases", d.renewLeases},
	} {
		// Only the cache makes bookmarks.
		if s.name != "bookmarks" || namespace == "cached" {
			w.step(namespace+": "+s.name, s.do)
		}
	}
}

func (w *world) step(name string, do func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), stepPatience)
	defer cancel()
	begun := time.Now()
	seen, err := do(ctx)
	verdict := "ok  "
	if err != nil {
		w.failed++
		verdict, seen = "FAIL", err.Error()
	}
	fmt.Printf("%s %-40s %7.2f s  %s\n", verdict, name, time.Since(begun).Seconds(), seen)
}

// report prints the counters of both sides and the apiserver's complaints.
func (w *world) report(dir string) {
	w.step("metrics of the store", func(context.Context) (string, error) {
		text, err := page(w.store.metricsURL + "/metrics")
		if err != nil {
			return "", err
		}
		lines := strings.Count(text, "\n")
		fmt.Print(chosen(text, "grpc_server_handled_total", "etcd_mvcc_db_total_size_in_bytes ",
			"etcd_debugging_mvcc_compact_revision", "etcd_debugging_mvcc_current_revision",
			"etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_watcher_total",
			"etcd_debugging_mvcc_slow_watcher_total", "etcd_server_slow_apply_total",
			"etcd_server_proposals_failed_total", "etcd_debugging_lease_", "process_resident_memory_bytes"))
		return fmt.Sprintf("%d lines", lines), os.WriteFile(filepath.Join(dir, "store.metrics"), []byte(text), 0o644)
	})
	w.step("metrics of the apiserver", func(context.Context) (string, error) {
		text, err := page(w.apiURL + "/metrics")
		if err != nil {
			return "", err
		}
		fmt.Print(chosen(text, "etcd_request_errors_total", "apiserver_storage_list_latency",
			"apiserver_storage_consistency_checks_total", "apiserver_watch_cache_consistent_read_total"))
		return "", os.WriteFile(filepath.Join(dir, "apiserver.metrics"), []byte(text), 0o644)
	})
	inside, outside, err := complaints(w.api.log, w.outages)
	if err != nil {
		fmt.Println(err)
	}
	fmt.Printf("\nThe apiserver's complaints while a restart was under way:\n%s\n", strings.Join(inside, "\n"))
	fmt.Printf("\nThe apiserver's complaints at other times:\n%s\n", strings.Join(outside, "\n"))
}

// chosen keeps the samples above 0 whose names begin with one of the prefixes.
func chosen(metrics string, prefixes ...string) string {
	var kept strings.Builder
	for line := range strings.Lines(metrics) {
		for _, prefix := range prefixes {
			if strings.HasPrefix(line, prefix) && !strings.HasSuffix(line, " 0\n") && !strings.Contains(line, "_bucket{") {
				kept.WriteString("     " + line)
			}
		}
	}
	return kept.String()
}
