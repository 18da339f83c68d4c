// Package s3 is a catalog in a bucket of Amazon S3, or of a store that has S3's conditional writes and checksums.
package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog"
)

// Settings say where a catalog is. They hold no secret.
type Settings struct {
	Bucket string `json:"bucket"`
	Prefix string `json:"prefix,omitempty"` // of every key, without a slash at its end; may be empty
	Region string `json:"region,omitempty"` // of the bucket; empty: the account's default
	// KMSKeyID encrypts with this key of AWS KMS (id, ARN or alias); empty: as the bucket does by default.
	KMSKeyID string      `json:"kms_key_id,omitempty"`
	Lock     *ObjectLock `json:"object_lock,omitempty"` // nil: none
}

// ObjectLock keeps the objects of finished backups from being deleted.
type ObjectLock struct {
	Mode       string `json:"mode"` // "GOVERNANCE" or "COMPLIANCE"
	RetainDays int64  `json:"retain_days"`
}

// Catalog keeps each object under its name, after the prefix.
//
// Create and Commit write with If-None-Match, Replace with If-Match: S3 itself decides who was first. Each write carries a random stamp in its metadata. A
// write that is refused is looked up by its stamp, because the one that was there first may be an earlier try of its own whose answer was lost.
type Catalog struct {
	settings Settings
	clock    engine.Clock
	open     func(context.Context) (*s3.Client, error)
	parts    partSizes
}

var (
	_ engine.Catalog = (*Catalog)(nil)
	_ engine.Prober  = (*Catalog)(nil)
	_ engine.Sweeper = (*Catalog)(nil)
)

const (
	stampKey = "scalardb-write" // of an object's metadata
	// probes is where Probe writes: hidden, as no object's name begins with a dot.
	probes = ".probe/"
	// probeAge is how old a forgotten probe must be to be removed.
	probeAge = time.Hour
	// maxKey is S3's limit, in bytes.
	maxKey = 1024
)

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Validate refuses what can be no catalog; the error begins with the setting's name.
func (s Settings) Validate() error {
	if !bucketName.MatchString(s.Bucket) || strings.Contains(s.Bucket, "..") {
		return fmt.Errorf("bucket: %q is no name of a bucket (3 to 63 lower-case letters, digits, dots and hyphens)", s.Bucket)
	}
	if s.Prefix != "" {
		if err := catalog.CheckName(s.Prefix); err != nil {
			return fmt.Errorf("prefix: %q must be like a relative path, without a slash at either end: %w", s.Prefix, err)
		}
	}
	if l := s.Lock; l != nil {
		if l.Mode != string(types.ObjectLockModeGovernance) && l.Mode != string(types.ObjectLockModeCompliance) {
			return fmt.Errorf("object_lock: mode is %q, and must be GOVERNANCE or COMPLIANCE", l.Mode)
		}
		if l.RetainDays < 1 || l.RetainDays > 36500 {
			return fmt.Errorf("object_lock: retain_days is %d, and must be from 1 to 36500", l.RetainDays)
		}
	}
	return nil
}

// ParseURL takes "s3://bucket/prefix" apart; ok is false for what does not begin so.
func ParseURL(location string) (s Settings, ok bool) {
	rest, ok := strings.CutPrefix(location, "s3://")
	if !ok {
		return Settings{}, false
	}
	s.Bucket, s.Prefix, _ = strings.Cut(rest, "/")
	s.Prefix = strings.TrimSuffix(s.Prefix, "/")
	return s, true
}

// String is the catalog's address.
func (s Settings) String() string {
	if s.Prefix == "" {
		return "s3://" + s.Bucket
	}
	return "s3://" + s.Bucket + "/" + s.Prefix
}

// New returns the catalog. Nothing is asked before its first use: open is called then, for every call of the API, and gives the client of the bucket's region.
func New(s Settings, clock engine.Clock, open func(context.Context) (*s3.Client, error)) (*Catalog, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("opening the catalog in S3: %w", err)
	}
	return &Catalog{settings: s, clock: clock, open: open, parts: defaultParts}, nil
}

