// Package pki makes kubeadm's configuration of one machine, and its certificates, by kubeadm's own code.
package pki

import (
	"path/filepath"

	kubeadmapi "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	"k8s.io/kubernetes/cmd/kubeadm/app/constants"
	"k8s.io/kubernetes/cmd/kubeadm/app/phases/certs"
	configutil "k8s.io/kubernetes/cmd/kubeadm/app/util/config"
)

// Configuration is that of `kubeadm init` on a machine, with certificates and etcd's data below a directory.
func Configuration(name, address, dir string) (*kubeadmapi.InitConfiguration, error) {
	config, err := configutil.DefaultedStaticInitConfiguration()
	if err != nil {
		return nil, err
	}
	config.NodeRegistration.Name = name
	config.LocalAPIEndpoint.AdvertiseAddress = address
	config.CertificatesDir = filepath.Join(dir, "pki")
	config.Etcd.Local.DataDir = filepath.Join(dir, "etcd")
	return config, nil
}

// Make makes all certificates that are missing. CAs that are there sign them.
func Make(config *kubeadmapi.InitConfiguration) error {
	return certs.CreatePKIAssets(config)
}

// Files are a CA, a certificate and its key.
type Files struct{ CA, Certificate, Key string }

// APIServer returns the files with which the API server talks to etcd.
func APIServer(config *kubeadmapi.InitConfiguration) Files {
	return files(config, constants.APIServerEtcdClientCertName, constants.APIServerEtcdClientKeyName)
}

// Healthcheck returns the files of kubeadm's own client, and of people with etcdctl.
func Healthcheck(config *kubeadmapi.InitConfiguration) Files {
	return files(config, constants.EtcdHealthcheckClientCertName, constants.EtcdHealthcheckClientKeyName)
}

func files(config *kubeadmapi.InitConfiguration, certificate, key string) Files {
	in := func(name string) string { return filepath.Join(config.CertificatesDir, name) }
	return Files{CA: in(constants.EtcdCACertName), Certificate: in(certificate), Key: in(key)}
}
