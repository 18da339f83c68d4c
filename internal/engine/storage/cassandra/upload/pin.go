package upload

// Blobs are shared, and an upload holds no lock while it runs for hours: a deletion elsewhere may find a blob that no index refers to, just when an upload
// found it in the catalog and will refer to it. Two objects keep them apart; each side writes its own before it looks for the other's:
//
//	upload:    write a pin; wait until no collector has a marker; look which blobs are there; send the others; renew the pin; lists and index; remove the pin
//	collector: write a marker; if there is a pin, remove nothing; read all indexes; list the blobs; remove those that no index refers to; remove the marker
//
// The catalog gives a reader what was written before, so at least one of the two sees the other. The collector looks at pins before indexes: an upload whose pin
// is gone by then has its index there. (schedule_test.go goes through all interleavings.)
//
// Both objects may be left by the dead. Of a dead process of this machine (Alive knows) they count for nothing. What cannot be known (another machine) is taken for
// dead by its age, by the catalog's clock: a pin that was not written for a day, which a live upload renews every hour, and a marker after two hours, when its
// collector has long stopped by itself. A collector that takes a pin for dead first replaces it, by its version: an upload that lives after all then fails to renew it, and so fails, before it has an index.

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

const (
	noteVersion = 1
	// renewEvery is between two renewals of a pin.
	renewEvery = time.Hour
	// pinStale and markerStale are how old a pin and a marker must be to be taken for those of a dead process, where nothing else is known.
	pinStale    = 24 * time.Hour
	markerStale = collectFor + time.Hour
	// collectFor is how long a collector may remove blobs.
	collectFor = time.Hour
	// collectorWait is how long an upload waits for collectors: longer than for any but one that hangs.
	collectorWait = markerStale + 15*time.Minute
	// How often it looks.
	firstLook = time.Second
	lastLook  = 15 * time.Second
)

// note is the content of a pin or a marker.
type note struct {
	Version   int       `json:"version"`
	RunID     string    `json:"run_id,omitempty"`
	Holder    string    `json:"holder"`
	StartedAt time.Time `json:"started_at"`
	Beats     int64     `json:"beats"`
	// Taken says that a collector took the pin for dead.
	Taken bool `json:"taken,omitempty"`
}

func (n note) encode() []byte {
	data, _ := json.Marshal(n) // it has nothing that cannot be encoded
	return data
}

func (n note) String() string {
	who := n.Holder
	if who == "" {
		who = "a process that gave no name"
	}
	if n.RunID != "" {
		who += " (run " + n.RunID + ")"
	}
	if n.StartedAt.IsZero() {
		return who
	}
	return who + ", since " + n.StartedAt.UTC().Format(time.RFC3339)
}

// found is a pin or a marker in the catalog.
type found struct {
	name     string
	version  engine.Version
	note     note
	modified time.Time
}

// notes reads all notes below a prefix but the one named except. One that cannot be understood has an unknown holder.
func (s *Store) notes(ctx context.Context, prefix, except string) ([]found, error) {
	objects, err := s.catalog.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var all []found
	for _, o := range objects {
		if o.Name == except {
			continue
		}
		data, version, err := s.catalog.Read(ctx, o.Name)
		if errors.Is(err, engine.ErrNotFound) {
			continue // its holder is done
		}
		if err != nil {
			return nil, err
		}
		f := found{name: o.Name, version: version, modified: o.Modified}
		_ = json.Unmarshal(data, &f.note) //nolint:errcheck // its age says the rest
		all = append(all, f)
	}
	return all, nil
}

// dead says whether a note's process is gone; now is by the catalog's clock.
func (s *Store) dead(f found, now time.Time, stale time.Duration) bool {
	if s.Alive != nil && f.note.Holder != "" {
		if alive, known := s.Alive(f.note.Holder); known {
			return !alive
		}
	}
	return now.Sub(f.modified) > stale
}

func random(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) //nolint:errcheck // never fails
	return hex.EncodeToString(b)
}

// Pin keeps every blob in the catalog from being removed, for one run. Pin.Upload sends files.
type Pin struct {
	store *Store
	name  string
	stop  context.CancelFunc
	ended chan struct{} // renewing has ended

	mu      sync.Mutex
	note    note
	version engine.Version
	lost    error // why it holds nothing any more

	sent map[sum]struct{} // blobs that this pin's uploads sent
}

