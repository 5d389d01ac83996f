package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Pause before a request to a server that is down is repeated.
const moment = 20 * time.Millisecond

// seat is the lock or office that the sessions contend for: held by one at a time.
type seat interface {
	// take waits until this session holds the seat, and returns the key.
	take(ctx context.Context) (string, error)
	// give releases the seat; it may be called again after an error.
	give(ctx context.Context) error
}

type mutexSeat struct{ *concurrency.Mutex }

func (m mutexSeat) take(ctx context.Context) (string, error) {
	err := m.Lock(ctx)
	return m.Key(), err
}

func (m mutexSeat) give(ctx context.Context) error { return m.Unlock(ctx) }

type electionSeat struct{ *concurrency.Election }

func (e electionSeat) take(ctx context.Context) (string, error) {
	err := e.Campaign(ctx, strconv.Itoa(os.Getpid()))
	return e.Key(), err
}

func (e electionSeat) give(ctx context.Context) error { return e.Resign(ctx) }

// contender reports to the judge: a line for each event, and a line back before it goes on.
type contender struct {
	client *clientv3.Client
	judge  *bufio.Scanner
	kind   string
	name   string
}

// hold takes and releases a lock or an office until the judge answers stop. The protocol is described in
// tests/it/lease_holders/judge.rs.
func hold(client *clientv3.Client, kind, name string, ttl int) error {
	c := contender{client, bufio.NewScanner(os.Stdin), kind, name}
	for {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
		if err != nil {
			time.Sleep(moment)
			continue
		}
		goesOn, err := c.contend(session)
		_ = session.Close()
		if err != nil || !goesOn {
			return err
		}
	}
}

// contend runs for one session; reports if another one is to follow.
func (c *contender) contend(session *concurrency.Session) (bool, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-session.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		place := c.seat(session)
		key, err := place.take(ctx)
		if err != nil {
			time.Sleep(moment)
			continue
		}
		goesOn, err := c.sit(ctx, key)
		if err != nil {
			return false, err
		}
		for place.give(ctx) != nil && ctx.Err() == nil {
			time.Sleep(moment)
		}
		if !goesOn {
			return false, nil
		}
	}
	return true, nil
}

func (c *contender) seat(session *concurrency.Session) seat {
	if c.kind == "election" {
		return electionSeat{concurrency.NewElection(session, "election/"+c.name)}
	}
	return mutexSeat{concurrency.NewMutex(session, c.name)}
}

// sit is the time in which this session holds: a number is read and written one higher, on condition
// that our key still exists.
func (c *contender) sit(ctx context.Context, key string) (bool, error) {
	own, err := c.surely(ctx, clientv3.OpGet(key))
	if err != nil || len(own.Get().Kvs) == 0 {
		return c.tell("missed")
	}
	revision := own.Get().Kvs[0].CreateRevision
	if goesOn, err := c.tell("enter %d", revision); err != nil || !goesOn {
		return goesOn, err
	}
	counter := "count/" + c.name
	read, err := c.surely(ctx, clientv3.OpGet(counter))
	if err != nil {
		return c.tell("lost")
	}
	count := 1
	if kvs := read.Get().Kvs; len(kvs) > 0 {
		before, err := strconv.Atoi(string(kvs[0].Value))
		if err != nil {
			return false, err
		}
		count = before + 1
	}
	written, err := c.surely(ctx, clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", revision)},
		[]clientv3.Op{clientv3.OpPut(counter, strconv.Itoa(count))}, nil))
	if err != nil || !written.Txn().Succeeded {
		return c.tell("lost")
	}
	return c.tell("leave %d", count)
}

// surely repeats a request until it is answered or the session has ended.
func (c *contender) surely(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	for {
		answer, err := c.client.Do(ctx, op)
		if err == nil || ctx.Err() != nil {
			return answer, err
		}
		time.Sleep(moment)
	}
}

// tell sends a line to the judge; the judge's answer decides if the contender goes on.
func (c *contender) tell(format string, args ...any) (bool, error) {
	fmt.Printf(format+"\n", args...)
	if !c.judge.Scan() {
		return false, fmt.Errorf("the judge is gone: %v", c.judge.Err())
	}
	return strings.TrimSpace(c.judge.Text()) == "go", nil
}
