// Package ddl changes the statements that `DESCRIBE KEYSPACE ... WITH INTERNALS` gives, so that they make a keyspace of another name, with other replication
// and other table ids. It reads CQL token by token: what looks like a name within a text, a comment or a function's body is none.
package ddl

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Change says what is changed of one keyspace's statements.
type Change struct {
	From, To string // the keyspace's name
	// Replication is the keyspace's, class included.
	Replication map[string]string
	// IDs has a new id for each table; every table must have one.
	IDs map[string]string
	// GCGrace has new values of gc_grace_seconds, by table; one that is not there keeps its own.
	GCGrace map[string]int64
}

// Kinds of statements.
const (
	Keyspace = "KEYSPACE"
	Table    = "TABLE"
	Index    = "INDEX"
	Type     = "TYPE"
	Alter    = "ALTER TABLE" // the drop of a column: older SSTables have it
)

// Statement is one changed statement.
type Statement struct {
	Kind  string
	Table string // of Table and Alter
	CQL   string // without a semicolon
}

// Apply changes a keyspace's statements. It refuses those of which it does not know what a restore has to do with them.
func (c Change) Apply(texts []string) ([]Statement, error) {
	var out []Statement
	made := map[string]bool{}
	for _, text := range texts {
		tokens, err := scan(text)
		if err != nil {
			return nil, err
		}
		for _, one := range split(tokens) {
			s, err := c.change(one)
			if err != nil {
				return nil, fmt.Errorf("%w, in: %s", err, excerpt(one))
			}
			if s.Kind == Table {
				if made[s.Table] {
					return nil, fmt.Errorf("table %s is created twice", s.Table)
				}
				made[s.Table] = true
			}
			out = append(out, s)
		}
	}
	if len(out) == 0 || out[0].Kind != Keyspace {
		return nil, fmt.Errorf("the statements of keyspace %s do not begin with its creation", c.From)
	}
	for _, t := range slices.Sorted(maps.Keys(c.IDs)) {
		if !made[t] {
			return nil, fmt.Errorf("the statements of keyspace %s do not create its table %s", c.From, t)
		}
	}
	return out, nil
}

func excerpt(tokens []token) string {
	text := strings.Join(strings.Fields(join(tokens)), " ")
	if len(text) > 120 {
		text = strings.ToValidUTF8(text[:120], "") + "..."
	}
	return text
}

// change changes one statement.
func (c Change) change(tokens []token) (Statement, error) {
	at := significant(tokens)
	word := func(i int) string {
		if i < len(at) {
			return at[i].keyword()
		}
		return ""
	}
	switch {
	case word(0) == "CREATE" && word(1) == "KEYSPACE":
		return c.keyspace(tokens, at)
	case word(0) == "CREATE" && word(1) == "TABLE":
		return c.table(tokens, at)
	case word(0) == "CREATE" && word(1) == "INDEX", word(0) == "CREATE" && word(1) == "CUSTOM" && word(2) == "INDEX":
		c.rename(at)
		return Statement{Kind: Index, CQL: join(tokens)}, nil
	case word(0) == "CREATE" && word(1) == "TYPE":
		c.rename(at)
		return Statement{Kind: Type, CQL: join(tokens)}, nil
	case word(0) == "ALTER" && word(1) == "TABLE" && (slices.ContainsFunc(at, func(t *token) bool { return t.keyword() == "DROP" || t.keyword() == "ADD" })):
		name, err := c.tableName(at, 2)
		if err != nil {
			return Statement{}, err
		}
		c.rename(at)
		return Statement{Kind: Alter, Table: name, CQL: join(tokens)}, nil
	}
	return Statement{}, errors.New("this is neither a keyspace, a table, an index nor a type (materialized views, functions and triggers, which ScalarDB does not make, are not restored)")
}

// rename replaces the keyspace's name where it qualifies another name.
func (c Change) rename(at []*token) {
	for i, t := range at {
		if i+1 < len(at) && at[i+1].text == "." && (i == 0 || at[i-1].text != ".") && t.isName(c.From) {
			t.text = Quote(c.To)
		}
	}
}

func (c Change) keyspace(tokens []token, at []*token) (Statement, error) {
	if len(at) < 3 || !at[2].isName(c.From) {
		return Statement{}, fmt.Errorf("this does not create keyspace %s", c.From)
	}
	at[2].text = Quote(c.To)
	for i := 3; i+2 < len(at); i++ {
		if at[i].keyword() != "REPLICATION" || at[i+1].text != "=" || at[i+2].text != "{" {
			continue
		}
		end := i + 3
		for end < len(at) && at[end].text != "}" {
			end++
		}
		if end == len(at) {
			break
		}
		at[i+2].text = literal(c.Replication)
		for _, t := range at[i+3 : end+1] {
			t.text = ""
		}
		return Statement{Kind: Keyspace, CQL: join(tokens)}, nil
	}
	return Statement{}, errors.New("this keyspace has no replication")
}

// literal writes a map for CQL.
func literal(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(stringLiteral(k) + ": " + stringLiteral(m[k]))
	}
	return "{" + b.String() + "}"
}

func stringLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// tableName is the table that a statement names from token i on: KEYSPACE.TABLE.
func (c Change) tableName(at []*token, i int) (string, error) {
	if i+2 >= len(at) || !at[i].isName(c.From) || at[i+1].text != "." || at[i+2].kind != name && at[i+2].kind != quoted {
		return "", fmt.Errorf("this names no table of keyspace %s", c.From)
	}
	return at[i+2].name(), nil
}

func (c Change) table(tokens []token, at []*token) (Statement, error) {
	table, err := c.tableName(at, 2)
	if err != nil {
		return Statement{}, err
	}
	id, ok := c.IDs[table]
	if !ok {
		return Statement{}, fmt.Errorf("table %s is not among the tables of the backup", table)
	}
	c.rename(at)
	depth, options, done := 0, false, false
	for i, t := range at {
		switch t.text {
		case "(", "{", "[":
			depth++
		case ")", "}", "]":
			depth--
		}
		if depth != 0 || i+2 >= len(at) {
			continue
		}
		options = options || t.keyword() == "WITH"
		if !options || at[i+1].text != "=" {
			continue
		}
		switch {
		case t.keyword() == "ID" && at[i+2].kind == name:
			at[i+2].text, done = id, true
		case t.keyword() == "GC_GRACE_SECONDS" && at[i+2].kind == name:
			if n, ok := c.GCGrace[table]; ok {
				at[i+2].text = strconv.FormatInt(n, 10)
			}
		}
	}
	if !done {
		return Statement{}, fmt.Errorf("table %s has no id", table)
	}
	return Statement{Kind: Table, Table: table, CQL: join(tokens)}, nil
}

// Quote is a name as CQL takes it, whatever is in it.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
