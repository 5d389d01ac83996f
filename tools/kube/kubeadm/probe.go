package main

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/cmd/kubeadm/app/util/staticpod"
	"k8s.io/kubernetes/pkg/probe"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
)

// probeForever asks the probes of a pod by the kubelet's own code and prints each answer. The startup probe is repeated
// more often than the kubelet does, to learn when the pod was ready.
func probeForever(manifest string) error {
	pod, err := staticpod.ReadStaticPodFromDisk(manifest)
	if err != nil {
		return err
	}
	container := &pod.Spec.Containers[0]
	prober := httpprobe.New(false)
	ask := func(p *v1.Probe) error {
		// With the network of the machine the address of the pod is that of the machine. The probe names its own.
		request, err := httpprobe.NewRequestForHTTPGetAction(p.HTTPGet, container, "", "probe")
		if err != nil {
			return err
		}
		result, body, err := prober.Probe(request, time.Duration(p.TimeoutSeconds)*time.Second)
		if err == nil && result != probe.Success {
			err = fmt.Errorf("%s: %q", result, body)
		}
		return err
	}
	for ask(container.StartupProbe) != nil {
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Println("started")
	for second := int32(0); ; second++ {
		for name, p := range map[string]*v1.Probe{"liveness": container.LivenessProbe, "readiness": container.ReadinessProbe} {
			if second%p.PeriodSeconds != 0 {
				continue
			}
			if err := ask(p); err != nil {
				fmt.Println(name, err)
			} else {
				fmt.Println(name, "ok")
			}
		}
		time.Sleep(time.Second)
	}
}
