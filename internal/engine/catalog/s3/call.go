package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// tryTimeout ends one try of a call that moves little data, callTimeout all of them. A run's lock is lost after a minute of silence.
	tryTimeout  = 20 * time.Second
	callTimeout = time.Minute
	// stallTimeout ends a stream that makes no progress.
	stallTimeout = time.Minute
	// partTries is how often one part of an upload is tried: each try may take long, as long as it moves.
	partTries  = 10
	firstDelay = 100 * time.Millisecond
	maxDelay   = 5 * time.Second
)

// once takes the SDK's own retries away. Tries are counted here, because what a second try is told (it exists, it changed) may be the first one's doing.
func once(o *s3.Options) { o.Retryer = aws.NopRetryer{} }

// call makes one call of the API, again while it fails in a way that passes, for callTimeout.
func (c *Catalog) call(ctx context.Context, f func(ctx context.Context, api *s3.Client) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	all, cancel := c.clock.WithTimeout(ctx, callTimeout)
	defer cancel()
	api, err := c.open(all)
	if err != nil {
		return err
	}
	return c.repeat(all, ctx, 0, func() error {
		ctx, cancel := c.clock.WithTimeout(all, tryTimeout)
		defer cancel()
		return f(ctx, api)
	})
}

// repeat tries until all ends, or limit tries were made; zero is no limit. The error is the caller's, if it is the caller who ended it.
func (c *Catalog) repeat(all, caller context.Context, limit int, try func() error) error {
	for n := 1; ; n++ {
		err := try()
		switch {
		case err == nil:
			return nil
		case caller.Err() != nil:
			return fmt.Errorf("%w: %w", caller.Err(), err)
		case all.Err() == nil && !passes(err):
			return err
		case all.Err() != nil || n == limit || c.clock.Sleep(all, delay(n)) != nil:
			if caller.Err() != nil {
				return fmt.Errorf("%w: %w", caller.Err(), err)
			}
			return fmt.Errorf("gave up after %d tries: %w", n, err)
		}
	}
}

// delay grows with the tries, and half of it is random, so that many do not come back at once.
func delay(n int) time.Duration {
	d := min(firstDelay<<min(n-1, 10), maxDelay)
	return d/2 + rand.N(d/2) //nolint:gosec // no secret
}

// brokenStream is the error of a body that ended early.
type brokenStream struct{ err error }

func (b *brokenStream) Error() string { return b.err.Error() }
func (b *brokenStream) Unwrap() error { return b.err }

// temporary are S3's words for what another try may mend, beside those that the SDK knows.
var temporary = map[string]bool{
	"ConditionalRequestConflict": true, // another conditional write was under way; S3 asks to try again
	"OperationAborted":           true,
	"ExistingObjectIsDirectory":  true, // a gateway over a file system, while others prune and make the same folders
	"BadDigest":                  true, // damaged on its way
	"XAmzContentSHA256Mismatch":  true,
	"RequestTimeTooSkewed":       true, // the SDK learns the offset from the answer
}

var known = retry.IsErrorRetryables(retry.DefaultRetryables)

// passes says whether another try may succeed. Whoever asks has made sure that the caller is still there.
func passes(err error) bool {
	var api smithy.APIError
	if errors.As(err, &api) && temporary[api.ErrorCode()] {
		return true
	}
	if errors.As(err, new(*brokenStream)) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStalled) {
		return true
	}
	return known.IsErrorRetryable(err) == aws.TrueTernary
}

func status(err error) int {
	var r *smithyhttp.ResponseError
	if errors.As(err, &r) && r.Response != nil {
		return r.HTTPStatusCode()
	}
	return 0
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// isNotFound is true for an object that is missing, and not for a bucket that is.
func isNotFound(err error) bool {
	switch code(err) {
	case "NoSuchKey", "NotFound":
		return true
	}
	return false
}

func isRefusedByCondition(err error) bool { return status(err) == http.StatusPreconditionFailed }

// explain adds what the user can do.
func (c *Catalog) explain(err error) error {
	switch {
	case status(err) == http.StatusMovedPermanently || code(err) == "AuthorizationHeaderMalformed":
		var r *smithyhttp.ResponseError
		region := "another region"
		if errors.As(err, &r) && r.Response != nil && r.Response.Header.Get("X-Amz-Bucket-Region") != "" {
			region = r.Response.Header.Get("X-Amz-Bucket-Region")
		}
		return fmt.Errorf("the bucket %s is in %s: set region in the catalog's s3: %w", c.settings.Bucket, region, err)
	case code(err) == "NoSuchBucket":
		return fmt.Errorf("there is no bucket %s: make it first, the provider does not: %w", c.settings.Bucket, err)
	case status(err) == http.StatusForbidden:
		return fmt.Errorf("it is not allowed; the guide \"A catalog in S3\" lists the permissions that a catalog needs: %w", err)
	}
	return err
}

var errStalled = fmt.Errorf("nothing moved for %s", stallTimeout)