// Describe names the catalog in messages.
func (c *Catalog) Describe() string { return c.settings.String() }

func (c *Catalog) key(name string) string {
	if c.settings.Prefix == "" {
		return name
	}
	return c.settings.Prefix + "/" + name
}

// check refuses a name that S3 could not hold either.
func (c *Catalog) check(name string) error {
	if err := catalog.CheckName(name); err != nil {
		return err
	}
	if key := c.key(name); len(key) > maxKey {
		return fmt.Errorf("checking a catalog object's name: %.40q… has %d bytes with the catalog's prefix, more than %d", name, len(key), maxKey)
	}
	return nil
}

// Create writes a new object. With object lock, the manifest of a backup is what finishes it: its other objects are locked right before.
func (c *Catalog) Create(ctx context.Context, name string, data []byte) error {
	if err := c.check(name); err != nil {
		return err
	}
	var until time.Time
	if c.settings.Lock != nil && isManifest(name) {
		until = c.clock.Now().UTC().Add(time.Duration(c.settings.Lock.RetainDays) * 24 * time.Hour).Truncate(time.Second)
		if err := c.lockObjects(ctx, data, until); err != nil {
			return c.wrap("writing", name, err)
		}
	}
	if _, err := c.put(ctx, c.key(name), data, "", until); err != nil {
		return c.wrap("writing", name, err)
	}
	return nil
}

// Replace writes over the given version, which is the object's ETag.
func (c *Catalog) Replace(ctx context.Context, name string, data []byte, old engine.Version) (engine.Version, error) {
	if err := c.check(name); err != nil {
		return "", err
	}
	if old == "" {
		return "", c.wrap("replacing", name, errors.New("no version is given"))
	}
	v, err := c.put(ctx, c.key(name), data, old, time.Time{})
	if err != nil {
		return "", c.wrap("replacing", name, err)
	}
	return v, nil
}

// put writes an object that must not exist (old is empty), or must be the version old. locked, if set, is until when object lock holds it.
func (c *Catalog) put(ctx context.Context, key string, data []byte, old engine.Version, locked time.Time) (engine.Version, error) {
	stamp := random()
	sum := sha256.Sum256(data)
	in := s3.PutObjectInput{
		Bucket: &c.settings.Bucket, Key: &key, Metadata: map[string]string{stampKey: stamp}, ContentLength: aws.Int64(int64(len(data))),
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	}
	in.ServerSideEncryption, in.SSEKMSKeyId = c.encryption()
	if old == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = aws.String(string(old))
	}
	if !locked.IsZero() {
		in.ObjectLockMode, in.ObjectLockRetainUntilDate = types.ObjectLockMode(c.settings.Lock.Mode), &locked
	}
	var v engine.Version
	err := c.call(ctx, func(ctx context.Context, api *s3.Client) error {
		in.Body = bytes.NewReader(data)
		out, err := api.PutObject(ctx, &in, once)
		if err == nil {
			v = engine.Version(aws.ToString(out.ETag))
		}
		return err
	})
	if old != "" && isNotFound(err) {
		return "", engine.ErrNotFound
	}
	if !isRefusedByCondition(err) {
		return v, err
	}
	// Whose object stands in the way? Also a try of ours may, whose answer was lost.
	head, err := c.head(ctx, key)
	switch {
	case errors.Is(err, engine.ErrNotFound) && old == "":
		return "", engine.ErrExists // it was there, and is not any more
	case errors.Is(err, engine.ErrNotFound):
		return "", err
	case err != nil:
		return "", fmt.Errorf("whether an earlier try wrote it is not known: %w", err)
	case head.Metadata[stampKey] == stamp:
		return engine.Version(aws.ToString(head.ETag)), nil
	case old == "":
		return "", engine.ErrExists
	}
	return "", engine.ErrChanged
}

