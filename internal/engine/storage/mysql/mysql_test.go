package mysql

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseServer(t *testing.T) {
	for _, c := range []struct {
		text, comment string
		want          product
		fails         bool
	}{
		{text: "8.0.36", comment: "MySQL Community Server - GPL", want: product{mySQL, version{8, 0, 36}}},
		{text: "8.4.3", comment: "MySQL Community Server - GPL", want: product{mySQL, version{8, 4, 3}}},
		{text: "9.1.0-commercial", comment: "MySQL Enterprise Server", want: product{mySQL, version{9, 1, 0}}},
		{text: "5.7.44-log", comment: "Source distribution", want: product{mySQL, version{5, 7, 44}}},
		{text: "8.0.36-28", comment: "Percona Server (GPL), Release 28", want: product{mySQL, version{8, 0, 36}}},
		{text: "10.11.19-MariaDB-0+deb12u1-log", comment: "Debian 12", want: product{mariaDB, version{10, 11, 19}}},
		{text: "5.5.5-10.6.12-MariaDB", comment: "managed", want: product{mariaDB, version{10, 6, 12}}},
		{text: "11.4.5", comment: "MariaDB Server", want: product{mariaDB, version{11, 4, 5}}},
		{text: "8.0.11-TiDB-v7.5.1", comment: "TiDB Server", fails: true},
		{text: "unknown", fails: true},
		{text: "8.0.99999999999999999999", fails: true},
	} {
		got, err := parseServer(c.text, c.comment)
		if got != c.want && err == nil || (err != nil) != c.fails {
			t.Errorf("%q: %v, %v; want %v", c.text, got, err, c.want)
		}
	}
}

