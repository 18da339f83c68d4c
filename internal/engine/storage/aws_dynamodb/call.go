package awsdynamodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

func asError[T any](err error, target *T) bool { return errors.As(err, target) }

// hasCode says whether an error is one of the service's with one of the given codes.
func hasCode(err error, codes ...string) bool {
	var e smithy.APIError
	return errors.As(err, &e) && slices.Contains(codes, e.ErrorCode())
}

func isNotFound(err error) bool {
	var a *types.ResourceNotFoundException
	var b *types.TableNotFoundException
	return errors.As(err, &a) || errors.As(err, &b)
}

// isTaken: a restore's target name is in use.
func isTaken(err error) bool {
	var a *types.TableAlreadyExistsException
	var b *types.TableInUseException
	var c *types.ResourceInUseException
	return errors.As(err, &a) || errors.As(err, &b) || errors.As(err, &c)
}

// isBusy: the table, index or backup is being changed, and the call may be made again later.
func isBusy(err error) bool {
	var a *types.ResourceInUseException
	var b *types.TableInUseException
	var c *types.BackupInUseException
	var d *types.LimitExceededException
	var e *types.ContinuousBackupsUnavailableException
	return errors.As(err, &a) || errors.As(err, &b) || errors.As(err, &c) || errors.As(err, &d) || errors.As(err, &e)
}

// isDenied: the credentials may not.
func isDenied(err error) bool {
	return hasCode(err, "AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "UnrecognizedClientException")
}

// isUnknown: the service at this endpoint does not have the call (DynamoDB Local).
func isUnknown(err error) bool {
	return hasCode(err, "UnknownOperationException", "InvalidAction", "UnknownOperation")
}

// isThrottled: too many calls or restores at once; nothing was done.
func isThrottled(err error) bool {
	return retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err).Bool()
}

// waiter waits between two looks at something, longer each time.
type waiter struct {
	clock engine.Clock
	next  time.Duration
}

const (
	firstWait = time.Second
	lastWait  = 15 * time.Second
)

func (w *waiter) wait(ctx context.Context) error {
	w.next = min(max(w.next*3/2, firstWait), lastWait)
	return w.clock.Sleep(ctx, w.next)
}

// pacer spaces calls whose rate AWS limits (DescribeContinuousBackups and ListTagsOfResource: ten a second): more after each that was throttled, and
// slowly less again.
type pacer struct {
	clock engine.Clock

	mu    sync.Mutex
	every time.Duration
	next  time.Duration // by clock.Boot
}

const (
	firstPace = 25 * time.Millisecond
	lastPace  = 200 * time.Millisecond
)

func (p *pacer) wait(ctx context.Context) error {
	p.mu.Lock()
	now := p.clock.Boot()
	at := max(p.next, now)
	p.next = at + p.every
	p.mu.Unlock()
	if at == now {
		return ctx.Err()
	}
	return p.clock.Sleep(ctx, at-now)
}

// saw looks at an answer: the SDK repeats throttled calls by itself, and keeps account of it.
func (p *pacer) saw(m middleware.Metadata) {
	throttled := false
	if tries, ok := retry.GetAttemptResults(m); ok {
		throttled = slices.ContainsFunc(tries.Results, func(r retry.AttemptResult) bool { return r.Err != nil && isThrottled(r.Err) })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if throttled {
		p.every = min(max(2*p.every, firstPace), lastPace)
	} else {
		p.every -= p.every / 16
	}
}

// parallel does something with every item, limit at once, and joins the errors. With stop the first error ends the others' contexts.
func parallel[T any](ctx context.Context, limit int, items []T, stop bool, do func(ctx context.Context, item T) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	work := make(chan T)
	for range min(limit, len(items)) {
		wg.Go(func() {
			for item := range work {
				err := inner.Err()
				if err == nil {
					err = do(inner, item)
				}
				if err == nil {
					continue
				}
				mu.Lock()
				// What ended only because another failed says nothing.
				if ctx.Err() != nil || !errors.Is(err, context.Canceled) || len(errs) == 0 && !stop {
					errs = append(errs, err)
				}
				mu.Unlock()
				if stop {
					cancel()
				}
			}
		})
	}
	for _, item := range items {
		work <- item
	}
	close(work)
	wg.Wait()
	if err := ctx.Err(); err != nil && len(errs) == 0 {
		return err
	}
	return joinSome(errs)
}

// joinSome joins errors, and names only the first few of them.
func joinSome(errs []error) error {
	const most = 10
	if len(errs) > most {
		errs = append(slices.Clone(errs[:most]), fmt.Errorf("and %d more like these", len(errs)-most))
	}
	return errors.Join(errs...)
}

// list names things, the first few of them.
func list(names []string) string {
	names = slices.Sorted(slices.Values(names))
	if len(names) > named {
		return strings.Join(names[:named], ", ") + fmt.Sprintf(" and %d more", len(names)-named)
	}
	return strings.Join(names, ", ")
}

// describeTable returns engine.ErrNotFound where there is no such table.
func describeTable(ctx context.Context, api API, name string) (types.TableDescription, error) {
	out, err := api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
	switch {
	case isNotFound(err):
		return types.TableDescription{}, fmt.Errorf("table %s: %w", name, engine.ErrNotFound)
	case err != nil:
		return types.TableDescription{}, fmt.Errorf("describing table %s: %w", name, err)
	case out.Table == nil:
		return types.TableDescription{}, fmt.Errorf("describing table %s: the answer holds no table", name)
	}
	return *out.Table, nil
}

// waitActive waits until a table and its indexes are ACTIVE and its restore is done.
func waitActive(ctx context.Context, clock engine.Clock, api API, name string) (types.TableDescription, error) {
	w := waiter{clock: clock}
	for {
		d, err := describeTable(ctx, api, name)
		if err != nil {
			return d, err
		}
		switch {
		case d.TableStatus == types.TableStatusActive && !restoring(d) && indexesActive(d):
			return d, nil
		case d.TableStatus == types.TableStatusInaccessibleEncryptionCredentials:
			return d, fmt.Errorf("table %s cannot use its KMS key: check the key's state and its policy", name)
		case d.TableStatus == types.TableStatusDeleting, d.TableStatus == types.TableStatusArchiving, d.TableStatus == types.TableStatusArchived:
			return d, fmt.Errorf("table %s is %s: somebody else is removing it", name, d.TableStatus)
		}
		if err := w.wait(ctx); err != nil {
			return d, fmt.Errorf("waiting for table %s, which is %s: %w", name, d.TableStatus, err)
		}
	}
}

func restoring(d types.TableDescription) bool {
	return d.RestoreSummary != nil && aws.ToBool(d.RestoreSummary.RestoreInProgress)
}

func indexesActive(d types.TableDescription) bool {
	for _, i := range d.GlobalSecondaryIndexes {
		if i.IndexStatus != "" && i.IndexStatus != types.IndexStatusActive {
			return false
		}
	}
	return true
}

// listTables lists every table of the region. The time is the server's at the last answer.
func listTables(ctx context.Context, api API) (names []string, at time.Time, err error) {
	var start *string
	for {
		out, err := api.ListTables(ctx, &dynamodb.ListTablesInput{ExclusiveStartTableName: start})
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("listing the tables: %w", err)
		}
		names = append(names, out.TableNames...)
		if start = out.LastEvaluatedTableName; aws.ToString(start) == "" {
			return names, dateOf(out.ResultMetadata), nil
		}
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
