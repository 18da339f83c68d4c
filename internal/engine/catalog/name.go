// Package catalog holds what all catalogs have in common.
package catalog

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxObject is the most that Catalog.Read returns, in bytes.
const MaxObject = 16 << 20

const (
	maxName      = 1000 // bytes; object stores allow 1024
	maxComponent = 200  // bytes; file systems allow 255, and temporary names are longer than the object's
)

// CheckName says whether name may be an object of a catalog: relative, clean, slash-separated, without hidden components (those
// are the catalog's own) and without characters that a file system or an object store could take for something else.
func CheckName(name string) error {
	if name == "" {
		return fmt.Errorf("checking a catalog object's name: it is empty")
	}
	if len(name) > maxName {
		return fmt.Errorf("checking a catalog object's name: %.40q… has %d bytes, more than %d", name, len(name), maxName)
	}
	for c := range strings.SplitSeq(name, "/") {
		if err := checkComponent(c); err != nil {
			return fmt.Errorf("checking the catalog object's name %q: %w", name, err)
		}
	}
	return nil
}

// CheckPrefix says whether prefix can be the beginning of a name; the empty prefix is that of all.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	// Whatever follows, the components before it are whole; the last may go on.
	return CheckName(strings.TrimSuffix(prefix, "/"))
}

func checkComponent(c string) error {
	switch {
	case c == "":
		return fmt.Errorf("it begins or ends with a slash, or has two in a row")
	case c[0] == '.':
		return fmt.Errorf("the component %q begins with a dot", c)
	case len(c) > maxComponent:
		return fmt.Errorf("the component %.40q… has %d bytes, more than %d", c, len(c), maxComponent)
	case !utf8.ValidString(c):
		return fmt.Errorf("the component %q is not valid UTF-8", c)
	}
	for _, r := range c {
		if r < 0x20 || r == 0x7f || r == '\\' {
			return fmt.Errorf("the component %q holds a control character or a backslash", c)
		}
	}
	return nil
}