// The texts are those of the tools' --version; MySQL's are recorded from its documentation and packages, not run here.
func TestParseTool(t *testing.T) {
	for text, want := range map[string]product{
		"mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)":                  {mySQL, version{8, 0, 36}},
		"mysqldump  Ver 8.0.36-28 for Linux on x86_64 (Percona Server (GPL), Release 28)":           {mySQL, version{8, 0, 36}},
		"mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)":                                   {mySQL, version{5, 7, 44}},
		"mysql  Ver 14.14 Distrib 5.7.44, for Linux (x86_64) using  EditLine wrapper":               {mySQL, version{5, 7, 44}},
		"mysql  Ver 9.1.0 for Linux on aarch64 (MySQL Community Server - GPL)":                      {mySQL, version{9, 1, 0}},
		"mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)":           {mariaDB, version{10, 11, 19}},
		"mysqldump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)":              {mariaDB, version{10, 11, 19}},
		"mariadb  Ver 15.1 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64) using  EditLine": {mariaDB, version{10, 11, 19}},
		"/usr/bin/mariadb-dump from 11.4.5-MariaDB, client 10.19 for debian-linux-gnu (x86_64)":     {mariaDB, version{11, 4, 5}},
		"mariadb from 12.0.2-MariaDB, client 15.2 for Linux (x86_64) using  EditLine wrapper":       {mariaDB, version{12, 0, 2}},
	} {
		if got, err := parseTool(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	if _, err := parseTool("mydumper"); err == nil {
		t.Error("a tool without a version has one")
	}
}

func TestDumpArgs(t *testing.T) {
	c, l := Config{Host: "db", Port: 3307}, Login{Username: "u", Password: "secret"}
	for _, tool := range []struct {
		product
		with []string
	}{
		{product{mariaDB, version{10, 11, 19}}, nil},
		{product{mariaDB, version{11, 4, 5}}, nil},
		{product{mySQL, version{5, 7, 44}}, []string{"--set-gtid-purged=OFF"}},
		{product{mySQL, version{8, 0, 36}}, []string{"--set-gtid-purged=OFF", "--column-statistics=0"}},
		{product{mySQL, version{9, 1, 0}}, []string{"--set-gtid-purged=OFF", "--column-statistics=0"}},
	} {
		args := dumpArgs(tool.product, "/tmp/f", c, l, []string{"scalardb", "bank"})
		if args[0] != "--defaults-file=/tmp/f" {
			t.Errorf("%s: the first option is %q: the tools take an option file nowhere else", tool.product, args[0])
		}
		if !slices.Equal(args[len(args)-3:], []string{"--databases", "scalardb", "bank"}) {
			t.Errorf("%s: not one run over all namespaces: %q", tool.product, args)
		}
		for _, flag := range []string{"--single-transaction", "--quick", "--skip-lock-tables", "--hex-blob", "--no-tablespaces", "--skip-add-drop-table", "--default-character-set=utf8mb4", "--protocol=TCP", "--host=db", "--port=3307", "--user=u"} {
			if !slices.Contains(args, flag) {
				t.Errorf("%s: %s is missing", tool.product, flag)
			}
		}
		for _, flag := range []string{"--set-gtid-purged=OFF", "--column-statistics=0"} {
			if slices.Contains(args, flag) != slices.Contains(tool.with, flag) {
				t.Errorf("%s: %s: %q", tool.product, flag, args)
			}
		}
		if text := strings.Join(args, " "); strings.Contains(text, "secret") || strings.Contains(text, "lock-all-tables") || strings.Contains(text, "flush") || strings.Contains(text, "master-data") {
			t.Errorf("%s: %q", tool.product, args)
		}
	}
}

func TestOptionsFile(t *testing.T) {
	l := Login{Username: "u", Password: `p"w\`}
	plain, encrypted := server{}, server{encrypted: true}
	maria, my, old := product{mariaDB, version{10, 11, 19}}, product{mySQL, version{8, 0, 36}}, product{mySQL, version{5, 7, 44}}
	for _, c := range []struct {
		tool     product
		server   server
		mode     string
		has, not []string
	}{
		{maria, plain, tlsPreferred, []string{"skip-ssl"}, []string{"ssl-verify-server-cert", "ssl-mode", "ssl-ca"}},
		{maria, encrypted, tlsPreferred, []string{"ssl", "skip-ssl-verify-server-cert"}, []string{"skip-ssl", "ssl-mode"}},
		{maria, encrypted, tlsRequired, []string{"ssl", "skip-ssl-verify-server-cert"}, []string{"skip-ssl"}},
		{maria, encrypted, tlsVerify, []string{"ssl", "ssl-verify-server-cert", `ssl-ca="/ca"`, `ssl-cert="/cert"`, `ssl-key="/key"`}, []string{"skip-ssl", "skip-ssl-verify-server-cert"}},
		{maria, plain, tlsDisabled, []string{"skip-ssl"}, []string{"ssl", `ssl-ca="/ca"`}},
		{my, plain, tlsPreferred, []string{`ssl-mode="DISABLED"`, "get-server-public-key"}, []string{"ssl"}},
		{my, encrypted, tlsPreferred, []string{`ssl-mode="REQUIRED"`}, nil},
		{my, encrypted, tlsVerify, []string{`ssl-mode="VERIFY_IDENTITY"`, `ssl-ca="/ca"`}, []string{"get-server-public-key"}},
		{old, plain, tlsDisabled, []string{`ssl-mode="DISABLED"`}, []string{"get-server-public-key"}},
	} {
		text, err := optionsFile(c.tool, c.server, c.mode, l, "/ca", "/cert", "/key")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(text, "\n")
		for _, h := range append(c.has, "[client]", `password="p\"w\\"`) {
			if !slices.Contains(lines, h) {
				t.Errorf("%s, %s: %q is missing in\n%s", c.tool, c.mode, h, text)
			}
		}
		for _, h := range c.not {
			if slices.Contains(lines, h) {
				t.Errorf("%s, %s: %q is in\n%s", c.tool, c.mode, h, text)
			}
		}
	}
	for _, p := range []string{"a\x00b", strings.Repeat("x", 5000)} {
		l.Password = p
		if text, err := optionsFile(my, plain, tlsDisabled, l, "", "", ""); err == nil || strings.Contains(err.Error(), p) {
			t.Errorf("a password that the tools would read wrong gives %q, %v", text, err)
		}
	}
}

// Tools are shell scripts here: what counts is which one is taken, and why not.
func TestFind(t *testing.T) {
	const newMaria, oldMaria, my = "mariadb-dump from 11.4.5-MariaDB, client 10.19", "mysqldump  Ver 10.19 Distrib 10.5.1-MariaDB, for x", "mysqldump  Ver 8.0.36 for Linux"
	maria1011, my80, my84 := product{mariaDB, version{10, 11, 0}}, product{mySQL, version{8, 0, 40}}, product{mySQL, version{8, 4, 0}}
	for _, c := range []struct {
		name   string
		tools  map[string]string
		server product
		want   string // the program, or what the error says
		fails  bool
	}{
		{"the server's own", map[string]string{"mysqldump": my, "mariadb-dump": newMaria}, maria1011, "mariadb-dump", false},
		{"the server's own, MySQL", map[string]string{"mysqldump": my, "mariadb-dump": newMaria}, my80, "mysqldump", false},
		{"MariaDB's under MySQL's name", map[string]string{"mysqldump": newMaria}, maria1011, "mysqldump", false},
		{"older patch release", map[string]string{"mysqldump": my}, my80, "mysqldump", false},
		{"older", map[string]string{"mysqldump": my}, my84, "older than the server", true},
		{"older MariaDB", map[string]string{"mysqldump": oldMaria}, maria1011, "older than the server", true},
		{"only the other kind", map[string]string{"mysqldump": my}, maria1011, "mysqldump", false},
		{"none", nil, my80, "mysql-client", true},
		{"broken", map[string]string{"mysqldump": "?"}, my80, "no number", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.tools {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho '"+text+"'\n"), 0o700); err != nil { //nolint:gosec // a program
					t.Fatal(err)
				}
			}
			got, err := dumping().find(t.Context(), func(string) string { return "relative:" + dir }, nil, nil, c.server)
			if c.fails {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("found %v, %v", got, err)
				}
				return
			}
			if err != nil || got.name() != c.want {
				t.Errorf("found %v, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestParseOptions(t *testing.T) {
	const file = "# a comment\n[mysqld]\nuser=mysql\n[client]\nuser = backup # me\npassword=\"a#b \\\"c\\\" \\\\ \\s\"\r\nssl_ca='/x y'\nloose-foo\n!include /etc/x\n[client]\nuser=last\n[mysql]\nuser=other\n"
	got := parseOptions(file, "client")
	want := map[string]string{"user": "last", "password": `a#b "c" \  `, "ssl-ca": "/x y", "foo": ""}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read %q, want %q", got, want)
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("[client]\npassword=\"a\\\"#\"\nuser='x'\n", "p\"w'\\ #;=[]")
	f.Add("[client", "\n\r\t\b\x7f \\")
	f.Add("=\n[]\n[client]\n='\n\"\n\\", "")
	f.Fuzz(func(t *testing.T, text, password string) {
		parseOptions(text, "client")
		written, err := writeOptions("client", [][2]string{{"user", "u"}, {"password", password}, {"ssl", ""}})
		if err != nil {
			if len(password) <= maxOption && !strings.ContainsRune(password, 0) {
				t.Fatal(err)
			}
			return
		}
		read := parseOptions(written, "client")
		if read["password"] != password || read["user"] != "u" || len(read) != 3 {
			t.Errorf("%q became %q", password, read)
		}
	})
}

func TestLogin(t *testing.T) {
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	const file = "[client]\nuser=file\npassword=filepw\n"
	for _, c := range []struct {
		given Login
		env   map[string]string
		want  string
	}{
		{Login{Username: "given", Password: "pw"}, map[string]string{"MYSQL_USER": "e", "MYSQL_PWD": "e"}, "given pw"},
		{Login{}, map[string]string{"MYSQL_USER": "env", "MYSQL_PWD": "envpw"}, "env envpw"},
		{Login{Username: "given"}, map[string]string{"MYSQL_PASSWORD": "envpw"}, "given envpw"},
		{Login{}, nil, "file filepw"},
	} {
		got := login(c.given, env(c.env), file)
		if got.Username+" "+got.Password != c.want {
			t.Errorf("%v became %s %s, want %s", c.env, got.Username, got.Password, c.want)
		}
		if text := fmt.Sprintf("%v %+v %#v %s", got, got, got, got); strings.Contains(text, got.Password) {
			t.Errorf("a login prints its password: %s", text)
		}
	}
}

const recorded = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19\n--\n-- Host: localhost    Database: coordinator\n-- ---\n\n/*!40101 SET NAMES utf8mb4 */;\n\n--\n-- Current Database: `coordinator`\n--\n\nUSE `coordinator`;\nINSERT INTO `t` VALUES\n(1,'a\\n-- Dump completed');\n"

func TestCut(t *testing.T) {
	const end = "-- Dump completed on 2026-11-25 18:47:13\n"
	for _, c := range []struct {
		name, text       string
		proved, complete bool
	}{
		{"whole", recorded + end, true, true},
		{"without a date", recorded + "-- Dump completed\n", true, true},
		{"cut short", recorded, true, false},
		{"cut in the trailer", recorded + end[:len(end)-30], true, false},
		{"goes on", recorded + end + "(2,'b');\n", true, false},
		{"header only", recorded[:strings.Index(recorded, "-- Current")], false, false},
		{"header and trailer", recorded[:strings.Index(recorded, "-- Current")] + end, false, false},
		{"within a line", "x -- Current Database: `a`\n" + end, false, false},
		{"nothing", "", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for size := 1; size <= len(c.text)+1; size += 1 + size/3 {
				var out bytes.Buffer
				cut := newCut(func() (io.Writer, error) { return &out, nil })
				for rest := []byte(c.text); len(rest) > 0; {
					n := min(size, len(rest))
					if _, err := cut.Write(rest[:n]); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				proved := false
				select {
				case <-cut.proved:
					proved = true
				default:
				}
				if proved != c.proved || cut.complete() != c.complete || c.proved && out.String() != c.text {
					t.Fatalf("in pieces of %d: proved %v, complete %v, handed on %d of %d bytes", size, proved, cut.complete(), out.Len(), len(c.text))
				}
			}
		})
	}
	// A slow or broken catalog comes after the proof.
	broken := errors.New("broken")
	cut := newCut(nil)
	cut.open = func() (io.Writer, error) {
		<-cut.proved
		return nil, broken
	}
	for range 2 {
		if _, err := cut.Write([]byte(recorded)); !errors.Is(err, broken) {
			t.Errorf("the error is %v", err)
		}
	}
	cut = newCut(nil)
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		_, err = cut.Write(bytes.Repeat([]byte("ERROR "), 10000))
	}
	if !errors.Is(err, errNoDump) {
		t.Errorf("endless output that is no dump: %v", err)
	}
}

func FuzzCut(f *testing.F) {
	f.Add(recorded+"-- Dump completed on x\n", 7)
	f.Add("-- Current Database: `", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		if size = size % 4096; size < 1 {
			size = 1
		}
		var out bytes.Buffer
		cut := newCut(func() (io.Writer, error) { return &out, nil })
		for rest := []byte(text); len(rest) > 0; {
			n := min(size, len(rest))
			if _, err := cut.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		select {
		case <-cut.proved:
			if out.String() != text {
				t.Error("what was handed on is not what was written")
			}
		default:
			if strings.Contains("\n"+text, "\n"+proofLine) || out.Len() > 0 || cut.complete() {
				t.Error("the proof was overlooked")
			}
		}
	})
}

func TestPortable(t *testing.T) {
	const definer = "/*!50013 DEFINER=`ro``ot`@`%` SQL SECURITY DEFINER */"
	long := "(1,'" + strings.Repeat("x", 3*maxLine) + "')"
	for in, want := range map[string]string{
		"/*M!999999\\- enable the sandbox mode */ \nA\n":                    "A\n",
		"B\n" + definer + "\nC":                                             "B\n/*!50013 SQL SECURITY DEFINER */\nC",
		"/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER t\n": "/*!50003 CREATE*/ /*!50003 TRIGGER t\n",
		"('" + definer + "')\n":                                             "('" + definer + "')\n",
		definer + " x\n":                                                    definer + " x\n",
		"/*!40101 SET NAMES utf8mb4 */;\n":                                  "/*!40101 SET NAMES utf8mb4 */;\n",
		long + "\n" + long:                                                  long + "\n" + long,
		strings.Repeat("y", maxLine) + definer + "\n" + "z":                 strings.Repeat("y", maxLine) + definer + "\n" + "z",
		strings.Repeat("y", maxLine-1) + "\n" + definer + "\n":              strings.Repeat("y", maxLine-1) + "\n/*!50013 SQL SECURITY DEFINER */\n",
		"": "",
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)), iotest.DataErrReader(strings.NewReader(in))} {
			if got, err := io.ReadAll(newPortable(r)); err != nil || string(got) != want {
				t.Errorf("%.80q became %.80q, %v; want %.80q", in, got, err, want)
			}
		}
	}
	// The error of a damaged dump must come through, or the client would take what it got for the whole.
	broken := errors.New("broken")
	if _, err := io.ReadAll(newPortable(io.MultiReader(strings.NewReader("A\nB"), iotest.ErrReader(broken)))); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}

