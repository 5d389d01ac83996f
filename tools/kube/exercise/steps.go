package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	extensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func (w *world) storeStarts(context.Context) (string, error) {
	if err := w.store.start(); err != nil {
		return "", err
	}
	_, err := w.store.untilOK(w.store.metricsURL + "/readyz")
	return "", err
}

func (w *world) apiStarts(context.Context) (string, error) {
	begun := time.Now()
	if err := w.api.start(); err != nil {
		return "", err
	}
	_, err := w.api.untilOK(w.apiURL + "/readyz")
	// The apiserver's own controllers go on creating missing objects for a while after that.
	w.outages = append(w.outages, outage{begun, time.Now()})
	return "", err
}

// digest covers everything that the steps check, as a client sees it.
func (w *world) digest(ctx context.Context) (string, error) {
	sum := sha256.New()
	count := 0
	for _, resource := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "namespaces"},
		{Version: "v1", Resource: "configmaps"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	} {
		list, err := w.dynamic.Resource(resource).List(ctx, metav1.ListOptions{})
		if err != nil {
			return "", fmt.Errorf("%s: %w", resource.Resource, err)
		}
		count += len(list.Items)
		for _, item := range list.Items {
			fmt.Fprintln(sum, item.GetNamespace(), item.GetName(), item.GetUID(), item.GetResourceVersion())
		}
	}
	return fmt.Sprintf("%d objects, digest %x", count, sum.Sum(nil)[:4]), nil
}

func (w *world) apiRestarts(ctx context.Context) (string, error) {
	before, err := w.digest(ctx)
	if err != nil {
		return "", err
	}
	begun := time.Now()
	ended, err := w.api.stop(syscall.SIGTERM)
	if err != nil {
		return "", err
	}
	w.outages = append(w.outages, outage{begun, time.Now()})
	starting := time.Now()
	if _, err := w.apiStarts(ctx); err != nil {
		return "", err
	}
	ready := time.Since(starting)
	after, err := w.digest(ctx)
	if err == nil && before != after {
		err = fmt.Errorf("before %s, after %s", before, after)
	}
	return fmt.Sprintf("ended in %.1f s, ready in %.1f s, %s", ended.Seconds(), ready.Seconds(), after), err
}

// eventsEnd: an event exists as long as the store's lease it is attached to.
func (w *world) eventsEnd(ctx context.Context) (string, error) {
	const count = 300
	events := w.client.CoreV1().Events("default")
	list, err := events.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return "", err
	}
	from, err := events.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return "", err
	}
	begun := time.Now()
	var lock sync.Mutex
	written := map[string]time.Time{}
	err = each(count, func(i int) error {
		name := fmt.Sprintf("event-%d", i)
		lock.Lock()
		written[name] = time.Now()
		lock.Unlock()
		_, err := events.Create(ctx, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: name},
			InvolvedObject: corev1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: name},
			Reason:         "Exercise", Type: corev1.EventTypeNormal,
		}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return "", err
	}
	seen := rate(count, begun)
	shortest, longest, deleted := time.Hour, time.Duration(0), 0
	err = watched(ctx, from, func(event watch.Event) (bool, error) {
		object := event.Object.(*corev1.Event)
		lock.Lock()
		since, ours := written[object.Name]
		lock.Unlock()
		if !ours || event.Type != watch.Deleted {
			return false, nil
		}
		if object.Reason != "Exercise" {
			return false, fmt.Errorf("deletion without what was deleted: %v", object)
		}
		life := time.Since(since)
		shortest, longest = min(shortest, life), max(longest, life)
		deleted++
		return deleted == count, nil
	})
	// A lease has the TTL and 5 % more, for the events that share it.
	if err == nil && (shortest < eventTTL || longest > eventTTL+10*time.Second) {
		err = fmt.Errorf("they lived between %s and %s", shortest, longest)
	}
	return fmt.Sprintf("%s; lived %.1f to %.1f s", seen, shortest.Seconds(), longest.Seconds()), err
}

var stones = schema.GroupVersionResource{Group: "exercise.example.com", Version: "v1", Resource: "stones"}

