package main

import (
	"flag"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// identity is how the client shows who it is.
type identity struct {
	files *transport.TLSInfo
	user  *string
}

func identityFlags() identity {
	files := &transport.TLSInfo{}
	flag.StringVar(&files.TrustedCAFile, "cacert", "", "file of the authorities of the server's certificate")
	flag.StringVar(&files.CertFile, "cert", "", "file of the client's certificate")
	flag.StringVar(&files.KeyFile, "key", "", "file of its key")
	return identity{files, flag.String("user", "", "user:password")}
}

// connect opens a client of these endpoints.
func (i identity) connect(endpoints []string, options ...grpc.DialOption) (*clientv3.Client, error) {
	config := clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, DialOptions: options}
	if i.files.TrustedCAFile != "" {
		secure, err := i.files.ClientConfig()
		if err != nil {
			return nil, err
		}
		config.TLS = secure
	}
	if *i.user != "" {
		name, password, ok := strings.Cut(*i.user, ":")
		if !ok {
			return nil, fmt.Errorf("no password in -user")
		}
		config.Username, config.Password = name, password
	}
	return clientv3.New(config)
}
