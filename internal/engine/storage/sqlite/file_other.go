//go:build darwin || freebsd

package sqlite

import (
	"bytes"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

// identity tells a file from another that takes its place, also long after: by inode and time of birth.
func identity(path string) (map[string]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return map[string]string{"inode": strconv.FormatUint(st.Ino, 10), "born": fmt.Sprintf("%d.%09d", st.Btim.Sec, st.Btim.Nsec)}, nil
}

// networkFileSystem names the network file system that path lies on, or is empty.
func networkFileSystem(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return "" // only a warning hangs on it
	}
	kind, _, _ := bytes.Cut(st.Fstypename[:], []byte{0})
	switch string(kind) {
	case "nfs", "smbfs", "cifs", "afpfs", "webdav", "fusefs", "macfuse", "osxfuse":
		return string(kind)
	}
	return ""
}
