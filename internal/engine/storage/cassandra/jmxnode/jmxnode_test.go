package jmxnode

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/jmx"
)

const hostA = "5e3a1b0c-0d3f-4a6e-9a0e-1c2d3e4f5a6b"

// cassandra is the MBeans of a node as they answer to what this package asks, and to nothing else.
type cassandra struct {
	hostID    string
	release   string // "5.0" or "4.0"
	snapshots []node.Snapshot
	readOnly  bool
	keeps     bool // clearing says that it did, and does nothing
	failDirs  []any
	anyTokens bool  // imports do not look at tokens
	cleanup   int32 // what a cleanup returns
	flushed   []string
	repair    [][]any // what the states are, one after the other; nil: unknown
	number    int32   // of the repair

	conns []*conn
	calls []string
	// lose makes the next call of that operation lose its connection: "before" it is sent, or "after" it was carried out.
	lose map[string]string
}

// conn is one connection to it.
type conn struct {
	*cassandra
	config jmx.Config
	spent  error
	closed bool
}

func (c *cassandra) connect(_ context.Context, config jmx.Config) (client, error) {
	if config.Password == "wrong" {
		return nil, fmt.Errorf("jmx: %w", jmx.ErrAuthentication)
	}
	n := &conn{cassandra: c, config: config}
	c.conns = append(c.conns, n)
	return n, nil
}

func (c *conn) Err() error { return c.spent }
func (c *conn) Close() error {
	c.closed, c.spent = true, jmx.ErrConnectionSpent
	return nil
}

func throwable(class, message string) error {
	return &jmx.Throwable{Class: "javax.management.MBeanException", Cause: &jmx.Throwable{Class: class, Message: message}}
}

func (c *conn) call(operation string, do func() (jmx.Value, error)) (jmx.Value, error) {
	if c.spent != nil {
		return nil, c.spent
	}
	c.calls = append(c.calls, operation)
	lost := c.lose[operation]
	delete(c.lose, operation)
	if lost == "before" {
		c.spent = jmx.ErrConnectionSpent
		return nil, c.spent
	}
	v, err := do()
	if lost == "after" {
		c.spent = jmx.ErrConnectionSpent
		return nil, fmt.Errorf("%w: %w", jmx.ErrConnectionSpent, jmx.ErrOutcomeUnknown)
	}
	return v, err
}

func (c *conn) GetAttribute(_ context.Context, bean, attribute string) (jmx.Value, error) {
	return c.call(attribute, func() (jmx.Value, error) {
		switch bean + " " + attribute {
		case storageService + " LocalHostId":
			return c.hostID, nil
		case storageService + " AllDataFileLocations":
			return []any{"/data2", "/data1", "/data2"}, nil
		case storageService + " SnapshotDetails":
			details := jmx.Map{}
			for _, tag := range tags(c.snapshots) {
				var rows []map[string]any
				for _, s := range c.snapshots {
					if s.Tag == tag {
						row := map[string]any{"Snapshot name": s.Tag, "Keyspace name": s.Keyspace, "Column family name": s.Table, "True size": "0 bytes", "Size on disk": "1.24 KiB"}
						if c.release != "4.0" {
							row["Creation time"], row["Expiration time"], row["Ephemeral"] = "2026-11-26T01:02:03.004Z", nil, "false"
						}
						rows = append(rows, row)
					}
				}
				details = append(details, jmx.Entry{Key: tag, Value: rows})
			}
			return details, nil
		case "org.apache.cassandra.metrics:type=Table,keyspace=shop,scope=t,name=WriteLatency Count":
			return int64(42), nil
		}
		return nil, &jmx.Throwable{Class: "javax.management.InstanceNotFoundException", Message: bean}
	})
}

func tags(all []node.Snapshot) []string {
	var tags []string
	for _, s := range all {
		if !slices.Contains(tags, s.Tag) {
			tags = append(tags, s.Tag)
		}
	}
	return tags
}

