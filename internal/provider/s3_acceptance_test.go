//go:build acceptance

package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/acceptance/testbed/versitygw"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/awsapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/catalog/s3"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/lock"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/unpause"
)

// s3Place is a catalog on a server, as the provider block names it.
func s3Place(t *testing.T, server *versitygw.Server) CatalogSettings {
	t.Helper()
	return CatalogSettings{S3: &s3.Settings{Bucket: server.Bucket(t, false), Prefix: "catalog"},
		AWS: &awsapi.Settings{Region: versitygw.Region, S3UsePathStyle: true, SkipCredentialsCheck: true, SkipMetadataAPICheck: true, Endpoints: map[string]string{"s3": server.URL}}}
}

func pausedServer(t *testing.T) *adminserver.Server {
	t.Helper()
	s, err := adminserver.Start(adminserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestAccWatchdogOfS3 lets a watchdog, a process of its own with a bare environment, fire: it reaches the bucket by what came through the pipe, logs
// there and frees the lock; and nothing of it can be seen from outside.
func TestAccWatchdogOfS3(t *testing.T) {
	server := versitygw.Start(t)
	for name, inBlock := range map[string]bool{"keys in the block": true, "keys in the environment": false} {
		t.Run(name, func(t *testing.T) {
			place := s3Place(t, server)
			if inBlock {
				place.AWS.AccessKey, place.AWS.SecretKey = server.AccessKey, server.SecretKey
			} else {
				t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
				t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
			}
			ctx, system := t.Context(), clock.System{}
			c, err := openCatalog(place, system, opener(*place.AWS))
			if err != nil {
				t.Fatal(err)
			}
			const runID = "0123456789abcdef"
			held, err := lock.Locker{Catalog: c, Clock: system, Holder: "test"}.Acquire(ctx, runID, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			target := pausedServer(t)
			w, err := newWatchdog(place, map[string]GroupSettings{"main": {Addresses: []string{target.Address()}}}, system)
			if err != nil {
				t.Fatal(err)
			}
			at := engine.Target{Group: "main", Address: target.Address(), Name: target.Address()}
			armed, err := w.Arm(ctx, engine.WatchdogOrder{RunID: runID, BackupID: "b", Targets: []engine.Target{at}, Journal: engine.WatchdogLogName(runID), Lock: held.Ref(),
				Pause: engine.PauseSettings{Drain: time.Second, Max: time.Minute}})
			if err != nil {
				t.Fatal(err)
			}
			seen := 0
			for _, pid := range children(t) {
				seen++
				for _, file := range []string{"cmdline", "environ"} {
					text, err := os.ReadFile(filepath.Join("/proc", pid, file))
					if err == nil && strings.Contains(string(text), server.SecretKey) && !strings.Contains(string(text), "ROOT_SECRET_KEY") {
						t.Errorf("the secret key is in the %s of a child: %q", file, text)
					}
				}
			}
			if seen < 2 { // the server, and the watchdog
				t.Errorf("%d children were looked at", seen)
			}
			if err := armed.Sending(ctx); err != nil {
				t.Fatal(err)
			}
			d, err := admin.NewDialer(admin.Settings{}, system)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := d.Dial(ctx, at)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.Pause(ctx, time.Second); err != nil {
				t.Fatal(err)
			}
			armed.Record(at, engine.Ours)
			held.Leave()
			if err := armed.Close(ctx); err != nil { // with a target that is paused: it goes on by itself
				t.Fatal(err)
			}
			deadline := time.Now().Add(2 * time.Minute)
			for {
				data, _, err := c.Read(ctx, engine.WatchdogLogName(runID))
				if err == nil {
					l, err := engine.DecodeWatchdogLog(data)
					if err != nil {
						t.Fatal(err)
					}
					if l.Done && !target.Paused() {
						break
					}
				}
				if time.Now().After(deadline) {
					t.Fatalf("the watchdog did not lift and log: paused %v, log %q, %v", target.Paused(), data, err)
				}
				time.Sleep(50 * time.Millisecond)
			}
			free, cancel := context.WithTimeout(ctx, 20*time.Second) // far less than the lease
			defer cancel()
			again, err := lock.Locker{Catalog: c, Clock: system, Holder: "test"}.Acquire(free, "fedcba9876543210", time.Minute)
			if err != nil {
				t.Fatalf("the lock was not freed: %v", err)
			}
			if err := again.Release(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// children are the ids of this process's children.
func children(t *testing.T) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // gone
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

// TestAccUnpauseOfS3: the break-glass command, with the line that the provider prints and the environment that AWS's command line would have.
func TestAccUnpauseOfS3(t *testing.T) {
	server := versitygw.Start(t)
	place := s3Place(t, server)
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	ctx, system := t.Context(), clock.System{}
	c, err := openCatalog(place, system, opener(*place.AWS))
	if err != nil {
		t.Fatal(err)
	}
	target := pausedServer(t)
	d, err := admin.NewDialer(admin.Settings{}, system)
	if err != nil {
		t.Fatal(err)
	}
	at := engine.Target{Group: "main", Address: target.Address(), Name: target.Address()}
	conn, err := d.Dial(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Pause(ctx, time.Second); err != nil {
		t.Fatal(err)
	}
	const runID = "0123456789abcdef"
	journal, err := json.Marshal(engine.Journal{Version: 1, RunID: runID, BackupID: "b1", Holder: "host/pid 1", StartedAt: time.Now().UTC(), Phase: engine.PhaseCapture,
		Pause: engine.PauseSettings{Drain: time.Second, Max: time.Minute}, Targets: []engine.JournalTarget{{Target: at, Ownership: engine.Ours}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(ctx, engine.JournalName(runID), journal); err != nil {
		t.Fatal(err)
	}
	printed := (&data{catalogSettings: place}).unpauseCommand(runID, nil)
	line := strings.Fields(strings.TrimPrefix(printed, "terraform-provider-scalardb unpause "))
	var out bytes.Buffer
	if code := unpause.Main(ctx, line, UnpauseDependencies(&out, &out)); code != 0 || target.Paused() {
		t.Errorf("%q: exit %d, paused %v:\n%s", line, code, target.Paused(), &out)
	}
	if journals, err := engine.OpenJournals(ctx, c); err != nil || len(journals) != 0 {
		t.Errorf("the journal is still there: %+v, %v", journals, err)
	}
	out.Reset()
	if code := unpause.Main(ctx, append(line[:2:2], "--region", versitygw.Region, "--endpoint", "http://127.0.0.1:1", "--timeout", "3s"), UnpauseDependencies(&out, &out)); code != 1 || !strings.Contains(out.String(), "s3://"+place.S3.Bucket) {
		t.Errorf("without a server: exit %d:\n%s", code, &out)
	}
}
