// The official Go client against a running server: key-value calls, transactions, watches, leases,
// and the recipes of its concurrency package. Prints one line per story; the first one that
// fails ends the program with code 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/namespace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
)

// storyTime is long enough for thousands of writes, one after the other, on a disk that others keep busy.
const storyTime = 90 * time.Second

type story struct {
	name string
	tell func(context.Context, *clientv3.Client) error
}

func main() {
	endpoint := flag.String("endpoint", "", "address of the server, or some with commas")
	kind := flag.String("hold", "", "lock or election: contend for it instead of telling stories")
	name := flag.String("name", "", "what to contend for")
	ttl := flag.Int("ttl", 5, "seconds that a session or a lease outlives its process")
	leases := flag.Int("leases", 0, "keep so many leases alive instead of telling stories")
	lasting := flag.Duration("for", 10*time.Second, "how long to keep leases alive")
	atOnce := flag.Bool("at-once", false, "grant all leases before the first of them is renewed")
	watches := flag.Int("watches", 0, "create so many watches at once instead of telling stories")
	identity := identityFlags()
	flag.Parse()
	client, err := identity.connect(strings.Split(*endpoint, ","))
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot connect:", err)
		os.Exit(1)
	}
	defer client.Close()
	if act := chosen(client, *kind, *name, *ttl, *leases, *lasting, *atOnce, *watches); act != nil {
		if err := act(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	for _, s := range stories(identity) {
		ctx, cancel := context.WithTimeout(context.Background(), storyTime)
		err := s.tell(ctx, client)
		cancel()
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", s.name, err)
			os.Exit(1)
		}
		fmt.Println("ok", s.name)
	}
}

// chosen returns the action to run instead of the stories, if one is chosen.
func chosen(client *clientv3.Client, kind, name string, ttl, leases int, lasting time.Duration, atOnce bool, watches int) func() error {
	switch {
	case kind != "":
		return func() error { return hold(client, kind, name, ttl) }
	case leases > 0:
		return func() error { return keepLeases(client, leases, ttl, lasting, atOnce) }
	case watches > 0:
		return func() error { return openWatches(client, watches) }
	default:
		return nil
	}
}

func stories(identity identity) []story {
	return []story{
		{"put, get, delete", keyValue},
		{"errors are the client's own", errorsAreKnown},
		{"pages of a list", pages},
		{"transactions", transactions},
		{"compaction", compaction},
		{"watch from now", watchFromNow},
		{"watch the past", watchThePast},
		{"watch progress", watchProgress},
		{"lease runs out", leaseRunsOut},
		{"lease kept alive", leaseKeptAlive},
		{"session and mutex", mutex},
		{"election", election},
		{"lock service", lockService},
		{"election service", electionService},
		{"software transactional memory", stm},
		{"namespace", inNamespace},
		{"members and status", members},
		{"put, get, delete, compressed", identity.compressed(keyValue)},
		{"watch the past, compressed", identity.compressed(watchThePast)},
		{"watch from now, compressed", identity.compressed(watchFromNow)},
		{"lease kept alive, compressed", identity.compressed(leaseKeptAlive)},
	}
}

