package watchdog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// protocolVersion guards against a binary that was replaced on disk while its old self ran.
const protocolVersion = 1

const (
	maxLine    = 4 << 20 // bytes; an order may carry the certificates of many groups
	maxTargets = 10_000
)

// Types of messages. Parent and watchdog speak JSON, one object a line.
const (
	// From the parent.
	typeArm     = "arm"     // answered by armed or refused
	typeSending = "sending" // answered by ack
	typeRecord  = "record"
	typeProcess = "process"
	typeSecret  = "secret"
	typeDone    = "done" // a process is gone, or a secret file removed
	typeAsk     = "ask"  // answered by ack, which says whether it fired
	typeLifted  = "lifted"
	typeClose   = "close"
	// From the watchdog.
	typeArmed   = "armed"
	typeRefused = "refused"
	typeAck     = "ack"
	typeFired   = "fired" // unasked, once
)

// message is any of them. ID ties an answer to its question; Key names something in custody.
type message struct {
	Type    string   `json:"type"`
	Version int      `json:"version,omitempty"` // arm
	ID      uint64   `json:"id,omitempty"`
	Order   *order   `json:"order,omitempty"`  // arm
	Target  *address `json:"target,omitempty"` // record
	Owner   string   `json:"owner,omitempty"`  // record
	Key     uint64   `json:"key,omitempty"`    // process, secret, done
	PID     int      `json:"pid,omitempty"`    // process
	Start   uint64   `json:"start,omitempty"`  // process; clock ticks since boot
	Name    string   `json:"name,omitempty"`   // process
	Path    string   `json:"path,omitempty"`   // secret
	Fired   bool     `json:"fired,omitempty"`  // ack
	// Detached: the watchdog goes on without the parent.
	Detached bool   `json:"detached,omitempty"` // ack of close
	Error    string `json:"error,omitempty"`    // refused
}

// order is engine.WatchdogOrder with what the watchdog builds its own connections from. It holds secrets.
type order struct {
	RunID    string          `json:"run_id"`
	BackupID string          `json:"backup_id"`
	Targets  []engine.Target `json:"targets"`
	Drain    time.Duration   `json:"drain"` // nanoseconds
	Max      time.Duration   `json:"max"`
	Log      string          `json:"log"` // catalog object
	Lock     engine.LockRef  `json:"lock"`
	Spec     Spec            `json:"spec"`
}

// address names one target of the order.
type address struct {
	Group   string `json:"group"`
	Address string `json:"address"`
}

func addressOf(t engine.Target) address { return address{t.Group, t.Address} }

func encode(m message) ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding a message of the watchdog's protocol: %w", err)
	}
	if len(data) >= maxLine {
		return nil, fmt.Errorf("encoding a message of the watchdog's protocol: it has %d bytes, more than %d", len(data), maxLine)
	}
	return append(data, '\n'), nil
}

// decode reads one line, without its end. Its errors never quote the line, which may hold secrets.
func decode(line []byte) (message, error) {
	var m message
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return message{}, errors.New("decoding a message of the watchdog's protocol: it is not one")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return message{}, errors.New("decoding a message of the watchdog's protocol: something follows it")
	}
	if err := m.check(); err != nil {
		return message{}, fmt.Errorf("decoding a message of the watchdog's protocol: %w", err)
	}
	return m, nil
}

// check refuses what must never be acted on.
func (m message) check() error {
	switch m.Type {
	case typeArm:
		if m.Version != protocolVersion {
			return fmt.Errorf("version %d is not %d: the provider's binary was replaced while it ran; apply again", m.Version, protocolVersion)
		}
		if m.Order == nil {
			return errors.New("an order is missing")
		}
		return m.Order.check()
	case typeRecord:
		if m.Target == nil {
			return errors.New("a record names no target")
		}
		switch o := engine.Ownership(m.Owner); o {
		case engine.Unsent, engine.Unknown, engine.Ours, engine.Foreign:
		default:
			return errors.New("a record has an unknown ownership")
		}
	case typeProcess:
		// 0 and less are groups, 1 is init.
		if m.PID <= 1 || m.Start == 0 || m.Key == 0 {
			return fmt.Errorf("process %d, started at %d, cannot be in custody", m.PID, m.Start)
		}
	case typeSecret:
		if m.Key == 0 {
			return errors.New("a secret file has no key")
		}
		return checkPath(m.Path)
	case typeDone:
		if m.Key == 0 {
			return errors.New("what is done has no key")
		}
	case typeSending, typeAsk, typeLifted, typeClose, typeArmed, typeAck, typeRefused:
		if m.ID == 0 {
			return errors.New("a question or answer has no id")
		}
	case typeFired:
	default:
		return errors.New("its type is not known")
	}
	return nil
}

func (o order) check() error {
	if o.Drain < 0 || o.Max < 0 || (len(o.Targets) > 0 && o.Max == 0) {
		return errors.New("the order's durations are missing or negative")
	}
	if len(o.Targets) > maxTargets {
		return fmt.Errorf("the order has %d targets, more than %d", len(o.Targets), maxTargets)
	}
	seen := map[address]bool{}
	for _, t := range o.Targets {
		if seen[addressOf(t)] {
			return errors.New("the order has a target twice")
		}
		seen[addressOf(t)] = true
	}
	return nil
}

// checkPath refuses to have custody of what a mistake would make a disaster of: everything in it is removed when the run dies.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.Count(path, "/") < 2 {
		return errors.New("a secret file's path is not absolute and clean, or is too near the root")
	}
	return nil
}

// lines reads messages until the end, and says why it ended: nil at the end of the stream.
func lines(r io.Reader, each func(message) bool) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for s.Scan() {
		m, err := decode(s.Bytes())
		if err != nil {
			return err
		}
		if !each(m) {
			return nil
		}
	}
	return s.Err()
}
