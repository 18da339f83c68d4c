package mysql

import (
	"errors"
	"fmt"
	"strings"
)

// parseOptions reads the options of one section of an option file as the client tools do: names with "_" as "-", values without their
// quotes and escapes, later ones win. Directives (!include) are not followed.
func parseOptions(text, section string) map[string]string {
	out := map[string]string{}
	current := ""
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' || line[0] == '!' {
			continue
		}
		if line[0] == '[' {
			current = ""
			if i := strings.IndexByte(line, ']'); i > 0 {
				current = strings.TrimSpace(line[1:i])
			}
			continue
		}
		if current != section {
			continue
		}
		key, value, _ := strings.Cut(uncomment(line), "=")
		key = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "_", "-")
		if key = strings.TrimPrefix(key, "loose-"); key != "" {
			out[key] = unquote(strings.TrimSpace(value))
		}
	}
	return out
}

// uncomment cuts a line at the first "#" that is not within quotes.
func uncomment(line string) string {
	var quote byte
	escaped := false
	for i := range len(line) {
		c := line[i]
		switch {
		case escaped:
			escaped = false
		case quote != 0 && c == '\\':
			escaped = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote == 0 && c == '#':
			return line[:i]
		}
	}
	return line
}

func unquote(v string) string {
	if n := len(v); n >= 2 && (v[0] == '\'' || v[0] == '"') && v[n-1] == v[0] {
		v = v[1 : n-1]
	}
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' || i+1 == len(v) {
			b.WriteByte(v[i])
			continue
		}
		i++
		switch v[i] {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'b':
			b.WriteByte('\b')
		case 's':
			b.WriteByte(' ')
		case '\\', '"', '\'':
			b.WriteByte(v[i])
		default: // not an escape
			b.WriteByte('\\')
			b.WriteByte(v[i])
		}
	}
	return b.String()
}

// maxOption is what a value may have: the tools read lines of 4096 bytes at most.
const maxOption = 1500

// writeOptions is the reverse of parseOptions. An option without a value is a switch, except a password.
func writeOptions(section string, options [][2]string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]\n", section)
	for _, o := range options {
		if strings.ContainsRune(o[1], 0) || len(o[1]) > maxOption {
			return "", errors.New("the value of " + o[0] + " is too long, or holds a zero byte: the client tools cannot read it from an option file")
		}
		if o[1] == "" && o[0] != "password" {
			fmt.Fprintf(&b, "%s\n", o[0])
			continue
		}
		fmt.Fprintf(&b, "%s=\"%s\"\n", o[0], strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\b", `\b`).Replace(o[1]))
	}
	return b.String(), nil
}

// login fills what the given login lacks from the environment, and then from the [client] section of an option file's text.
func login(given Login, getenv func(string) string, file string) Login {
	options := parseOptions(file, "client")
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	given.Username = first(given.Username, getenv("MYSQL_USERNAME"), getenv("MYSQL_USER"), options["user"])
	given.Password = first(given.Password, getenv("MYSQL_PASSWORD"), getenv("MYSQL_PWD"), options["password"])
	return given
}
