package ddl

import (
	"fmt"
	"strings"
)

// Shape is what SSTables of a keyspace have to match.
type Shape struct {
	Columns map[string]string // by table: its columns and what was dropped, in a form that can be compared
	Indexes map[string]string // statements that create them, by the same in a form that can be compared
}

// ShapeOf reads it from a keyspace's statements, as Cassandra describes them or as Apply gives them.
func ShapeOf(keyspace string, texts []string) (Shape, error) {
	out := Shape{Columns: map[string]string{}, Indexes: map[string]string{}}
	c := Change{From: keyspace}
	for _, text := range texts {
		tokens, err := scan(text)
		if err != nil {
			return Shape{}, err
		}
		for _, one := range split(tokens) {
			at := significant(one)
			switch first(at) {
			case "CREATE TABLE", "ALTER TABLE":
				name, err := c.tableName(at, 2)
				if err != nil {
					return Shape{}, fmt.Errorf("%w, in: %s", err, excerpt(one))
				}
				out.Columns[name] += normal(at[5:]) + "; "
			case "CREATE INDEX", "CREATE CUSTOM":
				out.Indexes[normal(at)] = join(one)
			case "CREATE KEYSPACE", "CREATE TYPE":
			default:
				return Shape{}, fmt.Errorf("this is neither a keyspace, a table, an index nor a type, in: %s", excerpt(one))
			}
		}
	}
	return out, nil
}

func first(at []*token) string {
	if len(at) < 6 {
		return ""
	}
	return at[0].keyword() + " " + at[1].keyword()
}

// normal is a statement up to its options, with one space between tokens and no needless quotes.
func normal(at []*token) string {
	var b strings.Builder
	depth := 0
	for _, t := range at {
		switch t.text {
		case "(", "<":
			depth++
		case ")", ">":
			depth--
		}
		if depth == 0 && t.keyword() == "WITH" {
			return strings.TrimSpace(b.String())
		}
		switch t.kind {
		case quoted, name:
			b.WriteString(Quote(t.name()))
		default:
			b.WriteString(t.text)
		}
		b.WriteByte(' ')
	}
	return strings.TrimSpace(b.String())
}
