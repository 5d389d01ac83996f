package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"basalt/tools/kube/pki"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcdutil "k8s.io/kubernetes/cmd/kubeadm/app/util/etcd"
)

// client connects to one machine's member with the certificate of its API server.
func (n *node) client() (*clientv3.Client, error) {
	config, err := n.clientTLS()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Endpoints:   []string{etcdutil.GetClientURL(&n.config.LocalAPIEndpoint)},
		DialTimeout: 10 * time.Second,
		TLS:         config,
	})
}

func (n *node) clientTLS() (*tls.Config, error) {
	files := pki.APIServer(n.config)
	info := transport.TLSInfo{CertFile: files.Certificate, KeyFile: files.Key, TrustedCAFile: files.CA}
	return info.ClientConfig()
}

// presented returns the serial number of the certificate that the member shows.
func (n *node) presented() (string, error) {
	config, err := n.clientTLS()
	if err != nil {
		return "", err
	}
	connection, err := tls.Dial("tcp", n.config.LocalAPIEndpoint.AdvertiseAddress+":2379", config)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	return connection.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// with calls a function with a client of each machine.
func with(nodes []*node, do func(context.Context, *node, *clientv3.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range nodes {
		client, err := n.client()
		if err == nil {
			err = do(ctx, n, client)
			_ = client.Close()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return nil
}

// serves writes through each member, reads all of it from each, and compares their hashes.
func (w *world) serves(nodes []*node) (string, error) {
	stamp := time.Now().Format(time.RFC3339Nano)
	var revision int64
	err := with(nodes, func(ctx context.Context, n *node, client *clientv3.Client) error {
		answer, err := client.Put(ctx, "/registry/"+n.name, stamp)
		if err == nil {
			revision = answer.Header.Revision
		}
		return err
	})
	if err != nil {
		return "", err
	}
	hashes := map[uint32]int{}
	err = with(nodes, func(ctx context.Context, n *node, client *clientv3.Client) error {
		for _, writer := range nodes {
			answer, err := client.Get(ctx, "/registry/"+writer.name)
			if err != nil {
				return err
			}
			if len(answer.Kvs) != 1 || string(answer.Kvs[0].Value) != stamp {
				return fmt.Errorf("reads %v instead of %s", answer.Kvs, stamp)
			}
		}
		hash, err := client.HashKV(ctx, client.Endpoints()[0], revision)
		if err == nil {
			hashes[hash.Hash]++
		}
		return err
	})
	if err == nil && len(hashes) != 1 {
		err = fmt.Errorf("hashes differ: %v", hashes)
	}
	return fmt.Sprintf("revision %d, equal hashes", revision), err
}

// allVote fails unless the members are those whose pods run, and all of them vote.
func (w *world) allVote() error {
	var running []*node
	for _, n := range w.nodes {
		if n.kubelet.isRunning() {
			running = append(running, n)
		}
	}
	return with(running, func(ctx context.Context, _ *node, client *clientv3.Client) error {
		answer, err := client.MemberList(ctx)
		if err != nil {
			return err
		}
		voters := 0
		for _, member := range answer.Members {
			if !member.IsLearner && member.Name != "" {
				voters++
			}
		}
		if voters != len(running) || len(answer.Members) != voters {
			return fmt.Errorf("%d pods run, and these are the members: %v", len(running), answer.Members)
		}
		return nil
	})
}

// observer looks for learners.
type observer struct {
	cancel context.CancelFunc
	seen   chan bool
	result bool
}

func (w *world) observeLearners() *observer {
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{cancel: cancel, seen: make(chan bool, 1)}
	go func() {
		seen := false
		client, err := w.nodes[0].client()
		if err == nil {
			defer client.Close()
			for ctx.Err() == nil && !seen {
				if answer, err := client.MemberList(ctx); err == nil {
					for _, member := range answer.Members {
						seen = seen || member.IsLearner
					}
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		o.seen <- seen
	}()
	return o
}

// stop returns true if there was one.
func (o *observer) stop() bool {
	o.cancel()
	select {
	case o.result = <-o.seen:
	case <-time.After(time.Second):
	}
	return o.result
}