func FuzzPortable(f *testing.F) {
	f.Add(recorded)
	f.Add("/*!50013 DEFINER=`a`@`b` SQL SECURITY INVOKER */\r\n/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ ")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := io.ReadAll(newPortable(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "/*M!999999") {
				continue
			}
			if !strings.HasPrefix(line, "/*!50013 DEFINER=") && !strings.HasPrefix(line, "/*!50003 CREATE*/ /*!50017 DEFINER=") {
				want = append(want, line)
			}
		}
		// Every other line is there, in its order.
		rest := string(got)
		for _, line := range want {
			i := strings.Index(rest, line)
			if i < 0 {
				t.Fatalf("%q is lost", line)
			}
			rest = rest[i+len(line):]
		}
	})
}

func TestGranted(t *testing.T) {
	grants := []string{
		"GRANT PROCESS, REPLICATION CLIENT ON *.* TO `u`@`%`", "GRANT SELECT, TRIGGER ON `bank`.* TO `u`@`%`", "GRANT ALL PRIVILEGES ON `my\\_ns`.* TO `u`@`%`", "GRANT `role`@`%` TO `u`@`%`",
	}
	for _, c := range []struct {
		privilege, namespace string
		want                 bool
	}{{"TRIGGER", "bank", true}, {"TRIGGER", "bank2", false}, {"TRIGGER", "my_ns", true}, {"PROCESS", "bank2", true}, {"CLIENT", "bank", false}} {
		if got := granted(grants, c.privilege, c.namespace); got != c.want {
			t.Errorf("%s on %s: %v", c.privilege, c.namespace, got)
		}
	}
}

