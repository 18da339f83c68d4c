package ddl

import (
	"errors"
	"strings"
)

// kinds of tokens.
type kind int

const (
	blank  kind = iota // white space and comments
	name               // an identifier without quotes, a keyword, a number or a UUID
	quoted             // an identifier in quotes
	text               // in apostrophes, or between $$
	mark               // any other character
)

// token is a piece of a statement. All tokens together are the statement again.
type token struct {
	kind kind
	text string
}

// name is what an identifier names.
func (t token) name() string {
	if t.kind == quoted {
		return strings.ReplaceAll(t.text[1:len(t.text)-1], `""`, `"`)
	}
	return strings.ToLower(t.text)
}

func (t token) isName(n string) bool { return (t.kind == name || t.kind == quoted) && t.name() == n }

// keyword is the upper-case text of what may be a keyword; empty for all else.
func (t token) keyword() string {
	if t.kind != name {
		return ""
	}
	return strings.ToUpper(t.text)
}

func isWord(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_'
}

// scan cuts CQL into tokens.
func scan(s string) ([]token, error) {
	var out []token
	for len(s) > 0 {
		k, n, err := next(s)
		if err != nil {
			return nil, err
		}
		out = append(out, token{k, s[:n]})
		s = s[n:]
	}
	return out, nil
}

// next finds the first token.
func next(s string) (kind, int, error) {
	until := func(k kind, from int, end, what string) (kind, int, error) {
		i := strings.Index(s[from:], end)
		if i < 0 {
			return 0, 0, errors.New("a schema's statement ends within " + what)
		}
		return k, from + i + len(end), nil
	}
	switch {
	case strings.IndexByte(" \t\r\n\f", s[0]) >= 0:
		n := 1
		for n < len(s) && strings.IndexByte(" \t\r\n\f", s[n]) >= 0 {
			n++
		}
		return blank, n, nil
	case strings.HasPrefix(s, "--"), strings.HasPrefix(s, "//"):
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			return blank, i + 1, nil
		}
		return blank, len(s), nil
	case strings.HasPrefix(s, "/*"):
		return until(blank, 2, "*/", "a comment")
	case strings.HasPrefix(s, "$$"):
		return until(text, 2, "$$", "a text")
	case s[0] == '\'', s[0] == '"':
		k, what := text, "a text"
		if s[0] == '"' {
			k, what = quoted, "a name in quotes"
		}
		for n := 1; n < len(s); n++ {
			if s[n] != s[0] {
				continue
			}
			if n+1 < len(s) && s[n+1] == s[0] { // doubled
				n++
				continue
			}
			if k == quoted && n == 1 {
				return 0, 0, errors.New("a schema's statement has an empty name in quotes")
			}
			return k, n + 1, nil
		}
		return 0, 0, errors.New("a schema's statement ends within " + what)
	case isWord(s[0]):
		n := 1
		// A minus between two word characters is a UUID's; no operator follows a name in a schema.
		for n < len(s) && (isWord(s[n]) || s[n] == '-' && n+1 < len(s) && isWord(s[n+1])) {
			n++
		}
		return name, n, nil
	}
	return mark, 1, nil
}

// split cuts tokens into statements at semicolons. Those of blanks only are left out.
func split(tokens []token) (out [][]token) {
	var one []token
	end := func() {
		if len(significant(one)) > 0 {
			out = append(out, one)
		}
		one = nil
	}
	for _, t := range tokens {
		if t.kind == mark && t.text == ";" {
			end()
			continue
		}
		one = append(one, t)
	}
	end()
	return out
}

// significant are the tokens that are not blank.
func significant(tokens []token) (out []*token) {
	for i := range tokens {
		if tokens[i].kind != blank {
			out = append(out, &tokens[i])
		}
	}
	return out
}

func join(tokens []token) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString(t.text)
	}
	return strings.TrimSpace(b.String())
}
