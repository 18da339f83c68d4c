package rds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
)

const run = "00c0ffee00c0ffee"

// TestName: whatever the user's name is, the identifier is legal, and no two are the same.
func TestName(t *testing.T) {
	seen := map[string]bool{}
	for _, prefix := range []string{"scalardb", "scalardb-temp", "scalardb-copy"} {
		for _, name := range []string{"b1", "before.release_42", "--a--", "_", ".", "UPPER", "upper", strings.Repeat("long.", 12), strings.Repeat("long-", 12), "a_b", "a.b", "ünïcode"} {
			for _, storage := range []string{"orders", "events"} {
				id := Name(prefix, name, storage, run)
				if wrong := CheckIdentifier(id); wrong != "" || seen[id] || !strings.HasPrefix(id, prefix) || !strings.HasSuffix(id, run) {
					t.Errorf("%q, %q, %q: %q (%s), seen %v", prefix, name, storage, id, wrong, seen[id])
				}
				seen[id] = true
			}
		}
	}
	if Name("p", "n", "s", run) != "p-n-86f196b3-"+run {
		t.Error("the name does not follow from its parts")
	}
}

func TestCode(t *testing.T) {
	named := func(code string, f smithy.ErrorFault) error {
		return fmt.Errorf("operation error: %w", &smithy.GenericAPIError{Code: code, Fault: f})
	}
	if !Code(named("DBClusterNotFoundFault", smithy.FaultClient), "DBClusterNotFound") || !Code(&types.DBInstanceNotFoundFault{}, "DBInstanceNotFound") || Code(errors.New("DBInstanceNotFound"), "DBInstanceNotFound") || Code(nil, "x") {
		t.Error("codes are not told apart")
	}
	if !Refused(named("InvalidParameterValue", smithy.FaultClient)) || Refused(named("InternalFailure", smithy.FaultServer)) || Refused(context.Canceled) || Refused(nil) {
		t.Error("what is surely not done is not known")
	}
	for code, want := range map[string]string{"AccessDenied": "allow rds:X", "KMSKeyNotAccessibleFault": "kms:CreateGrant", "SnapshotQuotaExceeded": "quota raised", "Other": ""} {
		if err := Explain("rds:X", named(code, smithy.FaultClient)); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", code, err)
		}
	}
}

func TestQuota(t *testing.T) {
	q := []types.AccountQuota{{AccountQuotaName: aws.String("DBInstances"), Used: aws.Int64(39), Max: aws.Int64(40)}}
	if Quota(q, "DBInstances", 1, "x", Place{}) != nil || Quota(q, "DBInstances", 2, "x", Place{}) == nil || Quota(q, "Other", 9, "x", Place{}) != nil {
		t.Error("room is not counted right")
	}
}

func TestPlace(t *testing.T) {
	p := Place{Account: "1", Partition: "aws-cn", Region: "cn-north-1"}
	if p.ARN("db", "x") != "arn:aws-cn:rds:cn-north-1:1:db:x" || p.Same(nil) != nil || p.Same(map[string]string{ExtraAccount: "1"}) != nil || p.Same(map[string]string{ExtraAccount: "2"}) == nil {
		t.Error("places are not told apart")
	}
}

func TestUserTags(t *testing.T) {
	got := UserTags(map[string]string{"a": "b", "aws:cloudformation": "x", "AWS:y": "z", TagRunID: "r"})
	if len(got) != 1 || got["a"] != "b" {
		t.Errorf("%v", got)
	}
	if tags := Tags(map[string]string{"b": "2", "a": "1"}); aws.ToString(tags[0].Key) != "a" || TagsOf(tags)["b"] != "2" {
		t.Errorf("%v", tags)
	}
}

