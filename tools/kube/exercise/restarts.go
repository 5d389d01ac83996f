package main

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

const (
	writers = 8
	// Longer than a restart, shorter than a client's timeout.
	writePatience = 3 * time.Second
	betweenStops  = 4 * time.Second
)

// ledger holds the acknowledged writes.
type ledger struct {
	sync.Mutex
	acknowledged map[string]string
	refused      map[string]int
	last         time.Time
	gap          time.Duration
}

func (l *ledger) acknowledge(name, revision string) {
	l.Lock()
	defer l.Unlock()
	now := time.Now()
	l.gap = max(l.gap, now.Sub(l.last))
	l.last = now
	l.acknowledged[name] = revision
}

// longest returns the longest time without an acknowledgement and begins a new measurement.
func (l *ledger) longest() time.Duration {
	l.Lock()
	defer l.Unlock()
	gap := l.gap
	l.gap = 0
	return gap
}

func (l *ledger) refuse(err error) {
	l.Lock()
	defer l.Unlock()
	l.refused[string(errors.ReasonForError(err))]++
}

// write makes one object after the other until it is stopped, and increments a counter in one that all share.
func (l *ledger) write(stop context.Context, maps typedv1.ConfigMapInterface, writer int) (counted int) {
	counter := fmt.Sprintf("counter-%d", writer)
	for n := 0; stop.Err() == nil; n++ {
		name := fmt.Sprintf("write-%d-%06d", writer, n)
		for stop.Err() == nil {
			ctx, cancel := context.WithTimeout(context.Background(), writePatience)
			made, err := maps.Create(ctx, configMap(name, n), metav1.CreateOptions{})
			cancel()
			if err == nil {
				l.acknowledge(name, made.ResourceVersion)
				break
			}
			// The first attempt was applied and its response lost.
			if errors.IsAlreadyExists(err) {
				break
			}
			l.refuse(err)
			time.Sleep(20 * time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), writePatience)
		patch := fmt.Sprintf(`{"data":{"n":"%d"}}`, n)
		if _, err := maps.Patch(ctx, counter, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err == nil {
			counted = n
		}
		cancel()
	}
	return counted
}

// storeRestarts ends the store six times, three of them without a warning, while clients write and
// one watches: every acknowledged write is there, and the watcher saw it, once and in order.
func (w *world) storeRestarts(ctx context.Context) (string, error) {
	namespace := fmt.Sprintf("restarts-%d", len(w.outages))
	if err := w.namespaceFor(ctx, namespace); err != nil {
		return "", err
	}
	maps := w.client.CoreV1().ConfigMaps(namespace)
	for writer := range writers {
		empty := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("counter-%d", writer)}, Data: map[string]string{"n": "0"}}
		if _, err := maps.Create(ctx, empty, metav1.CreateOptions{}); err != nil {
			return "", err
		}
	}
	list, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	seen := newSightings()
	watcher, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return maps.Watch(ctx, options)
		},
	})
	if err != nil {
		return "", err
	}
	defer watcher.Stop()
	go seen.follow(watcher)

	book := &ledger{acknowledged: map[string]string{}, refused: map[string]int{}, last: time.Now()}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	counted := make([]int, writers)
	var group sync.WaitGroup
	for writer := range writers {
		group.Go(func() { counted[writer] = book.write(stop, maps, writer) })
	}
	time.Sleep(betweenStops)
	told := fmt.Sprintf("gaps: %.2f s undisturbed", book.longest().Seconds())
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		begun := time.Now()
		ended, err := w.store.stop(signal)
		if err != nil {
			return "", err
		}
		starting := time.Now()
		if _, err = w.storeStarts(ctx); err != nil {
			return "", err
		}
		ready := time.Since(starting)
		time.Sleep(betweenStops)
		// The apiserver's own clients come back one after the other.
		w.outages = append(w.outages, outage{begun, time.Now()})
		name := map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGKILL: "KILL"}[signal]
		told += fmt.Sprintf(", %.2f s %s (end %.2f, ready %.2f)", book.longest().Seconds(), name, ended.Seconds(), ready.Seconds())
	}
	if _, err = w.api.untilOK(w.apiURL + "/readyz"); err != nil {
		return "", err
	}
	cancel()
	group.Wait()
	told = fmt.Sprintf("%d acknowledged, refused %v; %s", len(book.acknowledged), book.refused, told)
	if err := allThere(ctx, maps, book, counted); err != nil {
		return "", fmt.Errorf("%w; %s", err, told)
	}
	if err := seen.all(book.acknowledged); err != nil {
		return "", fmt.Errorf("%w; %s", err, told)
	}
	return told, nil
}

func allThere(ctx context.Context, maps typedv1.ConfigMapInterface, book *ledger, counted []int) error {
	there := map[string]corev1.ConfigMap{}
	options := metav1.ListOptions{Limit: 500}
	for {
		list, err := maps.List(ctx, options)
		if err != nil {
			return err
		}
		for _, item := range list.Items {
			there[item.Name] = item
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	for name, revision := range book.acknowledged {
		if there[name].ResourceVersion != revision {
			return fmt.Errorf("%s was acknowledged at revision %s and is at %q", name, revision, there[name].ResourceVersion)
		}
	}
	for writer, n := range counted {
		var is int
		_, _ = fmt.Sscan(there[fmt.Sprintf("counter-%d", writer)].Data["n"], &is)
		// One more may have been applied and its response lost.
		if is < n {
			return fmt.Errorf("writer %d counted to %d and finds %d", writer, n, is)
		}
	}
	return nil
}

// sightings holds the events of a watcher.
type sightings struct {
	sync.Mutex
	added  map[string]string
	last   string
	broken error
}

func newSightings() *sightings { return &sightings{added: map[string]string{}} }

func (s *sightings) follow(watcher watch.Interface) {
	for event := range watcher.ResultChan() {
		s.see(event)
	}
}

func (s *sightings) see(event watch.Event) {
	s.Lock()
	defer s.Unlock()
	object, good := event.Object.(*corev1.ConfigMap)
	if !good {
		s.broken = fmt.Errorf("the watch broke: %w", errors.FromObject(event.Object))
		return
	}
	if event.Type == watch.Bookmark {
		return
	}
	if s.last != "" && !older(s.last, object.ResourceVersion) {
		s.broken = fmt.Errorf("revision %s was watched after %s", object.ResourceVersion, s.last)
	}
	s.last = object.ResourceVersion
	if event.Type == watch.Added {
		s.added[object.Name] = object.ResourceVersion
	}
}

// all waits until the watcher has seen all acknowledged writes.
func (s *sightings) all(acknowledged map[string]string) error {
	var missing string
	for range 100 {
		s.Lock()
		missing = ""
		for name, revision := range acknowledged {
			if s.added[name] != revision {
				missing = name
			}
		}
		broken := s.broken
		s.Unlock()
		if missing == "" || broken != nil {
			return broken
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the watcher never saw %s, its last is of revision %s", missing, s.last)
}