func (c *conn) Invoke(_ context.Context, bean, operation string, args []any, signature []string) (jmx.Value, error) {
	return c.call(operation, func() (jmx.Value, error) {
		if c.readOnly {
			return nil, fmt.Errorf("%w: java.lang.SecurityException", jmx.ErrAccess)
		}
		switch bean + " " + operation + "(" + strings.Join(signature, ",") + ")" {
		case storageService + " takeSnapshot(java.lang.String,java.util.Map,[Ljava.lang.String;)":
			return nil, c.take(args[0].(string), args[1].(map[string]string), args[2].([]string))
		case storageService + " clearSnapshot(java.lang.String,[Ljava.lang.String;)":
			tag, keyspaces := args[0].(string), args[1].([]string)
			if keyspaces == nil {
				return nil, throwable("java.lang.NullPointerException", "")
			}
			if !c.keeps {
				c.snapshots = slices.DeleteFunc(c.snapshots, func(s node.Snapshot) bool {
					return (tag == "" || s.Tag == tag) && (len(keyspaces) == 0 || slices.Contains(keyspaces, s.Keyspace))
				})
			}
			return nil, nil
		case "org.apache.cassandra.db:type=Tables,keyspace=shop,table=t importNewSSTables(java.util.Set,boolean,boolean,boolean,boolean,boolean,boolean,boolean)":
			if want := []any{true, true, true, !c.anyTokens, true, false, true}; !reflect.DeepEqual(args[1:], want) || len(args[0].(jmx.Set)) == 0 {
				return nil, fmt.Errorf("it is called with %v", args)
			}
			return append([]any{}, c.failDirs...), nil
		case storageService + " forceKeyspaceCleanup(int,java.lang.String,[Ljava.lang.String;)":
			if !reflect.DeepEqual(args, []any{int32(0), "shop", []string{}}) {
				return nil, fmt.Errorf("it is called with %v", args)
			}
			return c.cleanup, nil
		case storageService + " forceKeyspaceFlush(java.lang.String,[Ljava.lang.String;)":
			if len(args[1].([]string)) > 0 {
				return nil, fmt.Errorf("it is called with %v", args)
			}
			c.flushed = append(c.flushed, args[0].(string))
			return nil, nil
		case storageService + " drain()":
			return nil, nil
		case storageService + " repairAsync(java.lang.String,java.util.Map)":
			if args[1].(map[string]string)["incremental"] != "false" {
				return nil, errors.New("not a full repair")
			}
			return c.number, nil
		case storageService + " getParentRepairStatus(int)":
			if args[0].(int32) != c.number || len(c.repair) == 0 {
				return nil, nil
			}
			state := c.repair[0]
			c.repair = c.repair[1:]
			if state == nil {
				return nil, nil
			}
			return state, nil
		}
		return nil, &jmx.Throwable{Class: "javax.management.ReflectionException", Message: "No such operation: " + operation,
			Cause: &jmx.Throwable{Class: "java.lang.NoSuchMethodException", Message: operation}}
	})
}

func (c *cassandra) take(tag string, options map[string]string, keyspaces []string) error {
	switch {
	case tag == "":
		return throwable("java.io.IOException", "You must supply a snapshot name.")
	case !reflect.DeepEqual(options, map[string]string{"skipFlush": "false"}):
		return fmt.Errorf("the options are %v", options)
	}
	for _, k := range keyspaces {
		if k != "shop" && k != "coordinator" {
			return throwable("java.lang.IllegalArgumentException", "Keyspace "+k+" does not exist")
		}
		if slices.ContainsFunc(c.snapshots, func(s node.Snapshot) bool { return s.Tag == tag && s.Keyspace == k }) {
			return throwable("java.io.IOException", "Snapshot "+tag+" already exists.")
		}
	}
	for _, k := range keyspaces {
		c.snapshots = append(c.snapshots, node.Snapshot{Tag: tag, Keyspace: k, Table: "t", Size: 1269})
	}
	return nil
}

func open(t *testing.T, c *cassandra) *Operator {
	t.Helper()
	if c.hostID == "" {
		c.hostID = hostA
	}
	o, err := openWith(t, c, Settings{Username: "u", Password: "s3cret", Clock: testclock.New()})
	if err != nil {
		t.Fatal(err)
	}
	return o.(*Operator)
}

