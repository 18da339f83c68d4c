package nodetool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
)

const hostA = "5e3a1b0c-0d3f-4a6e-9a0e-1c2d3e4f5a6b"

// cassandra is nodetool with a node behind it that knows keyspaces and snapshots: it takes the command lines that this package makes, and no others.
type cassandra struct {
	hostID    string
	release   string // "5.0", "4.1" or "4.0"
	keyspaces []string
	tables    []string // of each keyspace
	snapshots []node.Snapshot
	readOnly  bool
	silent    bool   // it exits with 0, and says and does nothing
	keeps     bool   // clearsnapshot says that it did, and does nothing
	mute      bool   // it does everything, and a wrapper swallows what snapshot says
	cleanup   string // what a cleanup says
	failDirs  []string
	calls     []string
	closed    bool
}

func (c *cassandra) Name() string                                     { return "fake" }
func (c *cassandra) Open(context.Context, node.Node) (Command, error) { return c, nil }
func (c *cassandra) Close() error                                     { c.closed = true; return nil }

func (c *cassandra) fail(exit int, format string, a ...any) ([]byte, error) {
	text := fmt.Sprintf(format, a...)
	return []byte(text), &node.CommandError{Command: "nodetool x", Exit: exit, Stderr: "...the end of a stack trace"}
}

func (c *cassandra) thrown(class, message string) ([]byte, error) {
	return c.fail(2, "error: %s\n-- StackTrace --\n%s: %s\n\tat %s\n", message, class, message, strings.Repeat("x", 4000))
}

func (c *cassandra) Run(_ context.Context, args []string) ([]byte, error) {
	c.calls = append(c.calls, strings.Join(args, " "))
	if c.silent && args[0] != "info" {
		return nil, nil
	}
	if c.readOnly && args[0] != "info" && args[0] != "listsnapshots" {
		return c.thrown("java.lang.SecurityException", "Access denied! Invalid access level for requested MBeanServer operation.")
	}
	options, names := args[1:], []string(nil)
	if i := slices.Index(args, "--"); i >= 0 {
		options, names = args[1:i], args[i+1:]
	}
	switch command := args[0] + " " + strings.Join(options, " "); {
	case command == "info ":
		return []byte("ID                     : " + c.hostID + "\nGossip active          : true\n"), nil
	case command == "listsnapshots ":
		return []byte(c.list()), nil
	case args[0] == "snapshot" && len(options) == 2 && options[0] == "-t" && len(names) > 0:
		tag := options[1]
		for _, k := range names {
			if !slices.Contains(c.keyspaces, k) {
				return c.fail(1, "nodetool: Keyspace %s does not exist\nSee 'nodetool help' or 'nodetool help <command>'.\n", k)
			}
			if slices.ContainsFunc(c.snapshots, func(s node.Snapshot) bool { return s.Tag == tag && s.Keyspace == k }) {
				return c.thrown("java.io.IOException", "Snapshot "+tag+" already exists.")
			}
		}
		for _, k := range names {
			for _, t := range c.tables {
				c.snapshots = append(c.snapshots, node.Snapshot{Tag: tag, Keyspace: k, Table: t, TrueSize: 0, Size: 1269})
			}
		}
		if c.mute {
			return nil, nil
		}
		return []byte("Requested creating snapshot(s) for [" + strings.Join(names, ", ") + "] with snapshot name [" + tag + "] and options {skipFlush=false}\nSnapshot directory: " + tag + "\n"), nil
	case args[0] == "clearsnapshot" && len(options) == 2 && options[0] == "-t" && options[1] != "":
		if !c.keeps {
			c.snapshots = slices.DeleteFunc(c.snapshots, func(s node.Snapshot) bool {
				return s.Tag == options[1] && (len(names) == 0 || slices.Contains(names, s.Keyspace))
			})
		}
		return []byte("Requested clearing snapshot(s) for [...] with snapshot name [" + options[1] + "]\n"), nil
	case args[0] == "cleanup" && len(options) == 0 && len(names) == 1:
		return []byte(c.cleanup), nil
	case command == "flush " && len(names) == 1 && slices.Contains(c.keyspaces, names[0]):
		return nil, nil
	case command == "drain ":
		return nil, nil
	case (command == "import --copy-data" || command == "import --copy-data --no-tokens") && len(names) >= 3:
		if len(c.failDirs) > 0 {
			return c.fail(1, "Some directories failed to import, check server logs for details:\n%s\n", strings.Join(c.failDirs, "\n"))
		}
		return nil, nil
	case command == "datapaths -F json":
		if c.release == "4.0" {
			return c.fail(1, "nodetool: Found unexpected parameters: [datapaths, -F, json]\nSee 'nodetool help' or 'nodetool help <command>'.\n")
		}
		return []byte(`{"system":{"local":["/data2/system/local-7ad54392bcdd35a684174e047860b377"]},"shop":{"t":["/data1/shop/t-1","/data2/shop/t-1"]}}` + "\n"), nil
	case command == "repair --full" && len(names) == 1:
		return []byte("[2026-01-01 00:00:00,000] Replication factor is 1. No repair is needed for keyspace '" + names[0] + "'\n"), nil
	}
	return c.fail(1, "nodetool: Found unexpected parameters: [%s]\n", strings.Join(args, ", "))
}

