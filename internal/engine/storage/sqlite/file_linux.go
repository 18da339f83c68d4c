package sqlite

import (
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

// identity tells a file from another that takes its place, also long after: by inode and time of birth, or, where the file
// system knows no time of birth, by device and inode.
func identity(path string) (map[string]string, error) {
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	id := map[string]string{"inode": strconv.FormatUint(x.Ino, 10)}
	if x.Mask&unix.STATX_BTIME != 0 {
		id["born"] = fmt.Sprintf("%d.%09d", x.Btime.Sec, x.Btime.Nsec)
	} else {
		id["device"] = fmt.Sprintf("%d:%d", x.Dev_major, x.Dev_minor)
	}
	return id, nil
}

// networkFileSystems are those of statfs(2) where locks may not reach other machines.
var networkFileSystems = map[int64]string{
	0x6969: "NFS", 0x517b: "SMB", 0xfe534d42: "SMB", 0xff534d42: "CIFS", 0x01021997: "9p", 0x00c36400: "Ceph",
	0x65735546: "FUSE", 0x0bd00bd0: "Lustre", 0x5346414f: "AFS", 0x01161970: "GFS2", 0x47504653: "GPFS",
}

// networkFileSystem names the network file system that path lies on, or is empty.
func networkFileSystem(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return "" // only a warning hangs on it
	}
	return networkFileSystems[int64(st.Type)&0xffffffff] //nolint:unconvert // its type differs between architectures
}