func openWith(t *testing.T, c *cassandra, s Settings) (node.Operator, error) {
	t.Helper()
	transport := New(s)
	transport.connect = c.connect
	return transport.Open(t.Context(), node.Node{HostID: strings.ToUpper(hostA), Address: "10.0.0.1"})
}

var both = []string{"shop", "coordinator"}

func TestLife(t *testing.T) {
	for _, release := range []string{"5.0", "4.0"} {
		t.Run(release, func(t *testing.T) {
			c := &cassandra{release: release, snapshots: []node.Snapshot{{Tag: "an operator's own", Keyspace: "shop", Table: "t"}}}
			o := open(t, c)
			if got := c.conns[0].config; got.Address() != "10.0.0.1:7199" || got.Username != "u" || got.Password != "s3cret" || got.Dial != nil {
				t.Errorf("it connects to %s as %s", got.Address(), got.Username)
			}
			if err := o.CheckRights(t.Context(), "tag-1", both); err != nil {
				t.Fatal(err)
			}
			if len(c.snapshots) != 1 {
				t.Fatalf("CheckRights changed the snapshots: %v", c.snapshots)
			}
			if err := o.TakeSnapshot(t.Context(), "tag-1", both); err != nil {
				t.Fatal(err)
			}
			all, err := o.Snapshots(t.Context())
			if err != nil || len(all) != 3 || all[2] != (node.Snapshot{Tag: "tag-1", Keyspace: "coordinator", Table: "t", TrueSize: 0, Size: 1269}) {
				t.Errorf("Snapshots: %+v, %v", all, err)
			}
			for what, err := range map[string]error{"CheckRights": o.CheckRights(t.Context(), "tag-1", both), "TakeSnapshot": o.TakeSnapshot(t.Context(), "tag-1", both)} {
				if !errors.Is(err, node.ErrSnapshotExists) {
					t.Errorf("%s of a tag that is there: %v", what, err)
				}
			}
			if err := o.ClearSnapshot(t.Context(), "tag-1", []string{"shop"}); err != nil || len(c.snapshots) != 2 {
				t.Errorf("clearing one keyspace: %v, %v", c.snapshots, err)
			}
			for range 2 {
				if err := o.ClearSnapshot(t.Context(), "tag-1", nil); err != nil || len(c.snapshots) != 1 {
					t.Errorf("clearing all: %v, %v", c.snapshots, err)
				}
			}
			if len(c.conns) != 1 {
				t.Errorf("%d connections", len(c.conns))
			}
			if err := errors.Join(o.Close(), o.Close()); err != nil || !c.conns[0].closed {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	other := &cassandra{hostID: "00000000-0000-0000-0000-000000000000"}
	if _, err := openWith(t, other, Settings{Clock: testclock.New()}); err == nil || !strings.Contains(err.Error(), "reaches the node 00000000") || !other.conns[0].closed {
		t.Errorf("another node: %v", err)
	}
	if _, err := openWith(t, &cassandra{hostID: hostA}, Settings{Username: "u", Password: "wrong", Clock: testclock.New()}); !errors.Is(err, jmx.ErrAuthentication) || !strings.Contains(err.Error(), "credentials.jmx") {
		t.Errorf("a wrong password: %v", err)
	}
	c := &cassandra{hostID: hostA}
	if _, err := openWith(t, c, Settings{Host: "{datacenter}.{address}", Port: 7299, Clock: testclock.New()}); err != nil || c.conns[0].config.Address() != ".10.0.0.1:7299" {
		t.Errorf("a template: %v, %v", c.conns[0].config, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		if text := fmt.Sprintf(verb, Settings{Password: "s3cret"}); strings.Contains(text, "s3cret") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

// TestLost: what happens when the connection goes.
func TestLost(t *testing.T) {
	for _, c := range []struct {
		operation, when string
		call            func(o *Operator) error
		calls           int    // of the operation
		want            string // of the error; "": none
		conns           int
	}{
		{"takeSnapshot", "before", take, 2, "", 2},
		{"takeSnapshot", "after", take, 1, "the node has it of 2 tables by now, which does not show that it is whole", 2},
		{"clearSnapshot", "before", func(o *Operator) error { return o.ClearSnapshot(context.Background(), "x", nil) }, 2, "", 2},
		{"clearSnapshot", "after", func(o *Operator) error { return o.ClearSnapshot(context.Background(), "x", nil) }, 2, "", 2},
		{"SnapshotDetails", "after", func(o *Operator) error { _, err := o.Snapshots(context.Background()); return err }, 2, "", 2},
		{"importNewSSTables", "after", func(o *Operator) error { return o.Import(context.Background(), "shop", "t", []string{"/a/shop/t"}) }, 1, "carried out", 1},
		{"repairAsync", "after", func(o *Operator) error { return o.Repair(context.Background(), "shop") }, 1, "carried out", 1},
		{"Count", "before", func(o *Operator) error {
			_, err := o.Writes(context.Background(), []node.Table{{Keyspace: "shop", Name: "t"}})
			return err
		}, 2, "", 2},
	} {
		t.Run(c.operation+" "+c.when, func(t *testing.T) {
			k := &cassandra{}
			o := open(t, k)
			k.lose = map[string]string{c.operation: c.when}
			err := c.call(o)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			n := 0
			for _, call := range k.calls {
				if call == c.operation {
					n++
				}
			}
			if n != c.calls || len(k.conns) != c.conns {
				t.Errorf("%d calls over %d connections, want %d over %d (%q)", n, len(k.conns), c.calls, c.conns, k.calls)
			}
		})
	}
	// It comes back as another node.
	k := &cassandra{}
	o := open(t, k)
	k.hostID, k.conns[0].spent = "00000000-0000-0000-0000-000000000000", jmx.ErrConnectionSpent
	if err := take(o); err == nil || !strings.Contains(err.Error(), "reaches the node") || len(k.snapshots) != 0 {
		t.Errorf("another node: %v", err)
	}
}

func take(o *Operator) error { return o.TakeSnapshot(context.Background(), "x", both) }

func TestRefusals(t *testing.T) {
	c := &cassandra{snapshots: []node.Snapshot{{Tag: "precious", Keyspace: "shop", Table: "t"}}}
	o := open(t, c)
	before := len(c.calls)
	for _, tag := range []string{"", "-a", "a b", "a/b"} {
		for what, err := range map[string]error{
			"TakeSnapshot": o.TakeSnapshot(t.Context(), tag, both), "CheckRights": o.CheckRights(t.Context(), tag, both), "ClearSnapshot": o.ClearSnapshot(t.Context(), tag, nil),
		} {
			if err == nil {
				t.Errorf("%s takes the tag %q", what, tag)
			}
		}
	}
	for what, err := range map[string]error{
		"a snapshot of all": o.TakeSnapshot(t.Context(), "x", nil), "a bad keyspace": o.ClearSnapshot(t.Context(), "x", []string{"a,b"}),
		"another's directory": o.Import(t.Context(), "shop", "t", []string{"/a/other/t"}),
		"a bad table":         o.Import(t.Context(), "shop", "t,name=*", []string{"/a/shop/t"}), "a repair of nothing": o.Repair(t.Context(), ""),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if err := o.Import(t.Context(), "shop", "t", nil); err != nil {
		t.Error(err)
	}
	if len(c.calls) != before {
		t.Errorf("it calls %q", c.calls[before:])
	}
	if err := o.TakeSnapshot(t.Context(), "x", []string{"nope"}); err == nil || !strings.Contains(err.Error(), "Keyspace nope does not exist") {
		t.Errorf("an unknown keyspace: %v", err)
	}
	c.readOnly = true
	if err := o.CheckRights(t.Context(), "x", both); !errors.Is(err, jmx.ErrAccess) || !strings.Contains(err.Error(), "role readwrite") {
		t.Errorf("a user who may only read: %v", err)
	}
	c.readOnly, c.keeps = false, true
	if err := o.ClearSnapshot(t.Context(), "precious", nil); err == nil || !strings.Contains(err.Error(), "still has that of shop.t") {
		t.Errorf("a node that does not clear: %v", err)
	}
}

func TestOthers(t *testing.T) {
	c := &cassandra{}
	o := open(t, c)
	if got, err := o.DataDirectories(t.Context()); err != nil || !slices.Equal(got, []string{"/data1", "/data2"}) {
		t.Errorf("DataDirectories: %v, %v", got, err)
	}
	table := node.Table{Keyspace: "shop", Name: "t"}
	if got, err := o.Writes(t.Context(), []node.Table{table}); err != nil || got[table] != 42 {
		t.Errorf("Writes: %v, %v", got, err)
	}
	if _, err := o.Writes(t.Context(), []node.Table{{Keyspace: "shop", Name: "missing"}}); err == nil {
		t.Error("a table that is not there has a count")
	}
	if err := o.Import(t.Context(), "shop", "t", []string{"/a/shop/t", "/b/shop/t"}); err != nil {
		t.Error(err)
	}
	c.failDirs = []any{"/b/shop/t"}
	if err := o.Import(t.Context(), "shop", "t", []string{"/a/shop/t", "/b/shop/t"}); err == nil || !strings.Contains(err.Error(), "refused /b/shop/t") {
		t.Errorf("a directory that failed: %v", err)
	}
	if err := o.Import(t.Context(), "shop", "other", []string{"/a/shop/other"}); !errors.Is(err, node.ErrUnsupported) {
		t.Errorf("a release that cannot copy: %v", err)
	}
}

func TestRepair(t *testing.T) {
	progress := []any{"IN_PROGRESS"}
	for name, c := range map[string]struct {
		number int32
		states [][]any
		want   string
	}{
		"one replica":     {0, nil, ""},
		"done":            {7, [][]any{nil, progress, progress, {"COMPLETED", "Repair completed successfully"}}, ""},
		"failed":          {7, [][]any{progress, {"FAILED", "a session", "failed"}}, "a session; failed"},
		"nothing to do":   {7, [][]any{{"FAILED", "Nothing to repair for (1,2] in shop"}}, ""},
		"forgotten":       {7, nil, "was it restarted?"},
		"an odd state":    {7, [][]any{{"ODD"}}, "unknown state ODD"},
		"an odd progress": {7, [][]any{{int32(1)}}, "a string was expected"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := open(t, &cassandra{number: c.number, repair: c.states}).Repair(t.Context(), "shop")
				if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
					t.Errorf("Repair: %v, want %q", err, c.want)
				}
			})
		})
	}
}

func TestSnapshotsOf(t *testing.T) {
	row := func() map[string]any {
		return map[string]any{"Snapshot name": "x", "Keyspace name": "k", "Column family name": "t", "True size": "1 bytes", "Size on disk": "2 bytes"}
	}
	broken := row()
	delete(broken, "Size on disk")
	for what, v := range map[string]jmx.Value{
		"null": nil, "a list": []any{}, "no table": jmx.Map{{Key: "x", Value: "y"}}, "a column is missing": jmx.Map{{Key: "x", Value: []map[string]any{broken}}},
	} {
		if all, err := snapshotsOf(v); err == nil {
			t.Errorf("%s: %v", what, all)
		}
	}
	if all, err := snapshotsOf(jmx.Map{{Key: "x", Value: []map[string]any{row()}}}); err != nil || all[0] != (node.Snapshot{Tag: "x", Keyspace: "k", Table: "t", TrueSize: 1, Size: 2}) {
		t.Errorf("%v, %v", all, err)
	}
}

func TestLoad(t *testing.T) {
	k := &cassandra{anyTokens: true}
	o := open(t, k)
	for _, err := range []error{o.Load(context.Background(), "shop", "t", []string{"/a/shop/t"}), o.Cleanup(context.Background(), "shop"), o.Drain(context.Background())} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := o.Import(context.Background(), "shop", "t", []string{"/a/shop/t"}); err == nil {
		t.Error("an import does not look at tokens")
	}
	if err := o.Flush(context.Background(), "shop"); err != nil || !slices.Equal(k.flushed, []string{"shop"}) {
		t.Errorf("flushed %v: %v", k.flushed, err)
	}
	if err := o.Flush(context.Background(), "shop;"); err == nil || len(k.flushed) != 1 {
		t.Errorf("a flush of no keyspace: %v", err)
	}
	k.cleanup = 1
	if err := o.Cleanup(context.Background(), "shop"); err == nil || !strings.Contains(err.Error(), "says 1") {
		t.Errorf("an aborted cleanup: %v", err)
	}
}