// list is as 5.0, 4.1 and 4.0 print it.
func (c *cassandra) list() string {
	head := "Snapshot Details: \n"
	if len(c.snapshots) == 0 {
		return head + "There are no snapshots\n"
	}
	rows := [][]string{{"Snapshot name", "Keyspace name", "Column family name", "True size", "Size on disk"}}
	if c.release != "4.0" {
		rows[0] = append(rows[0], "Creation time", "Expiration time")
	}
	for _, s := range c.snapshots {
		row := []string{s.Tag, s.Keyspace, s.Table, fmt.Sprintf("%d bytes", s.TrueSize), "1.24 KiB"}
		if c.release != "4.0" {
			row = append(row, "2026-11-26T01:02:03.004Z", "")
		}
		rows = append(rows, row)
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		for i, cell := range r {
			fmt.Fprintf(&b, "%-*s", widths[i], cell)
			if i < len(r)-1 {
				b.WriteString(" ")
			}
		}
		b.WriteString("\n")
	}
	return head + b.String() + "\nTotal TrueDiskSpaceUsed: 0 bytes\n\n"
}

func fake() *cassandra {
	return &cassandra{hostID: hostA, release: "5.0", keyspaces: []string{"shop", "coordinator"}, tables: []string{"t", "u"}}
}

