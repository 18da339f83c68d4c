package reading

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/testclock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/ddl"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/verify/verifytest"
)

// cluster is a Conn over tables in memory. It knows the statements that reading makes and refuses all others. It shows nothing of replicas, consistency and CQL's types: the
// acceptance tests do.
type cluster struct {
	tables map[string][]values // by name as in statements
	// fail may refuse a request, before it is answered.
	fail func(Query) error

	mu      sync.Mutex
	queries []Query
	active  int
	busiest int
	closed  bool
}

type values map[string]any

const tokenColumn = "token()"

func newCluster(nodes int) *cluster {
	c := &cluster{tables: map[string][]values{"system_schema.keyspaces": nil, "system_schema.tables": nil, "system_schema.columns": nil, "system.peers": nil, "system.size_estimates": nil}}
	for i := range nodes {
		table := "system.peers"
		if i == 0 {
			table = "system.local"
		}
		tokens := []string{strconv.FormatInt(int64(i)*1_000_000_007_000_000_000-4_000_000_000_000_000_000, 10), strconv.FormatInt(int64(i)*10_000+7, 10)}
		c.tables[table] = append(c.tables[table], values{"key": "local", "host_id": host(i), "partitioner": murmur3, "data_center": "dc1", "tokens": tokens})
	}
	c.keyspace("system")
	return c
}

func host(i int) gocql.UUID { return gocql.UUID{15: byte(i + 1)} }

func (c *cluster) keyspace(name string) {
	c.tables["system_schema.keyspaces"] = append(c.tables["system_schema.keyspaces"], values{"keyspace_name": name})
}

// table makes a table with columns "name kind type".
func (c *cluster) table(keyspace, name string, columns ...string) string {
	c.tables["system_schema.tables"] = append(c.tables["system_schema.tables"], values{"keyspace_name": keyspace, "table_name": name})
	positions := map[string]int{}
	for _, column := range columns {
		f := strings.Fields(column)
		c.tables["system_schema.columns"] = append(c.tables["system_schema.columns"], values{"keyspace_name": keyspace, "table_name": name, "column_name": f[0], "kind": f[1], "type": f[2],
			"position": positions[f[1]]})
		positions[f[1]]++
	}
	full := ddl.Quote(keyspace) + "." + ddl.Quote(name)
	c.tables[full] = nil
	return full
}

func transactional(key ...string) []string {
	return append(key, "balance regular int", "tx_id regular text", "tx_state regular int", "tx_version regular int", "tx_prepared_at regular bigint", "tx_committed_at regular bigint")
}

// insert adds rows, in the order of random tokens.
func (c *cluster) insert(full string, rows ...values) {
	r := rand.New(rand.NewPCG(uint64(len(rows)), 3))
	for _, row := range rows {
		if row[tokenColumn] == nil {
			row[tokenColumn] = int64(r.Uint64()) //nolint:gosec // any
		}
		c.tables[full] = append(c.tables[full], row)
	}
	slices.SortStableFunc(c.tables[full], func(a, b values) int { return cmp.Compare(a[tokenColumn].(int64), b[tokenColumn].(int64)) })
}

// bank writes one copy of the bank.
func (c *cluster) bank(s *verifytest.Store, groups bool) {
	c.keyspace(s.Namespace)
	full := c.table(s.Namespace, "accounts", transactional("id partition_key int")...)
	var rows []values
	for k, r := range s.Rows {
		v := values{"id": k, "balance": r.Balance}
		if r.TxID != "" {
			v[colTxID], v[colState], v[colVersion], v[colPreparedAt], v[colCommittedAt] = r.TxID, r.State, r.Version, r.PreparedAt, r.CommittedAt
		}
		rows = append(rows, v)
	}
	c.insert(full, rows...)
	if s.Entries == nil {
		return
	}
	c.keyspace("coordinator")
	columns := []string{"tx_id partition_key text", "tx_state regular int", "tx_created_at regular bigint"}
	if groups {
		columns = append(columns, "tx_child_ids regular text")
	}
	full = c.table("coordinator", "state", columns...)
	rows = nil
	for id, e := range s.Entries {
		v := values{colTxID: id, colState: e.State, colCreatedAt: e.CreatedAt, "WRITETIME(" + colState + ")": e.WrittenAt}
		if e.ChildIDs != "" {
			v[colChildIDs] = e.ChildIDs
		}
		rows = append(rows, v)
	}
	c.insert(full, rows...)
}

