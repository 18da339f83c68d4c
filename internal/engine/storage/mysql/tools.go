package mysql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/dump"
)

// flavour is one of the two descendants of MySQL.
type flavour string

const (
	mySQL   flavour = "MySQL"
	mariaDB flavour = "MariaDB"
)

// version is major, minor, patch.
type version [3]int

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// older compares major and minor: patch releases of client and server need not match.
func (v version) older(than version) bool {
	return v[0] < than[0] || v[0] == than[0] && v[1] < than[1]
}

// product is a server or a client tool.
type product struct {
	flavour flavour
	version version
}

func (p product) String() string { return string(p.flavour) + " " + p.version.String() }

var (
	// "5.5.5-10.6.12-MariaDB": old MariaDB servers lie to old clients.
	serverVersion = regexp.MustCompile(`^(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)`)
	// "mysqldump  Ver 8.0.36 for Linux", "mysqldump  Ver 10.13 Distrib 5.7.44, for Linux", "mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for ...",
	// "mariadb-dump from 11.4.5-MariaDB, client 10.19 for ...". The number behind Ver is the tool's own where a Distrib follows.
	toolVersion = regexp.MustCompile(`(?:Distrib|from) (\d+)\.(\d+)\.(\d+)|Ver (\d+)\.(\d+)\.(\d+)`)
)

func numbers(match []string) (v version, ok bool) {
	i := 0
	for _, s := range match {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || i == len(v) {
			return v, false
		}
		v[i] = n
		i++
	}
	return v, i == len(v)
}

func flavourOf(text string) flavour {
	if strings.Contains(strings.ToLower(text), "mariadb") {
		return mariaDB
	}
	return mySQL
}

// parseServer reads what VERSION() and version_comment say.
func parseServer(text, comment string) (product, error) {
	if strings.Contains(strings.ToLower(text+comment), "tidb") {
		return product{}, fmt.Errorf("the server is TiDB (%s), which this driver does not support", text)
	}
	m := serverVersion.FindStringSubmatch(text)
	if m == nil {
		return product{}, fmt.Errorf("reading the server's version: %q has no number", text)
	}
	v, ok := numbers(m[1:])
	if !ok {
		return product{}, fmt.Errorf("reading the server's version: %q", text)
	}
	return product{flavourOf(text + comment), v}, nil
}

// parseTool reads what --version printed.
func parseTool(text string) (product, error) {
	m := toolVersion.FindStringSubmatch(text)
	if m == nil {
		return product{}, fmt.Errorf("reading a client tool's version: %q has no number", text)
	}
	v, ok := numbers(m[1:])
	if !ok {
		return product{}, fmt.Errorf("reading a client tool's version: %q", text)
	}
	return product{flavourOf(text), v}, nil
}

// tool is a client program of this machine.
type tool struct {
	product
	path string
	text string // as it says its version
}

func (t tool) name() string { return filepath.Base(t.path) }

// task is what a tool is for.
type task struct {
	verb           string
	mysql, mariadb string // the programs
}

func dumping() task { return task{verb: "dump", mysql: "mysqldump", mariadb: "mariadb-dump"} }
func loading() task { return task{verb: "restore", mysql: "mysql", mariadb: "mariadb"} }

