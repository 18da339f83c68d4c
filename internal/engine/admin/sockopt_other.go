//go:build !linux

package admin

import (
	"syscall"
	"time"
)

// limitUnacked has no portable form; the deadline of every call and TCP keep-alive still end a dead connection.
func limitUnacked(syscall.RawConn, time.Duration) error { return nil }