// Pin pins all blobs, and returns when no collector is at work. Release must be called, after the backup's index is written.
func (s *Store) Pin(ctx context.Context, runID string) (*Pin, error) {
	p := &Pin{
		store: s, name: pinPrefix + runID + "." + random(6) + ".json", ended: make(chan struct{}), sent: map[sum]struct{}{},
		note: note{Version: noteVersion, RunID: runID, Holder: s.Holder, StartedAt: s.Clock.Now().UTC()},
	}
	if err := s.catalog.Create(ctx, p.name, p.note.encode()); err != nil {
		return nil, fmt.Errorf("pinning the files of Cassandra in the catalog: %w", err)
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	go p.keep(renewing)
	if err := p.waitForCollectors(ctx); err != nil {
		return nil, errors.Join(err, p.Release(ctx))
	}
	return p, nil
}

func (p *Pin) waitForCollectors(ctx context.Context) error {
	s := p.store
	began := s.Clock.Boot()
	var written engine.ObjectInfo // when we came, by the catalog's clock
	for look := firstLook; ; look = min(2*look, lastLook) {
		markers, err := s.notes(ctx, collectingPrefix, "")
		if err != nil {
			return fmt.Errorf("looking for collectors of files in the catalog: %w", err)
		}
		if len(markers) > 0 && written.Modified.IsZero() {
			if written, err = s.catalog.Stat(ctx, p.name); err != nil {
				return fmt.Errorf("reading the catalog's clock: %w", err)
			}
		}
		waited := s.Clock.Boot() - began
		var live *found
		for _, m := range markers {
			if !s.dead(m, written.Modified.Add(waited), markerStale) {
				live = &m
				break
			}
			if err := s.catalog.Delete(ctx, m.name); err != nil {
				return fmt.Errorf("removing the marker of a dead collector: %w", err)
			}
		}
		if live == nil {
			return nil
		}
		if waited > collectorWait {
			return fmt.Errorf("the files of a deleted backup are being removed from the catalog by %s, for longer than %s: if that process is dead, delete %s from %s, and apply again",
				live.note, collectorWait, live.name, s.catalog.Describe())
		}
		if look == firstLook {
			s.report("waiting until the files of a deleted backup are removed from the catalog", map[string]any{"holder": live.note.String()})
		}
		if err := s.Clock.Sleep(ctx, look); err != nil {
			return fmt.Errorf("waiting until the files of a deleted backup are removed from the catalog by %s: %w", live.note, err)
		}
	}
}

// keep renews the pin until it is released or lost.
func (p *Pin) keep(ctx context.Context) {
	defer close(p.ended)
	for p.store.Clock.Sleep(ctx, renewEvery) == nil {
		err := p.Check(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		p.store.report("renewing the pin of an upload failed", map[string]any{"error": err.Error()})
		if errors.Is(err, errLost) {
			return
		}
	}
}

// Check renews the pin. Its error says that blobs which the upload counts on may be gone: no index may be written then. What was sent or found is safe for a
// day after it returned nil.
func (p *Pin) Check(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost != nil {
		return p.lost
	}
	if p.version == "" {
		_, v, err := p.store.catalog.Read(ctx, p.name)
		if err != nil {
			return p.failed(err)
		}
		p.version = v
	}
	next := p.note
	next.Beats++
	v, err := p.store.catalog.Replace(ctx, p.name, next.encode(), p.version)
	if errors.Is(err, engine.ErrChanged) {
		// It may be an earlier renewal of ours whose answer was lost.
		data, there, readErr := p.store.catalog.Read(ctx, p.name)
		var n note
		if readErr == nil && json.Unmarshal(data, &n) == nil && !n.Taken && n.RunID == p.note.RunID && n.Beats == next.Beats {
			v, err = there, nil
		}
	}
	if err != nil {
		return p.failed(err)
	}
	p.note, p.version = next, v
	return nil
}

var errLost = errors.New("the upload was taken for dead, and files that it counts on may be gone from the catalog; apply again")

// failed is called with the mutex held.
func (p *Pin) failed(err error) error {
	err = fmt.Errorf("renewing the pin %s of the upload: %w", p.name, err)
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrChanged) {
		err = fmt.Errorf("%w: %w", errLost, err)
		p.lost = err
	}
	return err
}

// Release removes the pin; idempotent. Its context may have ended.
func (p *Pin) Release(ctx context.Context) error {
	p.stop()
	<-p.ended
	ctx, cancel := p.store.Clock.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.store.catalog.Delete(ctx, p.name); err != nil {
		return fmt.Errorf("removing the pin of the upload: %w", err)
	}
	p.lost = errors.New("the pin of the upload was released already")
	return nil
}