func (c *Catalog) encryption() (types.ServerSideEncryption, *string) {
	if c.settings.KMSKeyID == "" {
		return "", nil
	}
	return types.ServerSideEncryptionAwsKms, &c.settings.KMSKeyID
}

// head asks for an object's metadata; ErrNotFound.
func (c *Catalog) head(ctx context.Context, key string) (out *s3.HeadObjectOutput, err error) {
	err = c.call(ctx, func(ctx context.Context, api *s3.Client) (err error) {
		out, err = api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.settings.Bucket, Key: &key}, once)
		return err
	})
	if isNotFound(err) {
		return nil, engine.ErrNotFound
	}
	return out, err
}

// Read returns a small object.
func (c *Catalog) Read(ctx context.Context, name string) ([]byte, engine.Version, error) {
	if err := c.check(name); err != nil {
		return nil, "", err
	}
	data, v, err := c.get(ctx, c.key(name))
	if err != nil {
		return nil, "", c.wrap("reading", name, err)
	}
	return data, v, nil
}

func (c *Catalog) get(ctx context.Context, key string) (data []byte, v engine.Version, err error) {
	err = c.call(ctx, func(ctx context.Context, api *s3.Client) error {
		out, err := api.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.settings.Bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled}, once)
		if err != nil {
			return err
		}
		defer out.Body.Close()
		if aws.ToInt64(out.ContentLength) > catalog.MaxObject {
			return errTooBig
		}
		// One byte more than allowed shows an object that is too big, also one whose length is not told.
		data, err = io.ReadAll(io.LimitReader(out.Body, catalog.MaxObject+1))
		if err != nil {
			return &brokenStream{err}
		}
		if len(data) > catalog.MaxObject {
			return errTooBig
		}
		v = engine.Version(aws.ToString(out.ETag))
		return nil
	})
	if isNotFound(err) {
		err = engine.ErrNotFound
	}
	return data, v, err
}

var errTooBig = fmt.Errorf("it is bigger than %d MiB, which no object of this kind is", catalog.MaxObject>>20)

// List returns the objects whose names begin with prefix.
func (c *Catalog) List(ctx context.Context, prefix string) ([]engine.ObjectInfo, error) {
	if err := catalog.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	var found []engine.ObjectInfo
	err := c.list(ctx, prefix, func(o engine.ObjectInfo) {
		if catalog.CheckName(o.Name) == nil { // else no object of ours, or a probe
			found = append(found, o)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing the objects %s* of the catalog in %s: %w", prefix, c.Describe(), c.explain(err))
	}
	slices.SortFunc(found, func(a, b engine.ObjectInfo) int { return strings.Compare(a.Name, b.Name) }) // some stores do not
	return found, nil
}

func (c *Catalog) list(ctx context.Context, prefix string, each func(engine.ObjectInfo)) error {
	in := s3.ListObjectsV2Input{Bucket: &c.settings.Bucket, Prefix: aws.String(c.key(prefix))}
	for {
		var out *s3.ListObjectsV2Output
		err := c.call(ctx, func(ctx context.Context, api *s3.Client) (err error) {
			out, err = api.ListObjectsV2(ctx, &in, once)
			return err
		})
		if err != nil {
			return err
		}
		for _, o := range out.Contents {
			each(engine.ObjectInfo{Name: strings.TrimPrefix(aws.ToString(o.Key), c.key("")), Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)})
		}
		if !aws.ToBool(out.IsTruncated) {
			return nil
		}
		if in.ContinuationToken = out.NextContinuationToken; aws.ToString(in.ContinuationToken) == "" {
			return errors.New("the list is said to go on, and not where")
		}
	}
}

// Stat describes one object.
func (c *Catalog) Stat(ctx context.Context, name string) (engine.ObjectInfo, error) {
	if err := c.check(name); err != nil {
		return engine.ObjectInfo{}, err
	}
	head, err := c.head(ctx, c.key(name))
	if err != nil {
		return engine.ObjectInfo{}, c.wrap("looking at", name, err)
	}
	return engine.ObjectInfo{Name: name, Size: aws.ToInt64(head.ContentLength), Modified: aws.ToTime(head.LastModified)}, nil
}

// Delete removes one object. In a bucket with versions the content stays as an old version, until a rule of the bucket's lifecycle removes it. An
// object that object lock still holds is not even hidden: the error says until when.
func (c *Catalog) Delete(ctx context.Context, name string) error {
	if err := c.check(name); err != nil {
		return err
	}
	head, err := c.head(ctx, c.key(name))
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = c.held(head)
	}
	if err == nil {
		err = c.remove(ctx, c.key(name))
	}
	if err != nil {
		return c.wrap("deleting", name, err)
	}
	return nil
}