func definition() *extensionsv1.CustomResourceDefinition {
	yes := true
	return &extensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: stones.GroupResource().String()},
		Spec: extensionsv1.CustomResourceDefinitionSpec{
			Group: stones.Group,
			Scope: extensionsv1.NamespaceScoped,
			Names: extensionsv1.CustomResourceDefinitionNames{Plural: "stones", Singular: "stone", Kind: "Stone", ListKind: "StoneList"},
			Versions: []extensionsv1.CustomResourceDefinitionVersion{{
				Name: stones.Version, Served: true, Storage: true,
				Subresources: &extensionsv1.CustomResourceSubresources{Status: &extensionsv1.CustomResourceSubresourceStatus{}},
				Schema: &extensionsv1.CustomResourceValidation{OpenAPIV3Schema: &extensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &yes,
				}},
			}},
		},
	}
}

func stone(name, filling string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": stones.GroupVersion().String(), "kind": "Stone",
		"metadata": map[string]any{"name": name},
		"spec":     map[string]any{"filling": filling},
	}}
}

func (w *world) define(ctx context.Context) error {
	definitions := w.extensions.ApiextensionsV1().CustomResourceDefinitions()
	if _, err := definitions.Create(ctx, definition(), metav1.CreateOptions{}); err != nil {
		return err
	}
	// The condition Established is set some seconds before every part of the apiserver serves the resource.
	for ctx.Err() == nil {
		if _, err := w.dynamic.Resource(stones).Namespace("default").List(ctx, metav1.ListOptions{}); err == nil {
			return nil
		} else if !errors.IsNotFound(err) && !errors.IsTooManyRequests(err) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return ctx.Err()
}

func (w *world) customResources(ctx context.Context) (string, error) {
	const count = 200
	begun := time.Now()
	if err := w.define(ctx); err != nil {
		return "", fmt.Errorf("definition: %w", err)
	}
	served := time.Since(begun)
	these := w.dynamic.Resource(stones).Namespace("default")
	begun = time.Now()
	err := each(count, func(i int) error {
		made, err := these.Create(ctx, stone(fmt.Sprintf("stone-%03d", i), "granite"), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		made.Object["status"] = map[string]any{"weight": int64(i)}
		if _, err = these.UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			return err
		}
		// The status update has changed its revision.
		if _, err = these.Update(ctx, made, metav1.UpdateOptions{}); !errors.IsConflict(err) {
			return fmt.Errorf("an update with a stale revision: %w", err)
		}
		_, err = these.Patch(ctx, made.GetName(), types.MergePatchType, []byte(`{"spec":{"filling":"basalt"}}`), metav1.PatchOptions{})
		return err
	})
	if err != nil {
		return "", err
	}
	seen := rate(3*count, begun)
	list, err := these.List(ctx, metav1.ListOptions{Limit: 150})
	if err != nil {
		return "", err
	}
	rest, err := these.List(ctx, metav1.ListOptions{Limit: 150, Continue: list.GetContinue()})
	if err != nil {
		return "", err
	}
	items := append(list.Items, rest.Items...)
	for i, item := range items {
		weight, _, _ := unstructured.NestedInt64(item.Object, "status", "weight")
		filling, _, _ := unstructured.NestedString(item.Object, "spec", "filling")
		if weight != int64(i) || filling != "basalt" {
			return "", fmt.Errorf("%s weighs %d and is of %s", item.GetName(), weight, filling)
		}
	}
	if len(items) != count {
		return "", fmt.Errorf("%d in two pages", len(items))
	}
	// The deletion of the definition deletes its objects; a new definition has none.
	definitions := w.extensions.ApiextensionsV1().CustomResourceDefinitions()
	if err = definitions.Delete(ctx, definition().Name, metav1.DeleteOptions{}); err != nil {
		return "", err
	}
	for !errors.IsNotFound(err) {
		time.Sleep(100 * time.Millisecond)
		if _, err = definitions.Get(ctx, definition().Name, metav1.GetOptions{}); ctx.Err() != nil {
			return "", fmt.Errorf("the definition does not go: %w", ctx.Err())
		}
	}
	if err = w.define(ctx); err != nil {
		return "", fmt.Errorf("definition, again: %w", err)
	}
	if list, err = these.List(ctx, metav1.ListOptions{}); err == nil && len(list.Items) > 0 {
		err = fmt.Errorf("%d objects outlived their definition", len(list.Items))
	}
	return fmt.Sprintf("served after %.1f s; writes %s; gone with the definition", served.Seconds(), seen), err
}

// largeObjects: the largest object that the store accepts, and that its refusal of a larger one reaches the client.
func (w *world) largeObjects(ctx context.Context) (string, error) {
	these := w.dynamic.Resource(stones).Namespace("default")
	const count, size = 10, 1_000_000
	begun := time.Now()
	for i := range count {
		if _, err := these.Create(ctx, stone(fmt.Sprintf("large-%d", i), strings.Repeat("y", size)), metav1.CreateOptions{}); err != nil {
			return "", err
		}
	}
	list, err := these.List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	for _, item := range list.Items {
		if filling, _, _ := unstructured.NestedString(item.Object, "spec", "filling"); len(filling) != size {
			return "", fmt.Errorf("%s is of %d bytes", item.GetName(), len(filling))
		}
	}
	seen := fmt.Sprintf("%d × %d bytes written and listed in %.2f s", len(list.Items), size, time.Since(begun).Seconds())
	_, err = these.Create(ctx, stone("too-large", strings.Repeat("y", 1_800_000)), metav1.CreateOptions{})
	if err == nil {
		return "", fmt.Errorf("1.8 MB were taken")
	}
	refusal := fmt.Sprintf("%s (%s)", err, errors.ReasonForError(err))
	_, err = these.Create(ctx, stone("too-large", strings.Repeat("y", 2_500_000)), metav1.CreateOptions{})
	if err == nil {
		return "", fmt.Errorf("2.5 MB were taken")
	}
	return fmt.Sprintf("%s; 1.8 MB: %s; 2.5 MB: %s (%s)", seen, refusal, err, errors.ReasonForError(err)), nil
}

// compaction by the apiserver: revisions older than its interval are refused with the proper error.
func (w *world) compaction(ctx context.Context) (string, error) {
	const namespace = "compaction"
	if err := w.namespaceFor(ctx, namespace); err != nil {
		return "", err
	}
	maps := w.client.CoreV1().ConfigMaps(namespace)
	if err := each(200, func(i int) error {
		_, err := maps.Create(ctx, configMap(name(i), i), metav1.CreateOptions{})
		return err
	}); err != nil {
		return "", err
	}
	first, err := maps.List(ctx, metav1.ListOptions{Limit: 50})
	if err != nil {
		return "", err
	}
	if _, err = maps.List(ctx, metav1.ListOptions{Limit: 50, Continue: first.Continue}); err != nil {
		return "", fmt.Errorf("before the compaction: %w", err)
	}
	begun := time.Now()
	// A store without writes is compacted to the revision of one interval ago: something must be written.
	for err == nil {
		if _, err = maps.Patch(ctx, name(0), types.MergePatchType,
			[]byte(fmt.Sprintf(`{"data":{"at":"%s"}}`, time.Now())), metav1.PatchOptions{}); err != nil {
			return "", err
		}
		time.Sleep(500 * time.Millisecond)
		_, err = maps.List(ctx, metav1.ListOptions{Limit: 50, Continue: first.Continue})
	}
	if !errors.IsResourceExpired(err) {
		return "", fmt.Errorf("a page of a compacted revision: %w", err)
	}
	after := time.Since(begun)
	from, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: first.ResourceVersion})
	if err == nil {
		err = watched(ctx, from, func(watch.Event) (bool, error) { return false, fmt.Errorf("an event") })
	}
	if !errors.IsResourceExpired(err) && !errors.IsGone(err) {
		return "", fmt.Errorf("a watch from a compacted revision: %w", err)
	}
	list, err := maps.List(ctx, metav1.ListOptions{})
	if err == nil && len(list.Items) != 200 {
		err = fmt.Errorf("%d objects are left", len(list.Items))
	}
	return fmt.Sprintf("pages and watches of before get 410 after %.0f s", after.Seconds()), err
}