// find looks for a tool in PATH: one of the server's flavour first. What is called mysqldump may be MariaDB's, so each is asked.
func (t task) find(ctx context.Context, getenv func(string) string, custody engine.Custody, clock engine.Clock, s product) (tool, error) {
	names := []string{t.mysql, t.mariadb}
	if s.flavour == mariaDB {
		names = []string{t.mariadb, t.mysql}
	}
	var found []tool
	var errs []error
	for _, n := range names {
		path := lookPath(getenv("PATH"), n)
		if path == "" {
			continue
		}
		var out bytes.Buffer
		p, err := dump.StartChild(ctx, dump.Child{Path: path, Args: []string{"--no-defaults", "--version"}, Env: toolEnv(), Name: n, Custody: custody, Clock: clock, Stdout: &out})
		if err == nil {
			err = p.Wait()
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c := tool{path: path, text: strings.TrimSpace(out.String())}
		if c.product, err = parseTool(c.text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		found = append(found, c)
	}
	advice := fmt.Sprintf("install the client of %s %d.%d or newer (%s) on the machine that runs the provider", s.flavour, s.version[0], s.version[1], t.packages(s.flavour))
	for _, c := range found {
		if c.flavour != s.flavour {
			continue
		}
		if c.version.older(s.version) {
			return tool{}, fmt.Errorf("the client tool %s (%s) is older than the server (%s): %s", c.path, c.product, s, advice)
		}
		return c, nil
	}
	if len(found) > 0 {
		return found[0], nil // of the other flavour: the dry run says whether it will do
	}
	if len(errs) > 0 {
		return tool{}, errors.Join(errs...)
	}
	return tool{}, fmt.Errorf("no client tool to %s with: neither %s nor %s is in PATH; %s", t.verb, names[0], names[1], advice)
}

func (t task) packages(f flavour) string {
	if f == mariaDB {
		return "package mariadb-client"
	}
	return "package mysql-client"
}

// lookPath is exec.LookPath over a given PATH, without its relative folders.
func lookPath(path, program string) string {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		p := filepath.Join(dir, program)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// toolEnv is the whole environment of a tool. MySQL's tools read ~/.mylogin.cnf even with --defaults-file, and what it says wins over our file: they are
// pointed to one that is not there.
func toolEnv() []string {
	return []string{"LC_ALL=C", "MYSQL_TEST_LOGIN_FILE=/nonexistent/mylogin.cnf"}
}

// optionsFile has what a tool may not get on its command line, and the connection's protection. It is given as --defaults-file and not as
// --defaults-extra-file, which would read the system's and the user's option files too: an ignore-table or a skip-comments there must not change a backup.
func optionsFile(t product, s server, mode string, l Login, ca, cert, key string) (string, error) {
	options := [][2]string{{"password", l.Password}, {"max-allowed-packet", "1G"}, {"default-character-set", "utf8mb4"}}
	add := func(k, v string) { options = append(options, [2]string{k, v}) }
	// What "preferred" came to was seen on our own connection: a tool does not choose anew.
	if mode == tlsPreferred {
		mode = tlsRequired
		if !s.encrypted {
			mode = tlsDisabled
		}
	}
	if t.flavour == mariaDB {
		switch mode {
		case tlsDisabled:
			add("skip-ssl", "")
		case tlsRequired:
			add("ssl", "")
			add("skip-ssl-verify-server-cert", "") // on by default from 11.4 on
		case tlsVerify:
			add("ssl", "")
			add("ssl-verify-server-cert", "")
		}
	} else {
		add("ssl-mode", strings.ToUpper(mode))
		if mode != tlsVerify && t.version[0] >= 8 {
			add("get-server-public-key", "") // caching_sha2_password over an unencrypted connection
		}
	}
	for _, f := range [][2]string{{"ssl-ca", ca}, {"ssl-cert", cert}, {"ssl-key", key}} {
		if f[1] != "" && mode != tlsDisabled {
			add(f[0], f[1])
		}
	}
	return writeOptions("client", options)
}

// secrets writes the option file, and the PEM files that it names.
func secrets(custody engine.Custody, c Config, l Login, t product, s server) (file string, remove func(), err error) {
	var removes []func()
	remove = func() {
		for _, r := range removes {
			r()
		}
	}
	write := func(pattern, content string) string {
		if content == "" || err != nil {
			return ""
		}
		var path string
		var r func()
		if path, r, err = dump.SecretFile(custody, os.TempDir(), pattern, []byte(content)); err == nil {
			removes = append(removes, r)
		}
		return path
	}
	mode := c.tlsMode(l)
	ca := ""
	if mode == tlsVerify {
		ca = write("scalardb-ca-*.pem", l.CAPEM)
	}
	cert, key := write("scalardb-cert-*.pem", l.CertPEM), write("scalardb-key-*.pem", l.KeyPEM)
	var text string
	if err == nil {
		text, err = optionsFile(t, s, mode, l, ca, cert, key)
	}
	file = write("scalardb-my-*.cnf", text)
	if err != nil {
		remove()
		return "", func() {}, fmt.Errorf("writing the options of %s: %w", t, err)
	}
	return file, remove, nil
}

func connectionArgs(file string, c Config, l Login) []string {
	return []string{
		"--defaults-file=" + file, // must be the first
		"--protocol=TCP", "--host=" + c.Host, "--port=" + strconv.FormatInt(c.port(), 10), "--user=" + l.Username,
	}
}

// dumpArgs are those of one consistent dump. Tables are not dropped by the dump: a restore must fail rather than replace somebody's table.
func dumpArgs(t product, file string, c Config, l Login, namespaces []string) []string {
	args := append(connectionArgs(file, c, l),
		"--single-transaction", "--quick", "--skip-lock-tables", "--no-tablespaces", "--hex-blob", "--triggers", "--comments", "--dump-date",
		"--skip-add-drop-table", "--default-character-set=utf8mb4")
	if t.flavour == mySQL {
		// With GTIDs in the dump the tool would take a global read lock, and a restore would change the server's GTIDs.
		args = append(args, "--set-gtid-purged=OFF")
		if t.version[0] >= 8 {
			// Histograms; servers before 8.0 and MariaDB have none, and the tool fails there.
			args = append(args, "--column-statistics=0")
		}
	}
	return append(append(args, "--databases"), namespaces...)
}

// loadArgs: binary mode takes the stream as it is, and no commands of the client from it.
func loadArgs(file string, c Config, l Login) []string {
	return append(connectionArgs(file, c, l), "--batch", "--binary-mode", "--default-character-set=utf8mb4")
}
