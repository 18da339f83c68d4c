package node

import "testing"

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"110 bytes": 110, "0 bytes": 0, "1.24 KiB": 1269, "1,24 KiB": 1269, "2 MiB": 2 << 20, "3.5 GiB": 7 << 29, "1 TiB": 1 << 40,
		"": -1, "null": -1, "-1 bytes": -1, "5": -1, "5 kB": -1, "NaN bytes": -1, "1e300 TiB": -1,
	} {
		if got := ParseSize(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
