package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Number of goroutines that prepare a burst.
const workers = 128

// each calls do for every number below count, many at a time.
func each(count int, do func(int) error) error {
	var next atomic.Int64
	var group sync.WaitGroup
	failed := make(chan error, workers)
	for range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// keepLeases keeps many leases alive by one client, which sends all renewals on one stream, for some time. No channel may
// close, each lease must be renewed at least once, and all must exist at the end. All are renewed for the first
// time in one burst.
func keepLeases(client *clientv3.Client, count, ttl int, lasting time.Duration, atOnce bool) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ids := make([]clientv3.LeaseID, count)
	renewed := make([]atomic.Int64, count)
	var closed, renewals atomic.Int64
	keep := func(i int) error {
		alive, err := client.KeepAlive(ctx, ids[i])
		if err != nil {
			return fmt.Errorf("keep alive: %w", err)
		}
		go func() {
			for response := range alive {
				if response != nil && response.TTL > 0 {
					renewed[i].Add(1)
					renewals.Add(1)
				}
			}
			if ctx.Err() == nil {
				closed.Add(1)
			}
		}()
		return nil
	}
	began := time.Now()
	err := each(count, func(i int) error {
		granted, err := client.Grant(ctx, int64(ttl))
		if err != nil {
			return fmt.Errorf("grant: %w", err)
		}
		ids[i] = granted.ID
		if atOnce {
			return nil
		}
		return keep(i)
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d leases of %d s granted in %v\n", count, ttl, time.Since(began).Round(time.Millisecond))
	for i := range ids {
		if atOnce {
			if err := keep(i); err != nil {
				return err
			}
		}
	}
	began = time.Now()
	for tick := time.NewTicker(10 * time.Second); time.Since(began) < lasting; {
		select {
		case <-tick.C:
			fmt.Printf("%v: %d renewals, %d channels closed\n",
				time.Since(began).Round(time.Second), renewals.Load(), closed.Load())
		case <-time.After(min(time.Second, lasting)):
		}
	}
	never := 0
	for i := range renewed {
		if renewed[i].Load() == 0 {
			never++
		}
	}
	left, err := client.Leases(ctx)
	if err != nil {
		return err
	}
	there := make(map[clientv3.LeaseID]bool, len(left.Leases))
	for _, lease := range left.Leases {
		there[lease.ID] = true
	}
	lost := 0
	for _, id := range ids {
		if !there[id] {
			lost++
		}
	}
	fmt.Printf("%d renewals, %d channels closed, %d leases never renewed, %d lost\n",
		renewals.Load(), closed.Load(), never, lost)
	return expect(closed.Load() == 0 && never == 0 && lost == 0, "leases were lost")
}

// openWatches creates many watches on one stream at once, and each of them sees an event.
func openWatches(client *clientv3.Client, count int) error {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	began := time.Now()
	channels := make([]clientv3.WatchChan, count)
	var opening sync.WaitGroup
	for i := range channels {
		opening.Add(1)
		go func() {
			defer opening.Done()
			channels[i] = client.Watch(ctx, fmt.Sprintf("burst/%d", i%10), clientv3.WithCreatedNotify())
		}()
	}
	opening.Wait()
	for i, channel := range channels {
		if response, open := <-channel; !open || !response.Created {
			return fmt.Errorf("watch %d was not created: %v, %v", i, response, response.Err())
		}
	}
	fmt.Printf("%d watches created in %v\n", count, time.Since(began).Round(time.Millisecond))
	for i := range 10 {
		if _, err := client.Put(ctx, fmt.Sprintf("burst/%d", i), "x"); err != nil {
			return err
		}
	}
	for i, channel := range channels {
		if response := <-channel; len(response.Events) != 1 {
			return fmt.Errorf("watch %d sees %v, %v", i, response, response.Err())
		}
	}
	return askForProgress(client, count)
}

// askForProgress sends small requests in a row on a stream with one watch, and checks that the watch still gets events.
func askForProgress(client *clientv3.Client, count int) error {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	began := time.Now()
	watcher := clientv3.NewWatcher(client)
	defer watcher.Close()
	channel := watcher.Watch(ctx, "progress", clientv3.WithCreatedNotify())
	<-channel
	for range count {
		if err := watcher.RequestProgress(ctx); err != nil {
			return fmt.Errorf("progress: %w", err)
		}
	}
	if _, err := client.Put(ctx, "progress", "x"); err != nil {
		return err
	}
	for response := range channel {
		if len(response.Events) == 1 {
			fmt.Printf("%d times asked for progress in %v\n", count, time.Since(began).Round(time.Millisecond))
			return nil
		}
	}
	return fmt.Errorf("the stream ended")
}
