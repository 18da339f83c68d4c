package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// formatVersion is the version of the lock document that this code writes, and the only one that it understands.
const formatVersion = 1

const (
	maxDocument   = 4 << 10 // bytes
	maxLease      = time.Hour
	maxGeneration = 1 << 53 // what every JSON reader keeps exactly
)

// States of a lock document.
const (
	held = "held"
	free = "free"
)

// document is the content of the lock's object. It is never deleted, so that a generation is never used twice.
type document struct {
	Version    int       `json:"version"`
	State      string    `json:"state"`
	RunID      string    `json:"run_id"` // who holds it, or held it last
	Holder     string    `json:"holder"`
	Generation int64     `json:"generation"` // one more with every acquisition
	Heartbeat  int64     `json:"heartbeat"`  // one more with every renewal
	LeaseMS    int64     `json:"lease_ms"`   // after so long without a change it may be taken over
	Since      time.Time `json:"since"`      // by the holder's clock, for messages only
}

func (d document) lease() time.Duration { return time.Duration(d.LeaseMS) * time.Millisecond }

func (d document) ours(runID string, generation int64) bool {
	return d.State == held && d.RunID == runID && d.Generation == generation
}

func (d document) encode() ([]byte, error) {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the lock document: %w", err)
	}
	return append(data, '\n'), nil
}

// decode is strict: a lock that is not understood whole may be anything, also held.
func decode(data []byte) (document, error) {
	if len(data) > maxDocument {
		return document{}, fmt.Errorf("it has %d bytes, more than %d", len(data), maxDocument)
	}
	// The version first, and on its own: a newer format may have other fields.
	var v struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return document{}, fmt.Errorf("it is no lock document: %w", err)
	}
	if v.Version == nil {
		return document{}, errors.New("it is no lock document: it has no version")
	}
	if *v.Version != formatVersion {
		return document{}, fmt.Errorf("it is of version %d, and this release knows only %d: use the release that wrote it, or a newer one", *v.Version, formatVersion)
	}
	var d document
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return document{}, fmt.Errorf("it is no lock document: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return document{}, errors.New("it is no lock document: something follows it")
	}
	switch {
	case d.State != held && d.State != free:
		return document{}, fmt.Errorf("its state is %q", d.State)
	case d.RunID == "" || len(d.RunID) > 100:
		return document{}, errors.New("it names no run")
	case d.Generation < 1 || d.Generation >= maxGeneration:
		return document{}, fmt.Errorf("its generation is %d", d.Generation)
	case d.Heartbeat < 0 || d.Heartbeat >= maxGeneration:
		return document{}, fmt.Errorf("its heartbeat is %d", d.Heartbeat)
	case d.LeaseMS < 1 || d.lease() > maxLease || d.LeaseMS > maxLease.Milliseconds():
		return document{}, fmt.Errorf("its lease is %d ms", d.LeaseMS)
	}
	return d, nil
}