var selects = regexp.MustCompile(`^SELECT (.*) FROM (\S+)(?: WHERE (.*))?$`)

// Page implements Conn.
func (c *cluster) Page(ctx context.Context, q Query, row func(scan func(dest ...any) error) error) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.queries = append(c.queries, q)
	c.active++
	c.busiest = max(c.busiest, c.active)
	fail := c.fail
	c.mu.Unlock()
	defer func() { c.mu.Lock(); c.active--; c.mu.Unlock() }()
	if fail != nil {
		if err := fail(q); err != nil {
			return nil, err
		}
	}
	m := selects.FindStringSubmatch(q.Statement)
	if m == nil || q.PageSize <= 0 || q.Consistency == gocql.Any {
		return nil, fmt.Errorf("this is no request that reading makes: %+v", q)
	}
	all, ok := c.tables[m[2]]
	if !ok {
		return nil, requestError(gocql.ErrCodeInvalid)
	}
	var rows []values
	for _, r := range all {
		var keep bool
		switch where := m[3]; {
		case where == "" || where == "key = 'local'":
			keep = true
		case strings.HasPrefix(where, "token("):
			at := r[tokenColumn].(int64)
			keep = at > q.Args[0].(int64) && at <= q.Args[1].(int64)
		case where == `"tx_id" IN ?`:
			keep = slices.Contains(q.Args[0].([]string), r[colTxID].(string))
		case where == "keyspace_name = ? AND table_name = ?":
			keep = r["keyspace_name"] == q.Args[0] && r["table_name"] == q.Args[1]
		default:
			return nil, fmt.Errorf("this is no condition that reading makes: %s", where)
		}
		if keep {
			rows = append(rows, r)
		}
	}
	columns := strings.Split(strings.ReplaceAll(m[1], `"`, ""), ", ")
	if column, ok := strings.CutPrefix(columns[0], "count("); ok {
		n := int64(0)
		for _, r := range rows {
			if column = strings.TrimSuffix(column, ")"); column == "*" || r[column] != nil {
				n++
			}
		}
		return nil, row(func(dest ...any) error { *dest[0].(*int64) = n; return nil })
	}
	at := 0
	if q.State != nil {
		at = int(binary.BigEndian.Uint64(q.State)) //nolint:gosec // small
	}
	end := min(at+q.PageSize, len(rows))
	for _, r := range rows[at:end] {
		if err := row(func(dest ...any) error {
			for i, d := range dest {
				assign(d, r[columns[i]])
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	if end == len(rows) {
		return nil, nil
	}
	return binary.BigEndian.AppendUint64(nil, uint64(end)), nil //nolint:gosec // positive
}

// Close implements Conn.
func (c *cluster) Close() error { c.closed = true; return nil }

func assign(dest, v any) {
	switch d := dest.(type) {
	case *string:
		*d, _ = v.(string)
	case *[]string:
		*d, _ = v.([]string)
	case *int:
		*d, _ = v.(int)
	case *int64:
		*d, _ = v.(int64)
	case *gocql.UUID:
		*d, _ = v.(gocql.UUID)
	case **gocql.UUID:
		if id, ok := v.(gocql.UUID); ok {
			*d = &id
		}
	case *cell:
		switch v := v.(type) {
		case nil:
			*d = cell{}
		case int:
			*d = cell{number{}, []byte(strconv.Itoa(v))}
		default:
			*d = cell{nil, []byte(v.(string))}
		}
	default:
		panic(fmt.Sprintf("%T", dest))
	}
}

// number is the type of a decimal text.
type number struct{}

func (number) Type() gocql.Type            { return gocql.TypeInt }
func (number) Zero() any                   { return 0 }
func (number) Marshal(any) ([]byte, error) { return nil, errors.New("only to be read") }
func (number) Unmarshal(data []byte, v any) error {
	n, err := strconv.ParseInt(string(data), 10, 64)
	*v.(*int64) = n
	return err
}

// requestError is an error of the server's.
type requestError int

func (e requestError) Code() int       { return int(e) }
func (e requestError) Message() string { return "refused" }
func (e requestError) Error() string   { return fmt.Sprintf("refused with code %#x", int(e)) }

func open(t *testing.T, c *cluster, s Settings, report func(string, map[string]any)) *Reader {
	t.Helper()
	r, err := New(t.Context(), c, s, testclock.New(), report)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
