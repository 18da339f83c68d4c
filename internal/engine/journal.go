package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// journalVersion is the version of the journal's format.
const journalVersion = 1

// journalPrefix is where journals lie in the catalog.
const journalPrefix = "journal/"

// Journal is the catalog's record of a run that is under way, written before anything is paused: what was (or may be) paused, and
// what was (or may be) made. It is removed when nothing is left to do; a journal whose run is dead says what to clean up.
type Journal struct {
	Version   int                       `json:"version"`
	RunID     string                    `json:"run_id"`
	BackupID  string                    `json:"backup_id"`
	Holder    string                    `json:"holder"`
	StartedAt time.Time                 `json:"started_at"`
	Phase     Phase                     `json:"phase"`
	Pause     PauseSettings             `json:"pause"`
	Targets   []JournalTarget           `json:"targets"`
	Storages  map[string]JournalStorage `json:"storages"`
	// Beats counts renewals while captures are awaited, when the run holds no lock any more.
	Beats int64 `json:"beats"`
	// Lifted says that every target that a Pause was sent to is unpaused.
	Lifted bool `json:"lifted"`
	// Manifest is there once every capture is restorable: all that is left is to record it.
	Manifest *Manifest `json:"manifest,omitempty"`
	// Kept says that the run ended without being able to record the manifest, and returned the backup as incomplete: it is to be recorded, not discarded.
	Kept bool `json:"kept,omitempty"`
}

// JournalTarget is one target of a journal. TLS settings are not in it: who lifts a dead run's pause brings their own.
type JournalTarget struct {
	Target
	Ownership  Ownership `json:"ownership"`
	UnpausedAt time.Time `json:"unpaused_at"`
}

// JournalStorage is what a run makes for one storage.
type JournalStorage struct {
	Driver string `json:"driver"`
	// Arguments are the driver object's as typed (no secrets): what it takes to reach the artifacts.
	Arguments json.RawMessage `json:"arguments,omitempty"`
	Artifacts []Artifact      `json:"artifacts"`
}

// WatchdogLog is what a watchdog writes into the catalog when it fired.
type WatchdogLog struct {
	Version int                 `json:"version"`
	RunID   string              `json:"run_id"`
	FiredAt time.Time           `json:"fired_at"`
	Reason  string              `json:"reason"`
	Done    bool                `json:"done"` // every target is unpaused
	Targets []WatchdogLogTarget `json:"targets"`
}

// WatchdogLogTarget is what a watchdog did to one target.
type WatchdogLogTarget struct {
	Target
	Lifted     bool      `json:"lifted"`
	Foreign    bool      `json:"foreign"`
	UnpausedAt time.Time `json:"unpaused_at"`
	Error      string    `json:"error,omitempty"`
}

// JournalName is the catalog object of a run's journal.
func JournalName(runID string) string { return journalPrefix + runID + ".json" }

// WatchdogLogName is the catalog object that a run's watchdog logs into when it fires.
func WatchdogLogName(runID string) string { return journalPrefix + runID + ".watchdog.json" }

// OpenJournal is a journal found in a catalog, with its watchdog's log where there is one.
type OpenJournal struct {
	Journal
	Watchdog *WatchdogLog
	Modified time.Time // by the catalog's clock
	// Broken is set for a journal that cannot be read; only RunID is known then.
	Broken error
}

// Paused lists the targets that the run may have left paused: a Pause was sent to them, and neither the run nor its watchdog is known to have lifted it.
func (j OpenJournal) Paused() []Target {
	if j.Lifted {
		return nil
	}
	done := map[string]bool{}
	if j.Watchdog != nil {
		for _, t := range j.Watchdog.Targets {
			if t.Lifted || t.Foreign {
				done[t.Group+" "+t.Address] = true
			}
		}
	}
	var left []Target
	for _, t := range j.Targets {
		if (t.Ownership == Ours || t.Ownership == Unknown) && t.UnpausedAt.IsZero() && !done[t.Group+" "+t.Address] {
			left = append(left, t.Target)
		}
	}
	return left
}

// DecodeJournal reads a journal; what it does not understand is an error, never skipped.
func DecodeJournal(data []byte) (Journal, error) {
	var j Journal
	if err := json.Unmarshal(data, &j); err != nil {
		return Journal{}, fmt.Errorf("decoding a journal: %w", err)
	}
	if j.Version != journalVersion {
		return Journal{}, fmt.Errorf("decoding a journal: version %d is not known to this release (it knows %d)", j.Version, journalVersion)
	}
	if !ValidRunID(j.RunID) {
		return Journal{}, fmt.Errorf("decoding a journal: %q is no run id", j.RunID)
	}
	for _, t := range j.Targets {
		switch t.Ownership {
		case Unsent, Unknown, Ours, Foreign:
		default:
			return Journal{}, fmt.Errorf("decoding a journal: target %s has the unknown ownership %q", t.Address, t.Ownership)
		}
	}
	return j, nil
}

// DecodeWatchdogLog reads a watchdog's log.
func DecodeWatchdogLog(data []byte) (WatchdogLog, error) {
	var l WatchdogLog
	if err := json.Unmarshal(data, &l); err != nil {
		return WatchdogLog{}, fmt.Errorf("decoding a watchdog's log: %w", err)
	}
	return l, nil
}