func open(t *testing.T, c *cassandra) *Operator {
	t.Helper()
	o, err := (&Transport{Runner: c, Clock: testclock.New()}).Open(t.Context(), node.Node{HostID: strings.ToUpper(hostA), Address: "10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	return o.(*Operator)
}

func TestLife(t *testing.T) {
	for _, release := range []string{"5.0", "4.1", "4.0"} {
		t.Run(release, func(t *testing.T) {
			c := fake()
			c.release = release
			c.snapshots = []node.Snapshot{{Tag: "an operator's own", Keyspace: "shop", Table: "t"}}
			o := open(t, c)
			both := []string{"shop", "coordinator"}
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
			if err != nil || len(all) != 5 || all[0].Tag != "an operator's own" || all[4] != (node.Snapshot{Tag: "tag-1", Keyspace: "coordinator", Table: "u", TrueSize: 0, Size: 1269}) {
				t.Errorf("Snapshots: %+v, %v", all, err)
			}
			for what, err := range map[string]error{
				"CheckRights":  o.CheckRights(t.Context(), "tag-1", both),
				"TakeSnapshot": o.TakeSnapshot(t.Context(), "tag-1", both),
			} {
				if !errors.Is(err, node.ErrSnapshotExists) {
					t.Errorf("%s of a tag that is there: %v", what, err)
				}
			}
			if err := o.ClearSnapshot(t.Context(), "tag-1", []string{"shop"}); err != nil {
				t.Fatal(err)
			}
			if len(c.snapshots) != 3 {
				t.Errorf("after clearing one keyspace: %v", c.snapshots)
			}
			for range 2 { // what is gone is no error
				if err := o.ClearSnapshot(t.Context(), "tag-1", nil); err != nil {
					t.Fatal(err)
				}
			}
			if len(c.snapshots) != 1 {
				t.Errorf("after clearing all: %v", c.snapshots)
			}
			if err := o.Close(); err != nil || !c.closed {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestOtherNode(t *testing.T) {
	c := fake()
	c.hostID = "00000000-0000-0000-0000-000000000000"
	_, err := (&Transport{Runner: c, Clock: testclock.New()}).Open(t.Context(), node.Node{HostID: hostA})
	if err == nil || !strings.Contains(err.Error(), "-h {address}") || !c.closed {
		t.Errorf("Open: %v (closed: %v)", err, c.closed)
	}
}

// TestBelieve: an exit status of 0 proves nothing.
func TestBelieve(t *testing.T) {
	shop := []string{"shop"}
	c := fake()
	o := open(t, c)
	c.silent = true
	for what, err := range map[string]error{
		"TakeSnapshot":  o.TakeSnapshot(t.Context(), "x", shop),
		"CheckRights":   o.CheckRights(t.Context(), "x", shop),
		"ClearSnapshot": o.ClearSnapshot(t.Context(), "x", shop),
		"Repair":        o.Repair(t.Context(), "shop"),
	} {
		if err == nil {
			t.Errorf("%s believed it", what)
		}
	}
	if _, err := o.DataDirectories(t.Context()); err == nil {
		t.Error("DataDirectories believed it")
	}
	c.silent, c.keeps = false, true
	if err := o.TakeSnapshot(t.Context(), "x", shop); err != nil {
		t.Fatal(err)
	}
	if err := o.ClearSnapshot(t.Context(), "x", shop); err == nil || !strings.Contains(err.Error(), "still there") {
		t.Errorf("ClearSnapshot: %v", err)
	}
	// A wrapper that swallows the output: the list decides.
	c.mute = true
	if err := o.TakeSnapshot(t.Context(), "y", shop); err != nil {
		t.Errorf("TakeSnapshot with a wrapper: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	c := fake()
	o := open(t, c)
	err := o.TakeSnapshot(t.Context(), "x", []string{"nope"})
	var exit *node.CommandError
	if !errors.As(err, &exit) || exit.Exit != 1 || exit.Stderr != "Keyspace nope does not exist" {
		t.Errorf("an unknown keyspace: %v", err)
	}
	c.readOnly = true
	if err := o.CheckRights(t.Context(), "x", []string{"shop"}); err == nil || !strings.Contains(err.Error(), "role readwrite") {
		t.Errorf("a user who may only read: %v", err)
	}
	// Nothing is run that could clear what is not ours.
	before := len(c.calls)
	for _, tag := range []string{"", "-a", "a b", "a/b", "--all"} {
		for what, err := range map[string]error{
			"TakeSnapshot":  o.TakeSnapshot(t.Context(), tag, []string{"shop"}),
			"CheckRights":   o.CheckRights(t.Context(), tag, []string{"shop"}),
			"ClearSnapshot": o.ClearSnapshot(t.Context(), tag, nil),
		} {
			if err == nil {
				t.Errorf("%s takes the tag %q", what, tag)
			}
		}
	}
	for what, err := range map[string]error{
		"a snapshot of all":   o.TakeSnapshot(t.Context(), "x", nil),
		"a bad keyspace":      o.ClearSnapshot(t.Context(), "x", []string{"-t"}),
		"a relative path":     o.Import(t.Context(), "shop", "t", []string{"a"}),
		"another's directory": o.Import(t.Context(), "shop", "t", []string{"/a/other/t"}),
		"a bad table":         o.Import(t.Context(), "shop", "t;", []string{"/a"}),
		"a repair of nothing": o.Repair(t.Context(), ""),
		"a flush of nothing":  o.Flush(t.Context(), ""),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if len(c.calls) != before {
		t.Errorf("it ran %q", c.calls[before:])
	}
}

func TestLoad(t *testing.T) {
	c := fake()
	o := open(t, c)
	for _, err := range []error{o.Load(t.Context(), "shop", "t", []string{"/a/shop/t"}), o.Cleanup(t.Context(), "shop"), o.Flush(t.Context(), "shop"), o.Drain(t.Context())} {
		if err != nil {
			t.Error(err)
		}
	}
	if want := []string{"import --copy-data --no-tokens -- shop t /a/shop/t", "cleanup -- shop", "flush -- shop", "drain"}; !slices.Equal(c.calls[1:], want) {
		t.Errorf("it ran %q", c.calls)
	}
	c.cleanup = "Aborted cleaning up at least one table in keyspace shop, check server logs for more information.\n"
	if err := o.Cleanup(t.Context(), "shop"); err == nil || !strings.Contains(err.Error(), "Aborted") {
		t.Errorf("an aborted cleanup: %v", err)
	}
}

func TestImport(t *testing.T) {
	c := fake()
	o := open(t, c)
	if err := o.Import(t.Context(), "shop", "t", nil); err != nil || len(c.calls) != 1 {
		t.Errorf("nothing to import: %v, %q", err, c.calls)
	}
	var dirs []string
	for i := range 1000 {
		dirs = append(dirs, fmt.Sprintf("/var/lib/cassandra/restore/%0100d/shop/t", i))
	}
	if err := o.Import(t.Context(), "shop", "t", dirs); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, call := range c.calls[1:] {
		if len(call) > 100<<10 {
			t.Errorf("a command line of %d bytes", len(call))
		}
		got = append(got, strings.Fields(call)[5:]...)
	}
	if !slices.Equal(got, dirs) {
		t.Errorf("%d directories were imported, want %d", len(got), len(dirs))
	}
	c.failDirs = []string{"/a/shop/t", "/b c/shop/t"}
	if err := o.Import(t.Context(), "shop", "t", c.failDirs); err == nil || !strings.Contains(err.Error(), "refused /a/shop/t, /b c/shop/t") {
		t.Errorf("directories that failed: %v", err)
	}
}

func TestDataDirectories(t *testing.T) {
	c := fake()
	o := open(t, c)
	if got, err := o.DataDirectories(t.Context()); err != nil || !slices.Equal(got, []string{"/data1", "/data2"}) {
		t.Errorf("DataDirectories: %v, %v", got, err)
	}
	c.release = "4.0"
	if _, err := o.DataDirectories(t.Context()); !errors.Is(err, node.ErrUnsupported) {
		t.Errorf("with 4.0: %v", err)
	}
}

func TestRepair(t *testing.T) {
	if err := open(t, fake()).Repair(t.Context(), "shop"); err != nil {
		t.Error(err)
	}
}

// TestDeadline: a nodetool that hangs does not hold up a call for ever.
func TestDeadline(t *testing.T) {
	o := open(t, fake())
	o.command, o.clock = hanging{}, soon{}
	if _, err := o.Snapshots(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Snapshots: %v", err)
	}
}

type hanging struct{}

func (hanging) Close() error { return nil }
func (hanging) Run(ctx context.Context, _ []string) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

type soon struct{}

func (soon) WithTimeout(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Millisecond)
}

func TestParseSnapshots(t *testing.T) {
	for name, out := range map[string]string{
		"nothing":        "",
		"cut off":        "Snapshot Details: \nSnapshot name Keyspace name Column family name True size Size on disk\na b c 1 bytes 2 bytes\n",
		"a strange row":  "Snapshot name Keyspace name Column family name True size Size on disk\na b c one bytes 2 bytes\n\nTotal TrueDiskSpaceUsed: 0 bytes\n",
		"an error":       "error: Connection refused\n",
		"only the title": "Snapshot Details: \n",
	} {
		if all, err := parseSnapshots(out); err == nil {
			t.Errorf("%s: %v", name, all)
		}
	}
	comma := "Snapshot Details: \r\nSnapshot name Keyspace name Column family name True size Size on disk\r\na     b  c 1,5 KiB  2 GiB  \r\n\r\nTotal TrueDiskSpaceUsed: 0 bytes\r\n"
	all, err := parseSnapshots(comma)
	if want := []node.Snapshot{{Tag: "a", Keyspace: "b", Table: "c", TrueSize: 1536, Size: 2 << 30}}; err != nil || !slices.Equal(all, want) {
		t.Errorf("with a decimal comma: %v, %v", all, err)
	}
}

func FuzzParsers(f *testing.F) {
	c := fake()
	c.snapshots = []node.Snapshot{{Tag: "a b", Keyspace: "c", Table: "d"}}
	f.Add(c.list())
	f.Add("ID : " + hostA)
	f.Add(`{"a":{"b":["/x/a/b-1"]}}`)
	f.Add("Some directories failed to import, check server logs for details:\n/a\n")
	f.Fuzz(func(t *testing.T, out string) {
		all, err := parseSnapshots(out)
		for _, s := range all {
			if err != nil || s.Tag == "" || strings.ContainsAny(s.Keyspace+s.Table, " \t") || s.Size < -1 || s.TrueSize < -1 {
				t.Errorf("%+v, %v", s, err)
			}
		}
		if id, err := parseHostID(out); err == nil && len(id) != 36 {
			t.Errorf("the host id %q", id)
		}
		if dirs, err := parseDataPaths(out); err == nil {
			for _, d := range dirs {
				if !strings.HasPrefix(d, "/") {
					t.Errorf("the directory %q", d)
				}
			}
		}
		parseFailedImports(out)
		_ = reason(out)
	})
}