func TestStatuses(t *testing.T) {
	for _, s := range []string{"available", "backing-up", "storage-optimization", "configuring-iam-database-auth"} {
		if !Usable(s) || Broken(s) {
			t.Errorf("%s", s)
		}
	}
	for _, s := range []string{"failed", "incompatible-restore", "incompatible-network", "storage-full", "inaccessible-encryption-credentials-recoverable", "stopped", "deleting"} {
		if Usable(s) || !Broken(s) || Remedy(s) == "" {
			t.Errorf("%s", s)
		}
	}
	for _, s := range []string{"creating", "modifying", "rebooting", "something-new"} {
		if Usable(s) || Broken(s) {
			t.Errorf("%s is waited for", s)
		}
	}
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		w := Waiter{Clock: testclock.New(), Report: func(_ string, f map[string]any) { said = append(said, fmt.Sprint(f["now"])) }}
		began, n := time.Now(), 0
		err := w.Until(t.Context(), "it is done", func(context.Context) (bool, string, error) {
			n++
			since := time.Since(began)
			if since < time.Minute {
				return false, "a", nil
			}
			return since > 10*time.Minute, "b", nil
		})
		if err != nil || n > 70 || n < 30 {
			t.Errorf("%v after %d looks", err, n)
		}
		if len(said) < 9 || len(said) > 13 || said[0] != "a" || !slices.Contains(said, "b") {
			t.Errorf("said %q", said)
		}
		broken := errors.New("broken")
		if err := w.Until(t.Context(), "x", func(context.Context) (bool, string, error) { return false, "", broken }); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = w.Until(ctx, "the sun shines", func(context.Context) (bool, string, error) { return false, "raining", nil })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the sun shines") || !strings.Contains(err.Error(), "raining") {
			t.Errorf("%v", err)
		}
	})
}

func TestProperties(t *testing.T) {
	for engineName, want := range map[string]string{
		"postgres": "jdbc:postgresql://h:1234/shop", "aurora-postgresql": "jdbc:postgresql://h:1234/shop", "mysql": "jdbc:mysql://h:1234/", "aurora-mysql": "jdbc:mysql://h:1234/", "mariadb": "jdbc:mariadb://h:1234/",
		"oracle-se2-cdb": "jdbc:oracle:thin:@//h:1234/shop", "sqlserver-se": "jdbc:sqlserver://h:1234;encrypt=true", "db2-se": "jdbc:db2://h:1234/shop",
	} {
		e := Endpoint{Engine: engineName, Host: "h", Port: 1234, Database: "shop"}
		if got := e.Properties(); got["contact_points"] != want || got["storage"] != "jdbc" {
			t.Errorf("%s: %v", engineName, got)
		}
	}
	if got := (Endpoint{Engine: "postgres", Host: "h", Port: 1}).Properties()["contact_points"]; got != "jdbc:postgresql://h:1/postgres" {
		t.Error(got)
	}
	for _, engineName := range []string{"custom-oracle-ee", "neptune", "docdb", "aurora"} {
		if _, ok := Family(engineName); ok {
			t.Errorf("%s is none of ScalarDB's", engineName)
		}
	}
	e := Endpoint{Engine: "oracle-ee", Host: "h", Port: 1}
	if _, _, err := e.Open(t.Context(), Login{}, testclock.New()); err == nil || e.Readable() {
		t.Error("Oracle was opened")
	}
}

func TestSpan(t *testing.T) {
	at := time.Unix(1000, 0)
	from, until := Span(at, at.Add(10*time.Second), engine.ClockBoundMS{OffsetMS: 2000, UncertaintyMS: 1000}, time.Second)
	if !from.Equal(at.Add(4*time.Second)) || !until.Equal(at.Add(10*time.Second)) {
		t.Errorf("%s to %s", from.Sub(at), until.Sub(at))
	}
}

func TestPutBack(t *testing.T) {
	type in struct{ set []string }
	refused := &smithy.GenericAPIError{Code: "InvalidParameterCombination", Fault: smithy.FaultClient}
	for name, c := range map[string]struct {
		refuse string
		err    error
		good   bool
		lost   string
	}{
		"all is well":           {"", nil, true, ""},
		"one of the source's":   {"b", refused, true, "b"},
		"one that was given":    {"given", refused, false, ""},
		"the network is broken": {"b", errors.New("connection reset"), false, ""},
	} {
		list := []Setting[in]{}
		for _, n := range []string{"given", "a", "b", "same"} {
			list = append(list, NewSetting(n, n == "given", n != "same", func(i *in) { i.set = append(i.set, n) }))
		}
		var done []string
		lost := ""
		err := PutBack(t.Context(), list, func(_ context.Context, some []Setting[in]) error {
			var i in
			for _, s := range some {
				s.Set(&i)
			}
			if slices.Contains(i.set, c.refuse) {
				return c.err
			}
			done = append(done, i.set...)
			return nil
		}, func(n string, _ error) { lost += n })
		if (err == nil) != c.good || lost != c.lost || slices.Contains(done, "same") || slices.Contains(done, c.refuse) || (c.good && !slices.Contains(done, "a")) {
			t.Errorf("%s: %v, done %v, lost %q", name, err, done, lost)
		}
	}
}