// held says why an object must not be deleted yet.
func (c *Catalog) held(head *s3.HeadObjectOutput) error {
	if until := aws.ToTime(head.ObjectLockRetainUntilDate); until.After(c.clock.Now()) {
		return fmt.Errorf("object lock (%s) holds it until %s: delete it after that", head.ObjectLockMode, until.UTC().Format(time.RFC3339))
	}
	if head.ObjectLockLegalHoldStatus == types.ObjectLockLegalHoldStatusOn {
		return errors.New("a legal hold keeps it: have that removed, and delete it then")
	}
	return nil
}

func (c *Catalog) remove(ctx context.Context, key string) error {
	return c.call(ctx, func(ctx context.Context, api *s3.Client) error {
		_, err := api.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &c.settings.Bucket, Key: &key}, once)
		if isNotFound(err) {
			return nil
		}
		return err
	})
}

// Sweep aborts the unfinished uploads of a dead run: of objects that have its run id in their names. Finished objects stay.
func (c *Catalog) Sweep(ctx context.Context, runID string) error {
	if !engine.ValidRunID(runID) {
		return fmt.Errorf("sweeping the catalog in %s: %q is no run id", c.Describe(), runID)
	}
	if err := c.sweep(ctx, runID); err != nil {
		return fmt.Errorf("sweeping what run %s left in the catalog in %s: %w", runID, c.Describe(), c.explain(err))
	}
	return nil
}

func (c *Catalog) sweep(ctx context.Context, runID string) error {
	in := s3.ListMultipartUploadsInput{Bucket: &c.settings.Bucket, Prefix: aws.String(c.key(""))}
	var failed []error
	for {
		var out *s3.ListMultipartUploadsOutput
		err := c.call(ctx, func(ctx context.Context, api *s3.Client) (err error) {
			out, err = api.ListMultipartUploads(ctx, &in, once)
			return err
		})
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
		for _, u := range out.Uploads {
			if key := aws.ToString(u.Key); ofRun(strings.TrimPrefix(key, c.key("")), runID) {
				failed = append(failed, c.abort(ctx, key, aws.ToString(u.UploadId)))
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return errors.Join(failed...)
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
		if aws.ToString(in.KeyMarker) == "" {
			return errors.Join(append(failed, errors.New("the list of uploads is said to go on, and not where"))...)
		}
	}
}

// ofRun says whether a name belongs to a run: one of its components is the run id ("backups/x/RUNID/a") or begins with it and a dot ("journal/RUNID.json").
func ofRun(name, runID string) bool {
	for component := range strings.SplitSeq(name, "/") {
		if component == runID || strings.HasPrefix(component, runID+".") {
			return true
		}
	}
	return false
}

// wrap says what was done to which object.
func (c *Catalog) wrap(doing, name string, err error) error {
	return fmt.Errorf("%s the object %s of the catalog in %s: %w", doing, name, c.Describe(), c.explain(err))
}

func random() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
