package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	objects   = 1300
	pageLimit = 100
	workers   = 16
)

// day holds the ordinary operations of a cluster, on the configmaps of one namespace.
type day struct {
	*world
	namespace string
	// The list's revision before the first object.
	before string
}

func (d *day) maps() typedv1.ConfigMapInterface { return d.client.CoreV1().ConfigMaps(d.namespace) }

func name(i int) string { return fmt.Sprintf("map-%04d", i) }

func configMap(name string, i int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{"half": fmt.Sprint(i % 2), "exercise": "true"},
		},
		Data: map[string]string{"i": fmt.Sprint(i), "filling": strings.Repeat("x", 1000)},
	}
}

// each calls do for 0 to count by several workers and returns the first error.
func each(count int, do func(i int) error) error {
	var next atomic.Int64
	var group sync.WaitGroup
	failed := make(chan error, workers)
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed <- fmt.Errorf("%d: %w", i, err)
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	return <-failed
}

func rate(count int, begun time.Time) string {
	return fmt.Sprintf("%d, %.0f/s", count, float64(count)/time.Since(begun).Seconds())
}

// older reports if one resource version comes before another.
func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

func (w *world) namespaceFor(ctx context.Context, name string) error {
	_, err := w.client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

func (d *day) create(ctx context.Context) (string, error) {
	if err := d.namespaceFor(ctx, d.namespace); err != nil {
		return "", err
	}
	list, err := d.maps().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	d.before = list.ResourceVersion
	var versions sync.Map
	begun := time.Now()
	err = each(objects, func(i int) error {
		made, err := d.maps().Create(ctx, configMap(name(i), i), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if _, twice := versions.LoadOrStore(made.ResourceVersion, i); twice || !older(d.before, made.ResourceVersion) {
			return fmt.Errorf("revision %s is not new", made.ResourceVersion)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	seen := rate(objects, begun)
	if _, err = d.maps().Create(ctx, configMap(name(0), 0), metav1.CreateOptions{}); !errors.IsAlreadyExists(err) {
		return "", fmt.Errorf("a second create: %w", err)
	}
	return seen, nil
}

func (d *day) get(ctx context.Context) (string, error) {
	begun := time.Now()
	err := each(objects, func(i int) error {
		got, err := d.maps().Get(ctx, name(i), metav1.GetOptions{})
		if err == nil && got.Data["i"] != fmt.Sprint(i) {
			err = fmt.Errorf("got %v", got.Data)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	seen := rate(objects, begun)
	if _, err = d.maps().Get(ctx, "nobody", metav1.GetOptions{}); !errors.IsNotFound(err) {
		return "", fmt.Errorf("get of what is not there: %w", err)
	}
	return seen, nil
}

func (d *day) listAtOnce(ctx context.Context) (string, error) {
	const times = 20
	begun := time.Now()
	for range times {
		list, err := d.maps().List(ctx, metav1.ListOptions{LabelSelector: "exercise"})
		if err != nil {
			return "", err
		}
		if len(list.Items) != objects || list.Continue != "" {
			return "", fmt.Errorf("%d objects, continue %q", len(list.Items), list.Continue)
		}
	}
	return fmt.Sprintf("%d × %d, %.1f ms each", times, objects, float64(time.Since(begun).Milliseconds())/times), nil
}

func (d *day) listInPages(ctx context.Context) (string, error) {
	options := metav1.ListOptions{Limit: pageLimit}
	var names []string
	revision, pages := "", 0
	for {
		list, err := d.maps().List(ctx, options)
		if err != nil {
			return "", err
		}
		pages++
		for _, item := range list.Items {
			names = append(names, item.Name)
		}
		if revision != "" && revision != list.ResourceVersion {
			return "", fmt.Errorf("page %d is of revision %s, the first was of %s", pages, list.ResourceVersion, revision)
		}
		revision = list.ResourceVersion
		if list.Continue == "" {
			break
		}
		if left := list.RemainingItemCount; left == nil || *left != int64(objects-len(names)) {
			return "", fmt.Errorf("page %d says that %v remain", pages, left)
		}
		// The pages after this one are of the first one's revision: they must not show it.
		late := configMap(fmt.Sprintf("map-9%03d", pages), 0)
		if _, err = d.maps().Create(ctx, late, metav1.CreateOptions{}); err != nil {
			return "", err
		}
		options.Continue = list.Continue
	}
	if len(names) != objects {
		return "", fmt.Errorf("%d objects in %d pages", len(names), pages)
	}
	for i, got := range names {
		if got != name(i) {
			return "", fmt.Errorf("%s at place %d", got, i)
		}
	}
	for page := 1; page < pages; page++ {
		if err := d.maps().Delete(ctx, fmt.Sprintf("map-9%03d", page), metav1.DeleteOptions{}); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d pages, another object between any two", pages), nil
}

// watched follows events until done returns true. Events must be in the order of revisions.
func watched(ctx context.Context, from watch.Interface, done func(watch.Event) (bool, error)) error {
	defer from.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the event waited for did not come, the last was of revision %s", last)
		case event, open := <-from.ResultChan():
			if !open {
				return fmt.Errorf("the watch ended after revision %s", last)
			}
			if event.Type == watch.Error {
				return errors.FromObject(event.Object)
			}
			object, err := meta.Accessor(event.Object)
			if err != nil {
				return err
			}
			if older(object.GetResourceVersion(), last) {
				return fmt.Errorf("revision %s came after %s", object.GetResourceVersion(), last)
			}
			last = object.GetResourceVersion()
			if end, err := done(event); end || err != nil {
				return err
			}
		}
	}
}

func (d *day) watchFromRevision(ctx context.Context) (string, error) {
	from, err := d.maps().Watch(ctx, metav1.ListOptions{ResourceVersion: d.before})
	if err != nil {
		return "", err
	}
	begun := time.Now()
	added, seen := 0, map[watch.EventType]int{}
	// First the present objects, then the changes during the watch: the last of them is a deletion.
	go func() {
		for i := range 20 {
			patch := fmt.Sprintf(`{"data":{"round":"%d"}}`, i)
			_, _ = d.maps().Patch(ctx, name(i), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		}
		_, _ = d.maps().Create(ctx, configMap("last", 0), metav1.CreateOptions{})
		_ = d.maps().Delete(ctx, "last", metav1.DeleteOptions{})
	}()
	err = watched(ctx, from, func(event watch.Event) (bool, error) {
		seen[event.Type]++
		object := event.Object.(*corev1.ConfigMap)
		if event.Type == watch.Added && strings.HasPrefix(object.Name, "map-0") || strings.HasPrefix(object.Name, "map-1") {
			added++
		}
		if event.Type == watch.Deleted && object.Data["filling"] == "" {
			return false, fmt.Errorf("deletion of %s without what was deleted", object.Name)
		}
		return event.Type == watch.Deleted && object.Name == "last", nil
	})
	if err == nil && (seen[watch.Modified] != 20 || seen[watch.Added] != objects+13) {
		err = fmt.Errorf("saw %v", seen)
	}
	return fmt.Sprintf("%v in %.2f s", seen, time.Since(begun).Seconds()), err
}

func (d *day) watchList(ctx context.Context) (string, error) {
	yes := true
	from, err := d.maps().Watch(ctx, metav1.ListOptions{
		SendInitialEvents:    &yes,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		AllowWatchBookmarks:  true,
	})
	if err != nil {
		return "", err
	}
	count := 0
	// The present objects come in the order of names, with revisions in any order.
	defer from.Stop()
	for {
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%d objects and no bookmark", count)
		case event := <-from.ResultChan():
			object, err := meta.Accessor(event.Object)
			if err != nil {
				return "", err
			}
			if event.Type == watch.Bookmark && object.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
				if count != objects {
					return "", fmt.Errorf("%d objects before the bookmark", count)
				}
				return fmt.Sprintf("%d objects, then the bookmark of %s", count, object.GetResourceVersion()), nil
			}
			count++
		}
	}
}

// bookmarks are sent while none of the watched objects changes but others do.
func (d *day) bookmarks(ctx context.Context) (string, error) {
	list, err := d.maps().List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return "", err
	}
	// The cache sends one shortly before the end of a watch, up to the store's progress revision.
	seconds := int64(14)
	from, err := d.maps().Watch(ctx, metav1.ListOptions{
		ResourceVersion: list.ResourceVersion, AllowWatchBookmarks: true, TimeoutSeconds: &seconds,
	})
	if err != nil {
		return "", err
	}
	other := "other-" + d.namespace
	if err = d.namespaceFor(ctx, other); err != nil {
		return "", err
	}
	made, err := d.client.CoreV1().ConfigMaps(other).Create(ctx, configMap("other", 0), metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	var at string
	err = watched(ctx, from, func(event watch.Event) (bool, error) {
		if event.Type != watch.Bookmark {
			return false, fmt.Errorf("%s of what is not watched", event.Type)
		}
		at = event.Object.(*corev1.ConfigMap).ResourceVersion
		return !older(at, made.ResourceVersion), nil
	})
	return "at a later write's revision", err
}

func (d *day) conflict(ctx context.Context) (string, error) {
	object, err := d.maps().Get(ctx, name(0), metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	stale := object.DeepCopy()
	object.Data["first"] = "yes"
	updated, err := d.maps().Update(ctx, object, metav1.UpdateOptions{})
	if err != nil {
		return "", err
	}
	if !older(stale.ResourceVersion, updated.ResourceVersion) {
		return "", fmt.Errorf("revision went from %s to %s", stale.ResourceVersion, updated.ResourceVersion)
	}
	stale.Data["second"] = "yes"
	if _, err = d.maps().Update(ctx, stale, metav1.UpdateOptions{}); !errors.IsConflict(err) {
		return "", fmt.Errorf("an update with a stale revision: %w", err)
	}
	// An update without a change is not written.
	again, err := d.maps().Update(ctx, updated, metav1.UpdateOptions{})
	if err == nil && again.ResourceVersion != updated.ResourceVersion {
		err = fmt.Errorf("an update of nothing was written")
	}
	return "409", err
}

func (d *day) contended(ctx context.Context) (string, error) {
	const turns = 400
	if _, err := d.maps().Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "counter"}, Data: map[string]string{"n": "0"},
	}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	var conflicts atomic.Int64
	begun := time.Now()
	err := each(turns, func(int) error {
		for {
			object, err := d.maps().Get(ctx, "counter", metav1.GetOptions{})
			if err != nil {
				return err
			}
			var n int
			if _, err = fmt.Sscan(object.Data["n"], &n); err != nil {
				return err
			}
			object.Data["n"] = fmt.Sprint(n + 1)
			_, err = d.maps().Update(ctx, object, metav1.UpdateOptions{})
			if !errors.IsConflict(err) {
				return err
			}
			conflicts.Add(1)
		}
	})
	if err != nil {
		return "", err
	}
	seen := rate(turns, begun)
	object, err := d.maps().Get(ctx, "counter", metav1.GetOptions{})
	if err == nil && object.Data["n"] != fmt.Sprint(turns) {
		err = fmt.Errorf("%d increments gave %s", turns, object.Data["n"])
	}
	return fmt.Sprintf("%s, %d conflicts", seen, conflicts.Load()), err
}

func (d *day) patch(ctx context.Context) (string, error) {
	want := maps.Clone(configMap(name(30), 30).Data)
	for kind, patch := range map[types.PatchType]string{
		types.MergePatchType:          `{"data":{"merge":"1"}}`,
		types.StrategicMergePatchType: `{"data":{"strategic":"1"}}`,
		types.JSONPatchType:           `[{"op":"add","path":"/data/json","value":"1"}]`,
		types.ApplyYAMLPatchType:      `{"apiVersion":"v1","kind":"ConfigMap","data":{"apply":"1"}}`,
	} {
		options := metav1.PatchOptions{}
		if kind == types.ApplyYAMLPatchType {
			options.FieldManager = "exercise"
		}
		if _, err := d.maps().Patch(ctx, name(30), kind, []byte(patch), options); err != nil {
			return "", fmt.Errorf("%s: %w", kind, err)
		}
	}
	for _, key := range []string{"merge", "strategic", "json", "apply"} {
		want[key] = "1"
	}
	got, err := d.maps().Get(ctx, name(30), metav1.GetOptions{})
	if err == nil && !maps.Equal(got.Data, want) {
		err = fmt.Errorf("got %v", got.Data)
	}
	if err != nil {
		return "", err
	}
	begun := time.Now()
	err = each(objects, func(i int) error {
		_, err := d.maps().Patch(ctx, name(i), types.MergePatchType, []byte(`{"data":{"all":"1"}}`), metav1.PatchOptions{})
		return err
	})
	return "four kinds; " + rate(objects, begun), err
}

func (d *day) remove(ctx context.Context) (string, error) {
	wrong := types.UID("00000000-0000-0000-0000-000000000000")
	stale := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrong}}
	if err := d.maps().Delete(ctx, name(1), stale); !errors.IsConflict(err) {
		return "", fmt.Errorf("delete with a wrong uid: %w", err)
	}
	const count = 100
	begun := time.Now()
	if err := each(count, func(i int) error { return d.maps().Delete(ctx, name(i), metav1.DeleteOptions{}) }); err != nil {
		return "", err
	}
	seen := rate(count, begun)
	if _, err := d.maps().Get(ctx, name(0), metav1.GetOptions{}); !errors.IsNotFound(err) {
		return "", fmt.Errorf("get of a deleted object: %w", err)
	}
	if err := d.maps().Delete(ctx, name(0), metav1.DeleteOptions{}); !errors.IsNotFound(err) {
		return "", fmt.Errorf("a second delete: %w", err)
	}
	return seen, nil
}

func (d *day) removeCollection(ctx context.Context) (string, error) {
	const half = "half=1,exercise"
	list, err := d.maps().List(ctx, metav1.ListOptions{LabelSelector: half})
	if err != nil {
		return "", err
	}
	from, err := d.maps().Watch(ctx, metav1.ListOptions{LabelSelector: half, ResourceVersion: list.ResourceVersion})
	if err != nil {
		return "", err
	}
	begun := time.Now()
	err = d.maps().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: half})
	if err != nil {
		return "", err
	}
	seen := rate(len(list.Items), begun)
	deleted := 0
	err = watched(ctx, from, func(event watch.Event) (bool, error) {
		if event.Type != watch.Deleted {
			return false, fmt.Errorf("%s among deletions", event.Type)
		}
		deleted++
		return deleted == len(list.Items), nil
	})
	if err != nil {
		return "", err
	}
	list, err = d.maps().List(ctx, metav1.ListOptions{LabelSelector: half})
	if err == nil && len(list.Items) > 0 {
		err = fmt.Errorf("%d are still there", len(list.Items))
	}
	return seen, err
}

// renewLeases is what the kubelets of a cluster do: each renews its own every few seconds.
func (d *day) renewLeases(ctx context.Context) (string, error) {
	const nodes, rounds = 100, 10
	leases := d.client.CoordinationV1().Leases(d.namespace)
	held := make([]*coordinationv1.Lease, nodes)
	err := each(nodes, func(i int) (err error) {
		holder, seconds := fmt.Sprintf("node-%d", i), int32(40)
		held[i], err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: holder},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds},
		}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return "", err
	}
	begun := time.Now()
	err = each(nodes, func(i int) (err error) {
		for range rounds {
			now := metav1.NowMicro()
			held[i].Spec.RenewTime = &now
			if held[i], err = leases.Update(ctx, held[i], metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
	return rate(nodes*rounds, begun), err
}
