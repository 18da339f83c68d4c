// Package sidecar works on Cassandra nodes through Apache Cassandra Sidecar, a server beside each node.
//
// The Sidecar takes snapshots of single tables. Those of all tables are asked for at once, at most 16 at a time (it works on 20), so one snapshot takes
// several times as long as by the other transports, which ask for all keyspaces in one call. It cannot list the tags that a node has: Snapshots lists those
// that this Operator took or cleared. Its clearing ignores the table, and clears the tag in the whole keyspace.
//
// It keeps the list of a snapshot's files for two hours (snapshot_list_cache), also that there are none, and goes on giving it when the snapshot was taken
// or cleared since. Two forms of the request have a list each; so CheckRights looks by one form, before, and SnapshotsOf by the other, after; and a list
// with a file that is not there any more is not believed. What stays: a keyspace whose tables are all empty has no file that may be asked for, so its snapshot
// may still be listed for two hours after another run cleared it.
//
// All this was read in its source (2024-10 and later) and not run: no package of it is to be had.
package sidecar

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
)

// parallel is how many tables are worked on at a time. The Sidecar has 20 workers.
const parallel = 16

// Tables lists the tables of keyspaces, as they are now; of all keyspaces but Cassandra's own when none is named. A keyspace that is not there has none.
type Tables func(ctx context.Context, keyspaces []string) ([]node.Table, error)

// Transport opens Operators. It implements node.Transport.
type Transport struct {
	settings rest.Settings
	tables   Tables
}

var (
	_ node.Transport = (*Transport)(nil)
	_ node.Operator  = (*Operator)(nil)
	_ node.TagLister = (*Operator)(nil)
)

// New makes a transport. The URL is that of the Sidecar without the API's own path, usually http://{address}:9043. A Sidecar of several nodes tells them apart
// by the host in the URL, or by a parameter: http://sidecar:9043?instanceId=1.
func New(s rest.Settings, tables Tables) (*Transport, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &Transport{settings: s, tables: tables}, nil
}

// Name is its key in HCL.
func (*Transport) Name() string { return "sidecar" }

// Open connects to a node's Sidecar and proves that it is that node's.
func (t *Transport) Open(ctx context.Context, n node.Node) (node.Operator, error) {
	client, err := rest.New(t.settings, n, parallel)
	if err != nil {
		return nil, err
	}
	o := &Operator{client: client, tables: t.tables, tags: map[string]map[string]bool{}}
	if err := o.prove(ctx, n); err != nil {
		client.Close()
		return nil, err
	}
	return o, nil
}

// Operator works on one node.
type Operator struct {
	client *rest.Client
	tables Tables

	// planned are the tables of the keyspaces that CheckRights was asked about, so that TakeSnapshot asks nobody.
	keyspaces []string
	planned   []node.Table
	// tags are those that it took or cleared, and the keyspaces in which it cleared each.
	tags map[string]map[string]bool
}

// refusal is what the Sidecar says when it refuses.
type refusal struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func (o *Operator) do(ctx context.Context, call rest.Call) (rest.Answer, error) {
	a, err := o.client.Do(ctx, call)
	if err != nil {
		return rest.Answer{}, err
	}
	return a, failure(a)
}

// failure is a *rest.StatusError with the Sidecar's own words.
func failure(a rest.Answer) error {
	err := a.OK()
	var status *rest.StatusError
	if !errors.As(err, &status) {
		return err
	}
	var why refusal
	if json.Unmarshal(a.Body, &why) == nil && why.Message+why.Status != "" {
		status.Text = why.Message
		if status.Text == "" {
			status.Text = why.Status
		}
		status.Text = rest.Excerpt([]byte(status.Text))
	}
	if a.Status == http.StatusMisdirectedRequest {
		return fmt.Errorf("%w: the Sidecar knows no node of the host in the url; give the host that its own configuration has, or ?instanceId=…", status)
	}
	return status
}

// is tells whether an error is an answer of one of these statuses.
func is(err error, statuses ...int) bool {
	var status *rest.StatusError
	return errors.As(err, &status) && slices.Contains(statuses, status.Status)
}

func cassandra(what string) rest.Call {
	return rest.Call{Method: http.MethodGet, Path: []string{"api", "v1", "cassandra", what}}
}

var plain = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// quoted is a keyspace's or a table's name as it stands in a path.
func quoted(name string) string {
	if plain.MatchString(name) {
		return name
	}
	return `"` + name + `"`
}

func snapshotCall(method string, table node.Table, tag string) rest.Call {
	return rest.Call{Method: method, Path: []string{"api", "v1", "keyspaces", quoted(table.Keyspace), "tables", quoted(table.Name), "snapshots", tag}}
}

// each works on many tables, at most 16 at a time. After a failure it begins no more; it returns one error per table, and which were begun.
func each(tables []node.Table, f func(int, node.Table) error) (errs []error, begun []bool) {
	errs, begun = make([]error, len(tables)), make([]bool, len(tables))
	var mu sync.Mutex
	next, failed := 0, false
	var working sync.WaitGroup
	for range min(parallel, len(tables)) {
		working.Go(func() {
			for {
				mu.Lock()
				i := next
				if i >= len(tables) || failed {
					mu.Unlock()
					return
				}
				begun[i] = true
				next++
				mu.Unlock()
				if err := f(i, tables[i]); err != nil {
					mu.Lock()
					errs[i], failed = err, true
					mu.Unlock()
				}
			}
		})
	}
	working.Wait()
	return errs, begun
}