// compressed tells a story through a client that compresses its requests.
func (i identity) compressed(tell func(context.Context, *clientv3.Client) error) func(context.Context, *clientv3.Client) error {
	return func(ctx context.Context, plain *clientv3.Client) error {
		client, err := i.connect(plain.Endpoints(), grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
		if err != nil {
			return err
		}
		defer client.Close()
		return tell(ctx, client)
	}
}

func expect(holds bool, format string, args ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func keyValue(ctx context.Context, c *clientv3.Client) error {
	put, err := c.Put(ctx, "kv/a", "1")
	if err != nil {
		return err
	}
	again, err := c.Put(ctx, "kv/a", "2", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if again.PrevKv == nil || string(again.PrevKv.Value) != "1" {
		return fmt.Errorf("previous value: %v", again.PrevKv)
	}
	if again.Header.Revision != put.Header.Revision+1 {
		return fmt.Errorf("revisions %d then %d", put.Header.Revision, again.Header.Revision)
	}
	old, err := c.Get(ctx, "kv/a", clientv3.WithRev(put.Header.Revision))
	if err != nil {
		return err
	}
	if len(old.Kvs) != 1 || string(old.Kvs[0].Value) != "1" {
		return fmt.Errorf("the past: %v", old.Kvs)
	}
	deleted, err := c.Delete(ctx, "kv/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if deleted.Deleted != 1 || len(deleted.PrevKvs) != 1 || deleted.PrevKvs[0].Version != 2 {
		return fmt.Errorf("deleted: %v", deleted)
	}
	gone, err := c.Get(ctx, "kv/a")
	if err != nil {
		return err
	}
	return expect(gone.Count == 0 && len(gone.Kvs) == 0, "still there: %v", gone.Kvs)
}

func errorsAreKnown(ctx context.Context, c *clientv3.Client) error {
	_, err := c.Put(ctx, "", "x")
	if !errors.Is(err, rpctypes.ErrEmptyKey) {
		return fmt.Errorf("empty key: %v", err)
	}
	_, err = c.Get(ctx, "a", clientv3.WithRev(1<<40))
	if !errors.Is(err, rpctypes.ErrFutureRev) {
		return fmt.Errorf("future revision: %v", err)
	}
	_, err = c.Put(ctx, "a", "x", clientv3.WithLease(12345))
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("unknown lease: %v", err)
	}
	_, err = c.Put(ctx, "a", string(make([]byte, 1_600_000)))
	return expect(errors.Is(err, rpctypes.ErrRequestTooLarge), "huge request: %v", err)
}

func pages(ctx context.Context, c *clientv3.Client) error {
	const count = 53
	for i := range count {
		if _, err := c.Put(ctx, fmt.Sprintf("pages/%03d", i), "x"); err != nil {
			return err
		}
	}
	end := clientv3.GetPrefixRangeEnd("pages/")
	key, seen, revision := "pages/", 0, int64(0)
	for {
		page, err := c.Get(ctx, key, clientv3.WithRange(end), clientv3.WithLimit(10),
			clientv3.WithRev(revision))
		if err != nil {
			return err
		}
		if int(page.Count) != count-seen {
			return fmt.Errorf("count %d after %d", page.Count, seen)
		}
		for i, kv := range page.Kvs {
			if want := fmt.Sprintf("pages/%03d", seen+i); string(kv.Key) != want {
				return fmt.Errorf("%s in place of %s", kv.Key, want)
			}
		}
		seen += len(page.Kvs)
		if !page.More {
			break
		}
		revision = page.Header.Revision
		key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		// A key written behind the first page is not returned in the others.
		if _, err := c.Put(ctx, fmt.Sprintf("pages/%03d-later", seen), "x"); err != nil {
			return err
		}
	}
	return expect(seen == count, "saw %d of %d", seen, count)
}

func transactions(ctx context.Context, c *clientv3.Client) error {
	create := func(value string) (*clientv3.TxnResponse, error) {
		return c.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision("txn/a"), "=", 0)).
			Then(clientv3.OpPut("txn/a", value), clientv3.OpGet("txn/a")).
			Else(clientv3.OpGet("txn/a")).
			Commit()
	}
	first, err := create("first")
	if err != nil {
		return err
	}
	if !first.Succeeded || len(first.Responses) != 2 {
		return fmt.Errorf("create: %v", first)
	}
	inner := first.Responses[0].GetResponsePut().GetHeader()
	if inner == nil || inner.Revision != first.Header.Revision {
		return fmt.Errorf("header of the put inside: %v", inner)
	}
	second, err := create("second")
	if err != nil {
		return err
	}
	found := second.Responses[0].GetResponseRange().GetKvs()
	if second.Succeeded || len(found) != 1 || string(found[0].Value) != "first" {
		return fmt.Errorf("create again: %v", second)
	}
	nested, err := c.Txn(ctx).Then(clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value("txn/a"), "=", "first")},
		[]clientv3.Op{clientv3.OpDelete("txn/a")}, nil)).Commit()
	if err != nil {
		return err
	}
	return expect(nested.Responses[0].GetResponseTxn().GetSucceeded(), "nested: %v", nested)
}

func compaction(ctx context.Context, c *clientv3.Client) error {
	var revisions []int64
	for i := range 5 {
		put, err := c.Put(ctx, "compacted", fmt.Sprint(i))
		if err != nil {
			return err
		}
		revisions = append(revisions, put.Header.Revision)
	}
	if _, err := c.Compact(ctx, revisions[3], clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	_, err := c.Get(ctx, "compacted", clientv3.WithRev(revisions[2]))
	if !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compacted revision: %v", err)
	}
	kept, err := c.Get(ctx, "compacted", clientv3.WithRev(revisions[3]))
	if err != nil {
		return err
	}
	if len(kept.Kvs) != 1 || string(kept.Kvs[0].Value) != "3" {
		return fmt.Errorf("at the compacted revision: %v", kept.Kvs)
	}
	for response := range c.Watch(ctx, "compacted", clientv3.WithRev(revisions[1])) {
		if response.CompactRevision != revisions[3] {
			return fmt.Errorf("compact revision of the watch: %v", response)
		}
		return expect(errors.Is(response.Err(), rpctypes.ErrCompacted), "watch: %v", response.Err())
	}
	return errors.New("the watch said nothing")
}

