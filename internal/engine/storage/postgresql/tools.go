package postgresql

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

// packageDirs is where packages put the programs of one major version each (Debian, Red Hat, Homebrew).
var packageDirs = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/libpq*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/libpq*/bin"}

// toolEnv is a tool's whole environment. Messages in English: some are looked at.
var toolEnv = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}

// tool is one program found.
type tool struct {
	path    string
	version string // "15.6"
	major   int
}

// findTool returns the oldest program that is not older than the given major version: a tool of the server's own version knows it best, and
// a newer pg_restore sends settings that an older server does not have.
func (s Settings) findTool(ctx context.Context, custody engine.Custody, program string, atLeast int) (tool, error) {
	var found []tool
	var broken []error
	for _, path := range s.candidates(program) {
		t, err := s.askVersion(ctx, custody, path)
		if err != nil {
			broken = append(broken, err)
			continue
		}
		found = append(found, t)
	}
	fit := slices.DeleteFunc(slices.Clone(found), func(t tool) bool { return t.major < atLeast })
	if len(fit) > 0 {
		return slices.MinFunc(fit, func(a, b tool) int { return cmp.Compare(a.major, b.major) }), nil
	}
	install := fmt.Sprintf("install PostgreSQL's client programs of version %d or newer (postgresql-client-%d on Debian and Ubuntu) on the machine that runs Terraform", atLeast, atLeast)
	if len(found) == 0 {
		return tool{}, errors.Join(append(broken, fmt.Errorf("looking for %s: it is neither in PATH nor where packages put it; %s", program, install))...)
	}
	var have []string
	for _, t := range found {
		have = append(have, t.path+" is "+t.version)
	}
	return tool{}, fmt.Errorf("looking for %s of version %d or newer: %s; %s", program, atLeast, strings.Join(have, ", "), install)
}

// candidates are the programs of that name: first PATH's, then the packages'.
func (s Settings) candidates(program string) (paths []string) {
	var dirs []string
	if s.Getenv != nil {
		dirs = filepath.SplitList(s.Getenv("PATH"))
	}
	globs := s.toolDirs
	if globs == nil {
		globs = packageDirs
	}
	for _, g := range globs {
		found, _ := filepath.Glob(g)
		dirs = append(dirs, found...)
	}
	for _, d := range dirs {
		if !filepath.IsAbs(d) {
			continue // never a program of the working directory
		}
		path, err := filepath.EvalSymlinks(filepath.Join(d, program))
		if err != nil || filepath.Base(path) == "pg_wrapper" { // Debian's script; what it chooses from is in packageDirs
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

func (s Settings) askVersion(ctx context.Context, custody engine.Custody, path string) (tool, error) {
	var out bytes.Buffer
	p, err := dump.StartChild(ctx, dump.Child{Path: path, Name: filepath.Base(path), Args: []string{"--version"}, Env: toolEnv, Stdout: &out, Clock: s.Clock, Custody: custody})
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		return tool{}, fmt.Errorf("asking %s for its version: %w", path, err)
	}
	version, major, err := parseVersion(out.String())
	if err != nil {
		return tool{}, fmt.Errorf("asking %s for its version: %w", path, err)
	}
	return tool{path: path, version: version, major: major}, nil
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d{1,4})(?:\.\d+|beta\d+|rc\d+|devel)*)`)

// parseVersion reads "pg_dump (PostgreSQL) 15.6 (Debian ...)".
func parseVersion(s string) (version string, major int, err error) {
	m := versionPattern.FindStringSubmatch(s)
	if m == nil {
		return "", 0, fmt.Errorf("%.60q is no version of PostgreSQL", strings.TrimSpace(s))
	}
	major, err = strconv.Atoi(m[2])
	return m[1], major, err
}