// ValidRunID says whether s has the form of a run id: 16 lower-case hex digits.
func ValidRunID(s string) bool {
	if len(s) != 16 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// OpenJournals lists the journals in a catalog, of live runs and dead ones. A journal that cannot be read is listed as Broken.
func OpenJournals(ctx context.Context, c Catalog) ([]OpenJournal, error) {
	objects, err := c.List(ctx, journalPrefix)
	if err != nil {
		return nil, fmt.Errorf("listing the journals in %s: %w", c.Describe(), err)
	}
	var found []OpenJournal
	for _, o := range objects {
		runID, isJournal := strings.CutSuffix(strings.TrimPrefix(o.Name, journalPrefix), ".json")
		if !isJournal || !ValidRunID(runID) {
			continue
		}
		j := OpenJournal{Modified: o.Modified}
		data, _, err := c.Read(ctx, o.Name)
		if errors.Is(err, ErrNotFound) {
			continue // closed meanwhile
		}
		if err == nil {
			j.Journal, err = DecodeJournal(data)
		}
		if err != nil {
			j.RunID, j.Broken = runID, err
			found = append(found, j)
			continue
		}
		switch data, _, err := c.Read(ctx, WatchdogLogName(runID)); {
		case err == nil:
			l, err := DecodeWatchdogLog(data)
			if err != nil {
				j.Broken = err
				break
			}
			j.Watchdog = &l
		case !errors.Is(err, ErrNotFound):
			return nil, fmt.Errorf("reading the watchdog's log of run %s in %s: %w", runID, c.Describe(), err)
		}
		found = append(found, j)
	}
	return found, nil
}

// LiftJournal unpauses what a dead run left paused, by its journal: only targets that a Pause of that run was sent to, and that neither it nor its watchdog
// lifted. A target that is not paused (any more) is left alone: then neither Lifted nor Err is set.
func LiftJournal(ctx context.Context, clock Clock, j OpenJournal, dial func(ctx context.Context, t Target) (AdminConn, error), progress func(Target, string, error)) []LiftResult {
	left := j.Paused()
	records := make([]*PauseRecord, len(left))
	for i, t := range left {
		r := NewPauseRecord(t)
		r.Settle(Ours) // the run is dead: whatever it sent has landed, or was lost with it
		records[i] = r
	}
	return Lift(ctx, clock, records, LiftOptions{Dial: dial, Drain: j.Pause.Drain, LookFirst: true, Progress: progress})
}

// NoteLifted writes into a dead run's journal what LiftJournal did, so that nobody takes a later pause of somebody else for that run's. A journal
// with nothing left to clean up is closed.
func NoteLifted(ctx context.Context, clock Clock, c Catalog, j OpenJournal, results []LiftResult) error {
	w, err := reopenJournal(ctx, c, j.RunID)
	if errors.Is(err, ErrNotFound) {
		return nil // somebody else cleaned up
	}
	if err != nil {
		return err
	}
	for i, t := range w.doc.Targets {
		for _, l := range results {
			if l.Err == nil && l.Target.Group == t.Group && l.Target.Address == t.Address {
				w.doc.Targets[i].UnpausedAt = clock.Now().UTC()
			}
		}
	}
	if len(w.doc.Storages) == 0 && len((OpenJournal{Journal: w.doc, Watchdog: j.Watchdog}).Paused()) == 0 {
		return w.close(ctx)
	}
	return w.write(ctx)
}

// journal is the writing side, of the run that owns it.
type journalWriter struct {
	catalog Catalog
	doc     Journal
	version Version
	created bool
}

// reopenJournal is for those who clean up after a dead run: its journal as it is now, to be changed or closed; ErrNotFound.
func reopenJournal(ctx context.Context, c Catalog, runID string) (journalWriter, error) {
	data, version, err := c.Read(ctx, JournalName(runID))
	if err != nil {
		return journalWriter{}, fmt.Errorf("reading the journal of run %s in %s: %w", runID, c.Describe(), err)
	}
	doc, err := DecodeJournal(data)
	if err != nil {
		return journalWriter{}, err
	}
	return journalWriter{catalog: c, doc: doc, version: version, created: true}, nil
}

func (w *journalWriter) write(ctx context.Context) error {
	data, err := json.MarshalIndent(w.doc, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the journal: %w", err)
	}
	name := JournalName(w.doc.RunID)
	if !w.created {
		if err := w.catalog.Create(ctx, name, data); err != nil {
			return fmt.Errorf("writing the journal %s into %s: %w", name, w.catalog.Describe(), err)
		}
		w.created = true
		_, w.version, err = w.catalog.Read(ctx, name)
		if err != nil {
			return fmt.Errorf("reading the journal %s back from %s: %w", name, w.catalog.Describe(), err)
		}
		return nil
	}
	v, err := w.catalog.Replace(ctx, name, data, w.version)
	if errors.Is(err, ErrChanged) {
		// Only this run writes its journal: what is there is an earlier write of ours whose answer was lost.
		if _, now, readErr := w.catalog.Read(ctx, name); readErr == nil {
			v, err = w.catalog.Replace(ctx, name, data, now)
		}
	}
	if err != nil {
		return fmt.Errorf("writing the journal %s into %s: %w", name, w.catalog.Describe(), err)
	}
	w.version = v
	return nil
}

// close removes the journal: nothing is left to do.
func (w *journalWriter) close(ctx context.Context) error {
	if !w.created {
		return nil
	}
	for _, name := range []string{WatchdogLogName(w.doc.RunID), JournalName(w.doc.RunID)} {
		if err := w.catalog.Delete(ctx, name); err != nil {
			return fmt.Errorf("closing the journal: deleting %s from %s: %w", name, w.catalog.Describe(), err)
		}
	}
	w.created = false
	return nil
}