// first is the first error, with its table.
func first(tables []node.Table, errs []error) error {
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("table %s: %w", tables[i], err)
		}
	}
	return nil
}

// CheckRights lists the tag's files of every table, asks for snapshots whose name has a slash, which the Sidecar refuses after it has looked at the rights, and
// clears a tag that no snapshot has.
func (o *Operator) CheckRights(ctx context.Context, tag string, keyspaces []string) error {
	tables, err := o.tables(ctx, keyspaces)
	if err != nil {
		return fmt.Errorf("listing the tables: %w", err)
	}
	errs, _ := each(tables, func(_ int, table node.Table) error {
		found, err := o.files(ctx, table, tag, false)
		if err == nil && len(found) > 0 {
			if there, known := o.there(ctx, found); there || !known {
				err = node.ErrSnapshotExists
			}
		}
		return err
	})
	if err := first(tables, errs); err != nil {
		return fmt.Errorf("snapshot %s: %w", tag, err)
	}
	// This also opens the connections that TakeSnapshot needs.
	errs, _ = each(tables, func(_ int, table node.Table) error {
		_, err := o.do(ctx, snapshotCall(http.MethodPut, table, "scalardb/rights"))
		switch {
		case err == nil:
			return errors.New("the Sidecar took a snapshot whose name has a slash instead of refusing it: look at the node's snapshots, and clear it")
		case is(err, http.StatusBadRequest, http.StatusNotFound): // not found: something in between took the slash for a path's
			return nil
		}
		return err
	})
	if err := first(tables, errs); err != nil {
		return fmt.Errorf("trying whether a snapshot may be taken: %w", err)
	}
	if err := o.clear(ctx, "scalardb-rights-"+rand.Text(), tables); err != nil {
		return fmt.Errorf("trying whether a snapshot may be cleared: %w", err)
	}
	o.keyspaces, o.planned = slices.Clone(keyspaces), tables
	return nil
}

// TakeSnapshot implements node.Operator. When a table fails, no more are begun, and those that were made stay: clear the tag then, outside the window.
func (o *Operator) TakeSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if tag == "" || len(keyspaces) == 0 {
		return errors.New("internal error: a snapshot needs a tag and keyspaces")
	}
	tables := o.planned
	if !slices.Equal(keyspaces, o.keyspaces) {
		var err error
		if tables, err = o.tables(ctx, keyspaces); err != nil {
			return fmt.Errorf("taking snapshot %s: listing the tables: %w", tag, err)
		}
	}
	o.tags[tag] = map[string]bool{}
	errs, begun := each(tables, func(_ int, table node.Table) error {
		a, err := o.do(ctx, snapshotCall(http.MethodPut, table, tag))
		if err != nil {
			return err
		}
		var done struct {
			Result string `json:"result"`
		}
		if err := a.JSON(&done); err != nil {
			return err
		}
		if done.Result != "Success" {
			return fmt.Errorf("the Sidecar answered %s", rest.Excerpt(a.Body))
		}
		return nil
	})
	err := first(tables, errs)
	if err == nil {
		return nil
	}
	for i := range tables {
		if begun[i] && !is(errs[i], http.StatusConflict) {
			return fmt.Errorf("taking snapshot %s: %w (other tables may have it by now)", tag, err)
		}
	}
	return fmt.Errorf("taking snapshot %s: %w", tag, node.ErrSnapshotExists)
}

// ClearSnapshot implements node.Operator.
func (o *Operator) ClearSnapshot(ctx context.Context, tag string, keyspaces []string) error {
	if tag == "" {
		return errors.New("internal error: clearing needs a tag")
	}
	tables, err := o.tables(ctx, keyspaces)
	if err != nil {
		return fmt.Errorf("clearing snapshot %s: listing the tables: %w", tag, err)
	}
	for _, keyspace := range keyspaces {
		if !slices.ContainsFunc(tables, func(t node.Table) bool { return t.Keyspace == keyspace }) {
			// Its tables were dropped, and their snapshots stay. The table is not looked at.
			tables = append(tables, node.Table{Keyspace: keyspace, Name: "dropped"})
		}
	}
	if err := o.clear(ctx, tag, tables); err != nil {
		return fmt.Errorf("clearing snapshot %s: %w", tag, err)
	}
	cleared := o.tags[tag]
	if cleared == nil {
		cleared = map[string]bool{}
		o.tags[tag] = cleared
	}
	for _, table := range tables {
		cleared[table.Keyspace] = true
	}
	return nil
}

// clear asks for every table, one after the other: one would do for its keyspace as long as the Sidecar ignores the table.
func (o *Operator) clear(ctx context.Context, tag string, tables []node.Table) error {
	for _, table := range tables {
		if _, err := o.do(ctx, snapshotCall(http.MethodDelete, table, tag)); err != nil && !is(err, http.StatusNotFound) {
			return fmt.Errorf("table %s: %w", table, err)
		}
	}
	return nil
}