// collect takes events until there are enough of them.
func collect(watch clientv3.WatchChan, count int) ([]*clientv3.Event, error) {
	var events []*clientv3.Event
	for len(events) < count {
		response, open := <-watch
		if !open {
			return nil, fmt.Errorf("closed after %d events", len(events))
		}
		if err := response.Err(); err != nil {
			return nil, err
		}
		events = append(events, response.Events...)
	}
	return events, nil
}

func watchFromNow(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watch := c.Watch(ctx, "now/", clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithCreatedNotify())
	if created := <-watch; !created.Created {
		return fmt.Errorf("first response: %v", created)
	}
	if _, err := c.Put(ctx, "now/a", "1"); err != nil {
		return err
	}
	if _, err := c.Put(ctx, "other", "1"); err != nil {
		return err
	}
	if _, err := c.Delete(ctx, "now/a"); err != nil {
		return err
	}
	events, err := collect(watch, 2)
	if err != nil {
		return err
	}
	if !events[0].IsCreate() || events[0].PrevKv != nil {
		return fmt.Errorf("put: %v", events[0])
	}
	deleted := events[1]
	return expect(deleted.Type == clientv3.EventTypeDelete && deleted.PrevKv != nil &&
		string(deleted.PrevKv.Value) == "1", "delete: %v", deleted)
}

func watchThePast(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const count = 2500
	first, err := c.Put(ctx, "past", "0")
	if err != nil {
		return err
	}
	for i := 1; i < count; i++ {
		if _, err := c.Put(ctx, "past", fmt.Sprint(i)); err != nil {
			return err
		}
	}
	watch := c.Watch(ctx, "past", clientv3.WithRev(first.Header.Revision), clientv3.WithFragment())
	events, err := collect(watch, count)
	if err != nil {
		return err
	}
	for i, event := range events {
		if event.Kv.ModRevision != first.Header.Revision+int64(i) {
			return fmt.Errorf("event %d has revision %d", i, event.Kv.ModRevision)
		}
	}
	return expect(len(events) == count, "%d events", len(events))
}

func watchProgress(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := c.Watch(ctx, "progress", clientv3.WithCreatedNotify())
	<-watch
	put, err := c.Put(ctx, "not watched", "x")
	if err != nil {
		return err
	}
	if err := c.RequestProgress(ctx); err != nil {
		return err
	}
	response := <-watch
	return expect(response.IsProgressNotify() && response.Header.Revision >= put.Header.Revision,
		"progress: %v", response)
}

func leaseRunsOut(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lease, err := c.Grant(ctx, 2)
	if err != nil {
		return err
	}
	put, err := c.Put(ctx, "leased", "x", clientv3.WithLease(lease.ID))
	if err != nil {
		return err
	}
	left, err := c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	if len(left.Keys) != 1 || string(left.Keys[0]) != "leased" || left.GrantedTTL != lease.TTL {
		return fmt.Errorf("time to live: %v", left)
	}
	events, err := collect(c.Watch(ctx, "leased", clientv3.WithRev(put.Header.Revision+1)), 1)
	if err != nil {
		return err
	}
	if events[0].Type != clientv3.EventTypeDelete {
		return fmt.Errorf("event: %v", events[0])
	}
	gone, err := c.TimeToLive(ctx, lease.ID)
	if err != nil {
		return err
	}
	return expect(gone.TTL == -1, "after the end: %v", gone)
}

