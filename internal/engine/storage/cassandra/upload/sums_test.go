package upload

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sha(data []byte) [32]byte { return sha256.Sum256(data) }

// TestSumsOfOddNames sums files whose names sha256sum escapes, with the real one.
func TestSumsOfOddNames(t *testing.T) {
	dir := t.TempDir()
	var items []item
	want := map[string]sum{}
	for i, name := range []string{"plain", "with space", "back\\slash", "new\nline", "carriage\rreturn", "it's", "-n", "$(id)", "*", "\\", "naïve", "a\\nb", "\xff\xfe"} {
		p := filepath.Join(dir, name)
		data := noise(uint64(i), i)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		items = append(items, item{p, int64(i)})
		want[p] = sha(data)
	}
	l := Open(nil, Settings{}, nil).lane("n", &disk{})
	s, err := l.newSummer(t.Context())
	if err != nil || !s.onNode {
		t.Fatalf("%+v, %v", s, err)
	}
	got, err := s.sum(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	for p, w := range want {
		if got[p] != w {
			t.Errorf("%q: %s, want %s", p, got[p], w)
		}
	}
}

func TestParseSums(t *testing.T) {
	zero := strings.Repeat("0", 64)
	for in, want := range map[string]string{
		zero + "  a\n":                    "a",
		zero + " *a\n":                    "a",
		`\` + zero + `  a\\b\nc\r` + "\n": "a\\b\nc\r",
		zero + "  a\\n\n":                 `a\n`,
		zero + "  a":                      "!", // cut off
		zero + "  \n":                     "!",
		zero + " a\n":                     "!",
		zero[1:] + "x  a\n":               "!",
		strings.ToUpper("abcd") + zero[4:] + "  a\n":     "!",
		`\` + zero + `  a\x` + "\n":                      "!",
		`\` + zero + `  a\` + "\n":                       "!",
		"sha256sum: a: No such file\n":                   "!",
		zero + "  a\n" + "1" + zero[1:] + "  a\n":        "!",
		"This service allows sftp connections only.\r\n": "!",
	} {
		got, err := parseSums([]byte(in))
		_, ok := got[want]
		if want == "!" && err == nil || want != "!" && (err != nil || len(got) != 1 || !ok) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// FuzzParseSums: whatever is read can be written again, and then means the same.
func FuzzParseSums(f *testing.F) {
	zero := strings.Repeat("0", 64)
	f.Add([]byte(zero + "  a\n"))
	f.Add([]byte(`\` + zero + ` *a\\b\nc\r` + "\n" + zero + "  b\n"))
	f.Add([]byte(zero))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := parseSums(in)
		if err != nil {
			return
		}
		var out bytes.Buffer
		for name, s := range got {
			if name == "" {
				t.Fatal("an empty name")
			}
			escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name)
			if escaped != name {
				out.WriteByte('\\')
			}
			out.WriteString(s.String() + "  " + escaped + "\n")
		}
		again, err := parseSums(out.Bytes())
		if err != nil || len(again) != len(got) {
			t.Fatalf("%q became %q: %v", in, out.Bytes(), err)
		}
		for name, s := range got {
			if again[name] != s {
				t.Fatalf("%q: %s and %s", name, s, again[name])
			}
		}
	})
}

func TestBatches(t *testing.T) {
	var items []item
	for i := range 2000 {
		items = append(items, item{strings.Repeat("x", 100+i%50), int64(i) << 22})
	}
	n := 0
	for _, b := range batches(items) {
		length, size := 0, int64(0)
		for _, f := range b {
			length += len(f.path) + 1
			size += f.size
		}
		if len(b) == 0 || len(b) > maxBatchFiles || length > maxCommand || len(b) > 1 && size > maxBatchBytes {
			t.Errorf("a batch of %d files, %d bytes, a command of %d bytes", len(b), size, length)
		}
		n += len(b)
	}
	if n != len(items) {
		t.Errorf("%d of %d files", n, len(items))
	}
}
