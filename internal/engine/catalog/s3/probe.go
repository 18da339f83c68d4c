package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// probeRetention is how long object lock holds a probe: past the differences of clocks.
const probeRetention = time.Minute

// Probe checks, by writing and removing a hidden object, that the bucket can be written and that the store keeps what a catalog lives by: conditional
// writes, of whole objects and of uploads in parts. With object lock also that the bucket has it, and that it may be used.
func (c *Catalog) Probe(ctx context.Context) error {
	if err := c.probe(ctx); err != nil {
		return fmt.Errorf("probing the catalog in %s: %w", c.Describe(), c.explain(err))
	}
	return nil
}

func (c *Catalog) probe(ctx context.Context) (err error) {
	if c.settings.Lock != nil {
		if err := c.lockable(ctx); err != nil {
			return err
		}
	}
	key := c.key(probes + random())
	v, err := c.put(ctx, key, []byte("1"), "", time.Time{})
	if err != nil {
		return fmt.Errorf("writing a new object: %w", err)
	}
	defer func() {
		// Whatever comes below, nothing stays.
		err = errors.Join(err, c.remove(context.WithoutCancel(ctx), key))
	}()
	if _, err := c.put(ctx, key, []byte("2"), "", time.Time{}); !errors.Is(err, engine.ErrExists) {
		return fmt.Errorf("the store let a new object overwrite another (If-None-Match), or said something else than that it exists: it cannot hold a catalog: %w", orNothing(err))
	}
	next, err := c.put(ctx, key, []byte("3"), v, time.Time{})
	if err != nil {
		return fmt.Errorf("replacing an object: %w", err)
	}
	if _, err := c.put(ctx, key, []byte("4"), v, time.Time{}); !errors.Is(err, engine.ErrChanged) {
		return fmt.Errorf("the store let an object be replaced that had changed since it was read (If-Match), or said something else than that: it cannot hold a catalog: %w", orNothing(err))
	}
	head, err := c.head(ctx, key)
	switch {
	case err != nil:
		return fmt.Errorf("looking at an object: %w", err)
	case engine.Version(aws.ToString(head.ETag)) != next:
		return errors.New("an object that was just replaced still shows its old content: the store cannot hold a catalog")
	case head.ObjectLockRetainUntilDate != nil:
		return fmt.Errorf("the bucket %s locks every new object (a default retention of its object lock), also what a run must be able to delete: remove the default, and use object_lock of the catalog", c.settings.Bucket)
	}
	if err := c.probeParts(ctx, key); err != nil {
		return err
	}
	if c.settings.Lock != nil {
		until := c.clock.Now().UTC().Add(probeRetention)
		if err := c.retain(ctx, key, until); err != nil {
			return fmt.Errorf("locking an object (object lock, %s): %w", c.settings.Lock.Mode, err)
		}
	}
	return c.removeForgotten(ctx)
}

// orNothing is for an error that should have been there.
func orNothing(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

// probeParts completes an upload over an object that is there.
func (c *Catalog) probeParts(ctx context.Context, key string) error {
	w := &writer{caller: ctx, catalog: c, name: probes, key: key, stamp: random(), next: 1, buf: []byte("5")}
	w.ctx, w.cancel = context.WithCancel(ctx)
	err := w.begin()
	if err == nil {
		err = w.commit(ctx)
	}
	closeErr := w.Close()
	if !errors.Is(err, engine.ErrExists) {
		return errors.Join(fmt.Errorf("the store let an upload in parts overwrite an object (If-None-Match), or said something else than that it exists: it cannot hold a catalog: %w", orNothing(err)), closeErr)
	}
	return closeErr
}

// removeForgotten removes what probes left whose processes died.
func (c *Catalog) removeForgotten(ctx context.Context) error {
	var left []engine.ObjectInfo
	var newest time.Time // by the store's clock: our own probe is among them
	err := c.list(ctx, probes, func(o engine.ObjectInfo) {
		left = append(left, o)
		if o.Modified.After(newest) {
			newest = o.Modified
		}
	})
	for _, o := range left {
		if err == nil && newest.Sub(o.Modified) > probeAge {
			err = c.remove(ctx, c.key(o.Name))
		}
	}
	if err != nil {
		return fmt.Errorf("looking for what earlier probes left: %w", err)
	}
	return nil
}

// isManifest says whether a name is that of a backup's manifest.
func isManifest(name string) bool {
	parts := strings.Split(name, "/")
	return len(parts) > 1 && name == engine.ManifestName(parts[1])
}

// lockable refuses a bucket without object lock.
func (c *Catalog) lockable(ctx context.Context) error {
	var out *s3.GetObjectLockConfigurationOutput
	err := c.call(ctx, func(ctx context.Context, api *s3.Client) (err error) {
		out, err = api.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &c.settings.Bucket}, once)
		return err
	})
	if code(err) == "ObjectLockConfigurationNotFoundError" || (err == nil && (out.ObjectLockConfiguration == nil || out.ObjectLockConfiguration.ObjectLockEnabled != types.ObjectLockEnabledEnabled)) {
		return fmt.Errorf("object_lock is set, and the bucket %s has no object lock: turn it on there, or remove object_lock", c.settings.Bucket)
	}
	if err != nil {
		return fmt.Errorf("asking whether the bucket has object lock: %w", err)
	}
	return nil
}

// lockObjects locks what the run of a backup wrote, before its manifest appears.
func (c *Catalog) lockObjects(ctx context.Context, data []byte, until time.Time) error {
	m, err := engine.DecodeManifest(data)
	if err != nil {
		return err
	}
	var keys []string
	prefix := engine.BackupPrefix(m.BackupID) + m.RunID + "/"
	if err := c.list(ctx, prefix, func(o engine.ObjectInfo) { keys = append(keys, c.key(o.Name)) }); err != nil {
		return fmt.Errorf("listing the objects to lock: %w", err)
	}
	for _, key := range keys {
		if err := c.retain(ctx, key, until); err != nil {
			return fmt.Errorf("locking %s until %s (object lock, %s): %w", key, until.Format(time.RFC3339), c.settings.Lock.Mode, err)
		}
	}
	return nil
}

func (c *Catalog) retain(ctx context.Context, key string, until time.Time) error {
	return c.call(ctx, func(ctx context.Context, api *s3.Client) error {
		_, err := api.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{
			Bucket: &c.settings.Bucket, Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
			Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionMode(c.settings.Lock.Mode), RetainUntilDate: aws.Time(until)},
		}, once)
		return err
	})
}
