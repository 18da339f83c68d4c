package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
)

// retry calls f until it returns nil, with back-off, for as long as ctx allows.
func retry(ctx context.Context, clock engine.Clock, f func() error) error {
	for delay := retryFirst; ; delay = min(2*delay, retryMax) {
		err := f()
		if err == nil || clock.Sleep(ctx, delay) != nil {
			return err
		}
	}
}

// logger writes the log into the catalog, in the background, as often as that takes: unpausing never waits for it.
type logger struct {
	clock   engine.Clock
	catalog engine.Catalog
	name    string
	cancel  context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	latest *engine.WatchdogLog // not written yet
	ending bool
	wake   chan struct{}

	failed error // of the last write; read after done
}

func newLogger(ctx context.Context, clock engine.Clock, catalog engine.Catalog, name string) *logger {
	ctx, cancel := context.WithCancel(ctx)
	l := &logger{clock: clock, catalog: catalog, name: name, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go l.run(ctx)
	return l
}

// write never waits. A later log takes the place of one that is not written yet.
func (l *logger) write(log engine.WatchdogLog) {
	l.mu.Lock()
	l.latest = &log
	l.mu.Unlock()
	l.rouse()
}

func (l *logger) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// stop drops what is not written.
func (l *logger) stop() { l.cancel() }

// close waits until the last log is written, or ctx ends.
func (l *logger) close(ctx context.Context) error {
	l.mu.Lock()
	l.ending = true
	l.mu.Unlock()
	l.rouse()
	select {
	case <-l.done:
		return l.failed
	case <-ctx.Done():
		l.cancel()
		return ctx.Err()
	}
}

func (l *logger) run(ctx context.Context) {
	defer close(l.done)
	delay := retryFirst
	for {
		l.mu.Lock()
		log, ending := l.latest, l.ending
		l.mu.Unlock()
		if log == nil {
			if ending {
				return
			}
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if l.failed = l.put(ctx, *log); l.failed != nil {
			if l.clock.Sleep(ctx, delay) != nil {
				return
			}
			delay = min(2*delay, retryMax)
			continue
		}
		delay = retryFirst
		l.mu.Lock()
		if l.latest == log {
			l.latest = nil
		}
		l.mu.Unlock()
	}
}

// put writes the log, over an older one of this run only.
func (l *logger) put(ctx context.Context, log engine.WatchdogLog) error {
	data, err := json.MarshalIndent(log, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the watchdog's log: %w", err)
	}
	err = l.catalog.Create(ctx, l.name, data)
	if !errors.Is(err, engine.ErrExists) {
		return err
	}
	present, v, err := l.catalog.Read(ctx, l.name)
	if err != nil {
		return err
	}
	if old, err := engine.DecodeWatchdogLog(present); err != nil || old.RunID != log.RunID {
		return fmt.Errorf("writing the watchdog's log: %s holds something else", l.name)
	}
	_, err = l.catalog.Replace(ctx, l.name, data, v)
	return err
}

// keeper renews the lock of a run that may be dead.
type keeper struct {
	cancel context.CancelFunc
	done   chan struct{}
	held   *lock.Lock // read after done
}

func newKeeper(ctx context.Context, clock engine.Clock, catalog engine.Catalog, ref engine.LockRef) *keeper {
	ctx, cancel := context.WithCancel(ctx)
	k := &keeper{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		_ = retry(ctx, clock, func() error { // it fails only with ctx
			once, cancel := clock.WithTimeout(ctx, lockTimeout)
			defer cancel()
			l, err := lock.Adopt(once, lock.Options{Catalog: catalog, Clock: clock}, ref)
			if errors.Is(err, engine.ErrLockLost) || errors.Is(err, engine.ErrNotFound) {
				return nil // nothing to keep
			}
			k.held = l
			return err
		})
	}()
	return k
}

// leave ends the renewal; the lock stays as it is.
func (k *keeper) leave() {
	k.cancel()
	<-k.done
	if k.held != nil {
		k.held.Leave()
	}
}