func TestTopology(t *testing.T) {
	for name, c := range map[string]struct {
		vars map[string]string
		want bool
	}{
		"primary":             {map[string]string{"read_only": "OFF", "super_read_only": "OFF", "wsrep_on": "OFF"}, true},
		"read only":           {map[string]string{"read_only": "ON"}, false},
		"read only, as a 1":   {map[string]string{"read_only": "1"}, false},
		"MariaDB 12's value":  {map[string]string{"read_only": "NO_LOCK"}, false},
		"an Aurora reader":    {map[string]string{"innodb_read_only": "ON", "read_only": "OFF"}, false},
		"a group's secondary": {map[string]string{"super_read_only": "ON", "read_only": "ON"}, false},
		"one Galera node":     {map[string]string{"wsrep_on": "ON", "wsrep_cluster_size": "1"}, true},
		"Galera":              {map[string]string{"wsrep_on": "ON", "wsrep_cluster_size": "3"}, false},
		"single primary":      {map[string]string{"group_replication_single_primary_mode": "ON"}, true},
		"multi-primary":       {map[string]string{"group_replication_single_primary_mode": "OFF"}, false},
	} {
		s := server{vars: c.vars}
		if err := errors.Join(s.writable(), s.alone()); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileName(t *testing.T) {
	for name, want := range map[string]string{"bank": "bank", "Bank_2": "bank_2", "a-b": "a@002db", "x y": "x@0020y", "p#1": "p@00231", "$": "@0024"} {
		if got := fileName(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestParseNamespaces(t *testing.T) {
	for text, ok := range map[string]bool{
		`[{"name":"bank","charset":"utf8mb4","collation":"utf8mb4_bin"}]`:            true,
		`[{"name":"ba` + "`" + `nk","charset":"utf8mb4","collation":"utf8mb4_bin"}]`: true, // quoted where it is used
		`[{"name":"bank","charset":"utf8mb4; DROP","collation":"utf8mb4_bin"}]`:      false,
		`[{"name":"","charset":"utf8mb4","collation":"utf8mb4_bin"}]`:                false,
		`[]`: false, ``: false, `{}`: false,
	} {
		if _, err := parseNamespaces(text); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