// Close closes the connections.
func (o *Operator) Close() error {
	o.client.Close()
	return nil
}

// file is one of a snapshot's.
type file struct {
	Size      int64  `json:"size"`
	Directory int    `json:"dataDirIndex"`
	Tag       string `json:"snapshotName"`
	Keyspace  string `json:"keySpaceName"`
	Table     string `json:"tableName"` // with its id: "items-5bc52802de2535edaeab188eecebb090"
	Name      string `json:"fileName"`
}

// files lists one table's snapshot; none when there is none, by the Sidecar's word.
func (o *Operator) files(ctx context.Context, table node.Table, tag string, after bool) ([]file, error) {
	call := snapshotCall(http.MethodGet, table, tag)
	if after {
		call.Query = url.Values{"includeSecondaryIndexFiles": {"true"}}
	}
	a, err := o.do(ctx, call)
	if is(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readFiles(a, tag)
}

func readFiles(a rest.Answer, tag string) ([]file, error) {
	var list struct {
		Files *[]file `json:"snapshotFilesInfo"`
	}
	if err := a.JSON(&list); err != nil {
		return nil, err
	}
	if list.Files == nil {
		return nil, errors.New("its answer has no list of files: is it another service's port?")
	}
	for _, f := range *list.Files {
		if f.Tag != tag || f.Name == "" || f.Table == "" || f.Size < 0 || f.Directory < 0 {
			return nil, fmt.Errorf("its list of files has a %s", rest.Excerpt([]byte(fmt.Sprintf("%+v", f))))
		}
	}
	return *list.Files, nil
}

// there asks for a small file of a snapshot that was listed: the list may be old. Only SSTables' files may be asked for; without one it is not known.
func (o *Operator) there(ctx context.Context, files []file) (there, known bool) {
	i := slices.IndexFunc(files, func(f file) bool { return strings.HasSuffix(f.Name, "-TOC.txt") && !strings.Contains(f.Name, "/") })
	if i < 0 {
		return false, false
	}
	f := files[i]
	call := snapshotCall(http.MethodGet, node.Table{}, f.Tag)
	call.Path = []string{"api", "v1", "keyspaces", quoted(f.Keyspace), "tables", f.Table, "snapshots", f.Tag, "components", f.Name}
	call.Query = url.Values{"dataDirectoryIndex": {fmt.Sprint(f.Directory)}}
	_, err := o.do(ctx, call)
	switch {
	case err == nil:
		return true, true
	case is(err, http.StatusNotFound):
		return false, true
	}
	return false, false // files may be forbidden where lists are not
}

// Snapshots lists the snapshots of the tags that this Operator took or cleared.
func (o *Operator) Snapshots(ctx context.Context) ([]node.Snapshot, error) {
	var all []node.Snapshot
	for tag := range o.tags {
		some, err := o.SnapshotsOf(ctx, tag)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// SnapshotsOf implements node.TagLister. Ask it for a tag only once it was taken: the Sidecar would go on saying that it is not there.
func (o *Operator) SnapshotsOf(ctx context.Context, tag string) ([]node.Snapshot, error) {
	tables, err := o.tables(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("listing snapshot %s: listing the tables: %w", tag, err)
	}
	tables = slices.DeleteFunc(slices.Clone(tables), func(t node.Table) bool { return o.tags[tag][t.Keyspace] })
	sizes := make([]int64, len(tables))
	there, known := make([]bool, len(tables)), make([]bool, len(tables))
	errs, _ := each(tables, func(i int, table node.Table) error {
		found, err := o.files(ctx, table, tag, true)
		if err == nil && len(found) == 0 {
			found, err = o.files(ctx, table, tag, false)
		}
		if err != nil {
			return err
		}
		if len(found) == 0 {
			known[i] = true
			return nil
		}
		for _, f := range found {
			sizes[i] += f.Size
		}
		there[i], known[i] = o.there(ctx, found)
		if !known[i] {
			there[i] = true
		} else if !there[i] {
			sizes[i] = gone
		}
		return nil
	})
	if err := first(tables, errs); err != nil {
		return nil, fmt.Errorf("listing snapshot %s: %w", tag, err)
	}
	var all []node.Snapshot
	for i, table := range tables {
		// A list that cannot be proved is not believed where others of the keyspace are old and none is right: a keyspace is cleared as a whole.
		if !there[i] || !known[i] && old(tables, there, known, sizes, table.Keyspace) {
			continue
		}
		all = append(all, node.Snapshot{Tag: tag, Keyspace: table.Keyspace, Table: table.Name, TrueSize: -1, Size: sizes[i]})
	}
	return all, nil
}

// gone marks, as a size, a snapshot that was listed and is not there.
const gone = -1

func old(tables []node.Table, there, known []bool, sizes []int64, keyspace string) bool {
	some := false
	for i, table := range tables {
		if table.Keyspace != keyspace || !known[i] {
			continue
		}
		if there[i] {
			return false
		}
		some = some || sizes[i] == gone
	}
	return some
}