func leaseKeptAlive(ctx context.Context, c *clientv3.Client) error {
	lease, err := c.Grant(ctx, 2)
	if err != nil {
		return err
	}
	if _, err := c.Put(ctx, "kept", "x", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	alive, err := c.KeepAlive(keeping, lease.ID)
	if err != nil {
		return err
	}
	until := time.After(4 * time.Second)
	for waiting := true; waiting; {
		select {
		case answer, open := <-alive:
			if !open || answer.TTL != lease.TTL {
				return fmt.Errorf("keep alive: %v", answer)
			}
		case <-until:
			waiting = false
		}
	}
	kept, err := c.Get(ctx, "kept")
	if err != nil {
		return err
	}
	if kept.Count != 1 {
		return errors.New("the key is gone")
	}
	if _, err := c.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	gone, err := c.Get(ctx, "kept")
	if err != nil {
		return err
	}
	_, err = c.KeepAliveOnce(ctx, lease.ID)
	return expect(gone.Count == 0 && errors.Is(err, rpctypes.ErrLeaseNotFound),
		"after the revoke: %v %v", gone, err)
}

func mutex(ctx context.Context, c *clientv3.Client) error {
	const contenders = 5
	inside, total := 0, 0
	failed := make(chan error, contenders)
	for range contenders {
		go func() {
			failed <- func() error {
				session, err := concurrency.NewSession(c, concurrency.WithTTL(10))
				if err != nil {
					return err
				}
				defer session.Close()
				lock := concurrency.NewMutex(session, "mutex")
				for range 5 {
					if err := lock.Lock(ctx); err != nil {
						return err
					}
					inside++
					if inside != 1 {
						return fmt.Errorf("%d inside", inside)
					}
					total++
					inside--
					if err := lock.Unlock(ctx); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range contenders {
		if err := <-failed; err != nil {
			return err
		}
	}
	return expect(total == 5*contenders, "%d times inside", total)
}

func election(ctx context.Context, c *clientv3.Client) error {
	first, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer second.Close()
	one, two := concurrency.NewElection(first, "election"), concurrency.NewElection(second, "election")
	if err := one.Campaign(ctx, "one"); err != nil {
		return err
	}
	won := make(chan error, 1)
	go func() { won <- two.Campaign(ctx, "two") }()
	leader, err := two.Leader(ctx)
	if err != nil {
		return err
	}
	if string(leader.Kvs[0].Value) != "one" {
		return fmt.Errorf("leader: %s", leader.Kvs[0].Value)
	}
	if err := one.Proclaim(ctx, "still one"); err != nil {
		return err
	}
	if err := one.Resign(ctx); err != nil {
		return err
	}
	if err := <-won; err != nil {
		return err
	}
	leader, err = one.Leader(ctx)
	if err != nil {
		return err
	}
	return expect(string(leader.Kvs[0].Value) == "two", "leader: %s", leader.Kvs[0].Value)
}

func stm(ctx context.Context, c *clientv3.Client) error {
	for _, key := range []string{"stm/a", "stm/b"} {
		if _, err := c.Put(ctx, key, "100"); err != nil {
			return err
		}
	}
	failed := make(chan error, 4)
	for range cap(failed) {
		go func() {
			_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
				var a, b int
				fmt.Sscan(s.Get("stm/a"), &a)
				fmt.Sscan(s.Get("stm/b"), &b)
				s.Put("stm/a", fmt.Sprint(a-10))
				s.Put("stm/b", fmt.Sprint(b+10))
				return nil
			}, concurrency.WithAbortContext(ctx))
			failed <- err
		}()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			return err
		}
	}
	got, err := c.Get(ctx, "stm/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	return expect(string(got.Kvs[0].Value) == "60" && string(got.Kvs[1].Value) == "140",
		"balances: %v", got.Kvs)
}

func inNamespace(ctx context.Context, c *clientv3.Client) error {
	kv := namespace.NewKV(c.KV, "space/")
	if _, err := kv.Put(ctx, "a", "x"); err != nil {
		return err
	}
	got, err := c.Get(ctx, "space/a")
	if err != nil {
		return err
	}
	return expect(got.Count == 1, "outside: %v", got)
}

func members(ctx context.Context, c *clientv3.Client) error {
	list, err := c.MemberList(ctx)
	if err != nil {
		return err
	}
	if len(list.Members) != 1 || list.Members[0].Name == "" {
		return fmt.Errorf("members: %v", list.Members)
	}
	status, err := c.Status(ctx, c.Endpoints()[0])
	if err != nil {
		return err
	}
	if status.Leader != list.Members[0].ID || status.Version != "3.7.1" {
		return fmt.Errorf("status: %v", status)
	}
	hash, err := c.HashKV(ctx, c.Endpoints()[0], 0)
	if err != nil {
		return err
	}
	alarms, err := c.AlarmList(ctx)
	if err != nil {
		return err
	}
	return expect(hash.Hash != 0 && len(alarms.Alarms) == 0, "hash %v, alarms %v", hash, alarms)
}
