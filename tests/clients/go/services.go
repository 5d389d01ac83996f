package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refused reports if a call ended with this text and the one code that these services use.
func refused(err error, text string) error {
	s, _ := status.FromError(err)
	return expect(s.Code() == codes.Unknown && s.Message() == text, "not %q but %v", text, err)
}

// lease grants one to bind keys to.
func lease(ctx context.Context, c *clientv3.Client) (int64, error) {
	granted, err := c.Grant(ctx, 60)
	if err != nil {
		return 0, err
	}
	return int64(granted.ID), nil
}

// The server-side lock service: one holder at a time, the next in line when the key or the
// lease of the holder is deleted, and no key left by a cancelled call.
func lockService(ctx context.Context, c *clientv3.Client) error {
	locks := v3lockpb.NewLockClient(c.ActiveConnection())
	name := []byte("service/lock")
	first, err := lease(ctx, c)
	if err != nil {
		return err
	}
	second, err := lease(ctx, c)
	if err != nil {
		return err
	}
	held, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: first})
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("service/lock/%x", first); string(held.Key) != want {
		return fmt.Errorf("key %q, not %q", held.Key, want)
	}
	again, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: first})
	if err != nil || string(again.Key) != string(held.Key) {
		return fmt.Errorf("the holder asks again: %v, %v", again, err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	_, err = locks.Lock(short, &v3lockpb.LockRequest{Name: name, Lease: second})
	cancel()
	if status.Code(err) != codes.DeadlineExceeded {
		return fmt.Errorf("a second holder: %v", err)
	}
	if err := alone(ctx, c, "service/lock/"); err != nil {
		return err
	}
	next := make(chan error, 1)
	go func() {
		_, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: second})
		next <- err
	}()
	select {
	case err := <-next:
		return fmt.Errorf("it did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if _, err := locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key}); err != nil {
		return err
	}
	if err := <-next; err != nil {
		return err
	}
	if _, err := c.Revoke(ctx, clientv3.LeaseID(second)); err != nil {
		return err
	}
	own, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name})
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(own.Key), "service/lock/") {
		return fmt.Errorf("key %q", own.Key)
	}
	_, err = locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: second})
	return refused(err, "etcdserver: requested lease not found")
}

// alone waits until there is one key under a prefix: the key of a cancelled call is deleted soon after it.
func alone(ctx context.Context, c *clientv3.Client, prefix string) error {
	for {
		found, err := c.Get(ctx, prefix, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		if found.Count == 1 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// The election service: leaders one after the other, and an observer who receives each of them.
func electionService(ctx context.Context, c *clientv3.Client) error {
	elections := v3electionpb.NewElectionClient(c.ActiveConnection())
	name := []byte("service/election")
	asked := &v3electionpb.LeaderRequest{Name: name}
	_, err := elections.Leader(ctx, asked)
	if err := refused(err, "election: no leader"); err != nil {
		return err
	}
	heard, err := elections.Observe(ctx, asked)
	if err != nil {
		return err
	}
	first, err := lease(ctx, c)
	if err != nil {
		return err
	}
	second, err := lease(ctx, c)
	if err != nil {
		return err
	}
	leads, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: first, Value: []byte("a")})
	if err != nil {
		return err
	}
	if err := hears(heard, "a"); err != nil {
		return err
	}
	next := make(chan *v3electionpb.CampaignResponse, 1)
	go func() {
		won, _ := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: second, Value: []byte("c")})
		next <- won
	}()
	if _, err := elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: leads.Leader, Value: []byte("b")}); err != nil {
		return err
	}
	if err := hears(heard, "b"); err != nil {
		return err
	}
	now, err := elections.Leader(ctx, asked)
	if err != nil || string(now.Kv.Value) != "b" {
		return fmt.Errorf("leader %v, %v", now, err)
	}
	if _, err := elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: leads.Leader}); err != nil {
		return err
	}
	won := <-next
	if won == nil || won.Leader.Lease != second {
		return fmt.Errorf("won by %v", won)
	}
	if err := hears(heard, "c"); err != nil {
		return err
	}
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: leads.Leader, Value: []byte("d")})
	if err := refused(err, "election: not leader"); err != nil {
		return err
	}
	_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{})
	return refused(err, "\"leader\" field must be provided")
}

// hears receives the next message, which must have this value.
func hears(heard v3electionpb.Election_ObserveClient, value string) error {
	told, err := heard.Recv()
	if err != nil {
		return err
	}
	return expect(string(told.Kv.Value) == value, "heard %q, not %q", told.Kv.Value, value)
}
