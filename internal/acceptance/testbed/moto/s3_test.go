//go:build acceptance

package moto

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/catalogtest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/s3"
)

// bucket makes a bucket, with object lock or without.
func (b *bed) bucket(t *testing.T, name string, lock bool) {
	t.Helper()
	_, err := b.direct.s3.CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: &name, ObjectLockEnabledForBucket: &lock,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: region}})
	must(t, err)
}

func (b *bed) open(t *testing.T, s s3.Settings) *s3.Catalog {
	t.Helper()
	c, err := s3.New(s, system, func(context.Context) (*awss3.Client, error) { return b.session.S3(region), nil })
	must(t, err)
	return c
}

// catalogFlow is every way of the catalog in S3.
func (b *bed) catalogFlow(t *testing.T) {
	b.bucket(t, "plain", false)
	b.bucket(t, "locked", true)
	var n atomic.Int64
	var made *s3.Catalog
	t.Run("conformance", catalogtest.Suite{
		Workers: 4, // it is here for the wire; versitygw is raced in the package of the catalog
		New: func(t *testing.T) engine.Catalog {
			made = b.open(t, s3.Settings{Bucket: "plain", Prefix: fmt.Sprintf("p%d", n.Add(1))})
			return made
		},
	}.Run)
	ctx := t.Context()
	for name, s := range map[string]s3.Settings{"plain": {Bucket: "plain"}, "locked": {Bucket: "locked", Prefix: "p", Lock: &s3.ObjectLock{Mode: "GOVERNANCE", RetainDays: 1}}} {
		c := b.open(t, s)
		if err := c.Probe(ctx); err != nil {
			t.Errorf("probing %s: %v", name, err)
		}
		// Three parts, and the same bytes back.
		const object, size = "backups/b/" + backupRun + "/orders/dump", 20 << 20
		for range 2 {
			w, err := c.NewWriter(ctx, object)
			must(t, err)
			_, err = w.Write(make([]byte, size))
			must(t, err)
			if aborted := n.Add(1)%2 == 0; aborted {
				must(t, w.Close())
				continue
			}
			must(t, w.Commit(ctx))
			must(t, w.Close())
			r, err := c.Open(ctx, object)
			must(t, err)
			if got, err := io.Copy(io.Discard, r); got != size || err != nil {
				t.Errorf("read %d bytes, %v", got, err)
			}
			must(t, r.Close())
			must(t, c.Delete(ctx, object))
		}
		must(t, c.Sweep(ctx, backupRun))
	}
	// The catalog lists the parts of uploads that it aborted, to see that they are gone. Here is one that is not.
	in := &awss3.CreateMultipartUploadInput{Bucket: aws.String("plain"), Key: aws.String("parts")}
	upload, err := b.direct.s3.CreateMultipartUpload(ctx, in)
	must(t, err)
	_, err = b.session.S3(region).ListParts(ctx, &awss3.ListPartsInput{Bucket: in.Bucket, Key: in.Key, UploadId: upload.UploadId})
	must(t, err)
	_, err = b.direct.s3.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: in.Bucket, Key: in.Key, UploadId: upload.UploadId})
	must(t, err)
	left, err := b.direct.s3.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: aws.String("plain")})
	if err != nil || len(left.Uploads) > 0 {
		t.Errorf("unfinished uploads: %+v, %v", left, err)
	}
}
