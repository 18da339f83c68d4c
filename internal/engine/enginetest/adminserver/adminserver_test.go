package adminserver_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/enginetest/adminserver"
)

func start(t *testing.T, o adminserver.Options) (*adminserver.Server, adminpb.AdminClient) {
	t.Helper()
	s, err := adminserver.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	cc, err := grpc.NewClient("passthrough:///"+s.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return s, adminpb.NewAdminClient(cc)
}

func pauseRequest(ms int64) *adminpb.PauseRequest {
	return &adminpb.PauseRequest{WaitOutstanding: true, MaxPauseWaitTime: &ms}
}

func wantPaused(t *testing.T, c adminpb.AdminClient, want bool) {
	t.Helper()
	r, err := c.CheckPaused(t.Context(), &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if r.GetPaused() != want {
		t.Errorf("CheckPaused = %v, want %v", r.GetPaused(), want)
	}
}

func wantStatus(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	got := ""
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == adminserver.Domain {
			got = info.GetReason()
		}
	}
	if status.Code(err) != code || got != reason {
		t.Errorf("got %v with reason %q, want %s with reason %q", err, got, code, reason)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func begin(t *testing.T, s *adminserver.Server) (done func()) {
	t.Helper()
	done, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// pauseInBackground sends a Pause and returns once the gate is closed.
func pauseInBackground(t *testing.T, s *adminserver.Server, c adminpb.AdminClient, ms int64) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := c.Pause(context.WithoutCancel(t.Context()), pauseRequest(ms))
		result <- err
	}()
	eventually(t, "the gate closes", s.Paused)
	return result
}

// What both generations do.
func TestBothGenerations(t *testing.T) {
	for name, behaviour := range map[string]adminserver.Behaviour{"classic": adminserver.Classic, "modern": adminserver.Modern} {
		t.Run(name, func(t *testing.T) {
			o := adminserver.Options{Behaviour: behaviour}
			t.Run("pause and unpause when idle, twice each", func(t *testing.T) {
				s, c := start(t, o)
				wantPaused(t, c, false)
				for range 2 {
					if _, err := c.Pause(t.Context(), pauseRequest(1000)); err != nil {
						t.Fatal(err)
					}
					wantPaused(t, c, true)
				}
				if _, err := s.Begin(); status.Code(err) != codes.Unavailable {
					t.Errorf("Begin while paused: %v, want UNAVAILABLE", err)
				}
				for range 2 {
					if _, err := c.Unpause(t.Context(), &emptypb.Empty{}); err != nil {
						t.Fatal(err)
					}
					wantPaused(t, c, false)
				}
				begin(t, s)()
				if v := s.Intervals(); len(v) != 1 || v[0].Ended != "unpause" || v[0].Drained.Before(v[0].From) || v[0].Until.Before(v[0].Drained) {
					t.Errorf("intervals: %+v", v)
				}
			})
			t.Run("a transaction that ends within the wait", func(t *testing.T) {
				s, c := start(t, o)
				done := begin(t, s)
				result := pauseInBackground(t, s, c, 300_000)
				if _, err := s.Begin(); err == nil {
					t.Error("Begin during the drain is let in")
				}
				select {
				case err := <-result:
					t.Fatalf("Pause answered %v before the transaction ended", err)
				default:
				}
				done()
				done() // only the first counts
				if err := <-result; err != nil {
					t.Fatal(err)
				}
				wantPaused(t, c, true)
				if s.InFlight() != 0 {
					t.Errorf("in flight: %d", s.InFlight())
				}
			})
			t.Run("an open transaction", func(t *testing.T) {
				s, c := start(t, o)
				begin(t, s)
				_, err := c.Pause(t.Context(), pauseRequest(50))
				reason := map[adminserver.Behaviour]string{adminserver.Modern: "TIMED_OUT"}[behaviour]
				wantStatus(t, err, codes.FailedPrecondition, reason)
				wantPaused(t, c, false) // it reopened itself
				if v := s.Intervals(); len(v) != 1 || v[0].Ended != "timeout" || !v[0].Drained.IsZero() {
					t.Errorf("intervals: %+v", v)
				}
			})
			t.Run("the default wait", func(t *testing.T) {
				o := o
				o.DefaultWait = 20 * time.Millisecond
				s, c := start(t, o)
				begin(t, s)
				if _, err := c.Pause(t.Context(), &adminpb.PauseRequest{WaitOutstanding: true}); status.Code(err) != codes.FailedPrecondition {
					t.Errorf("got %v", err)
				}
			})
			t.Run("without waiting", func(t *testing.T) {
				s, c := start(t, o)
				done := begin(t, s)
				if _, err := c.Pause(t.Context(), &adminpb.PauseRequest{}); err != nil {
					t.Fatal(err)
				}
				wantPaused(t, c, true)
				if s.InFlight() != 1 { // it still commits
					t.Errorf("in flight: %d", s.InFlight())
				}
				if v := s.Intervals()[0]; !v.Drained.IsZero() {
					t.Errorf("drained with a transaction in flight: %+v", v)
				}
				done()
				if v := s.Intervals()[0]; v.Drained.IsZero() {
					t.Errorf("not drained: %+v", v)
				}
			})
			t.Run("the client gives up first", func(t *testing.T) {
				s, c := start(t, o)
				done := begin(t, s)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() {
					_, err := c.Pause(ctx, pauseRequest(5000))
					ended <- err
				}()
				eventually(t, "the server drains", s.Paused)
				cancel()
				if err := <-ended; status.Code(err) != codes.Canceled {
					t.Fatalf("got %v", err)
				}
				done()
				eventually(t, "the server finished the Pause", func() bool { return !s.Calls()[0].Answered.IsZero() })
				wantPaused(t, c, true) // nobody knows
			})
			t.Run("restart while paused", func(t *testing.T) {
				s, c := start(t, o)
				done := begin(t, s)
				if _, err := c.Pause(t.Context(), &adminpb.PauseRequest{}); err != nil {
					t.Fatal(err)
				}
				address := s.Address()
				if err := s.Restart(); err != nil {
					t.Fatal(err)
				}
				done() // of the life before
				if s.Address() != address || s.Paused() || s.InFlight() != 0 {
					t.Errorf("address %s, paused %v, in flight %d", s.Address(), s.Paused(), s.InFlight())
				}
				eventually(t, "the client reconnects", func() bool {
					_, err := c.CheckPaused(t.Context(), &emptypb.Empty{})
					return err == nil
				})
				wantPaused(t, c, false)
				if v := s.Intervals(); len(v) != 1 || v[0].Ended != "restart" {
					t.Errorf("intervals: %+v", v)
				}
			})
			t.Run("down", func(t *testing.T) {
				s, c := start(t, o)
				s.Down()
				if _, err := c.CheckPaused(t.Context(), &emptypb.Empty{}); status.Code(err) != codes.Unavailable {
					t.Errorf("CheckPaused: %v", err)
				}
				if _, err := s.Begin(); status.Code(err) != codes.Unavailable {
					t.Errorf("Begin: %v", err)
				}
				if s.Paused() {
					t.Error("a server that is down is paused")
				}
			})
		})
	}
}

func TestClassic(t *testing.T) {
	t.Run("a wait of 0 is the default, a negative one none", func(t *testing.T) {
		refused := func(wait time.Duration, ms int64) time.Duration {
			s, c := start(t, adminserver.Options{DefaultWait: wait})
			begin(t, s)
			began := time.Now()
			if _, err := c.Pause(t.Context(), pauseRequest(ms)); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("%d: %v", ms, err)
			}
			return time.Since(began)
		}
		if took := refused(300*time.Millisecond, 0); took < 300*time.Millisecond {
			t.Errorf("0 ms: refused after %s, want 300ms", took)
		}
		if took := refused(time.Minute, -1); took >= time.Minute {
			t.Errorf("-1 ms: refused after %s, want at once", took)
		}
	})
	t.Run("a negative wait is OK when nothing is in flight", func(t *testing.T) {
		_, c := start(t, adminserver.Options{})
		if _, err := c.Pause(t.Context(), pauseRequest(-1)); err != nil {
			t.Error(err)
		}
		wantPaused(t, c, true)
	})
	t.Run("a second Pause that times out cancels the first", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		begin(t, s)
		if _, err := c.Pause(t.Context(), &adminpb.PauseRequest{}); err != nil {
			t.Fatal(err)
		}
		_, err := c.Pause(t.Context(), pauseRequest(20))
		wantStatus(t, err, codes.FailedPrecondition, "")
		wantPaused(t, c, false)
	})
	t.Run("Unpause during a drain: OK, and not paused", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		done := begin(t, s)
		result := pauseInBackground(t, s, c, 300_000)
		if _, err := c.Unpause(t.Context(), &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
		done()
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		wantPaused(t, c, false)
	})
}

func TestModern(t *testing.T) {
	o := adminserver.Options{Behaviour: adminserver.Modern}
	t.Run("a wait that is not positive", func(t *testing.T) {
		_, c := start(t, o)
		for _, ms := range []int64{0, -1} {
			_, err := c.Pause(t.Context(), pauseRequest(ms))
			wantStatus(t, err, codes.InvalidArgument, "")
		}
		wantPaused(t, c, false)
	})
	t.Run("a second Pause that times out leaves the first", func(t *testing.T) {
		s, c := start(t, o)
		begin(t, s)
		if _, err := c.Pause(t.Context(), &adminpb.PauseRequest{}); err != nil {
			t.Fatal(err)
		}
		_, err := c.Pause(t.Context(), pauseRequest(20))
		wantStatus(t, err, codes.FailedPrecondition, "TIMED_OUT_STILL_PAUSED")
		wantPaused(t, c, true)
	})
	t.Run("Unpause during a drain", func(t *testing.T) {
		s, c := start(t, o)
		begin(t, s)
		result := pauseInBackground(t, s, c, 300_000)
		if _, err := c.Unpause(t.Context(), &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-result:
			wantStatus(t, err, codes.Aborted, "GATE_OPEN")
		case <-time.After(time.Minute):
			t.Error("the Pause does not notice the Unpause")
		}
		wantPaused(t, c, false)
	})
	t.Run("Pauses take turns", func(t *testing.T) {
		s, c := start(t, o)
		done := begin(t, s)
		first := pauseInBackground(t, s, c, 300_000)
		_, err := c.Pause(t.Context(), pauseRequest(20))
		wantStatus(t, err, codes.Aborted, "PAUSE_IN_PROGRESS")
		_, err = c.Pause(t.Context(), &adminpb.PauseRequest{})
		wantStatus(t, err, codes.Aborted, "PAUSE_IN_PROGRESS")
		second := pauseInBackground(t, s, c, 300_000)
		done()
		for _, result := range []<-chan error{first, second} {
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
		wantPaused(t, c, true)
	})
}

func TestFaults(t *testing.T) {
	short := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	t.Run("fail the next calls", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		s.FailNext(adminserver.Pause, 2, codes.Aborted)
		for _, want := range []codes.Code{codes.Aborted, codes.Aborted, codes.OK} {
			if _, err := c.Pause(t.Context(), pauseRequest(100)); status.Code(err) != want {
				t.Errorf("got %v, want %s", err, want)
			}
			if s.Paused() != (want == codes.OK) {
				t.Errorf("after %s: paused %v", want, s.Paused())
			}
		}
		calls := s.Calls()
		if len(calls) != 3 || s.Count(adminserver.Pause) != 3 || calls[0].Code != codes.Aborted || calls[2].Code != codes.OK ||
			!calls[2].WaitOutstanding || *calls[2].MaxWaitMS != 100 || calls[2].Answered.Before(calls[2].Received) {
			t.Errorf("calls: %+v", calls)
		}
	})
	t.Run("a lost reply", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		s.Inject(adminserver.Pause, adminserver.Fault{Reply: adminserver.Lost})
		if _, err := c.Pause(short(t), pauseRequest(100)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		wantPaused(t, c, true)
	})
	t.Run("a lost request", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		s.Inject(adminserver.Pause, adminserver.Fault{NoAct: true, Reply: adminserver.Lost})
		if _, err := c.Pause(short(t), pauseRequest(100)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		wantPaused(t, c, false)
	})
	t.Run("a lie", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		s.Inject(adminserver.Pause, adminserver.Fault{NoAct: true})
		if _, err := c.Pause(t.Context(), pauseRequest(100)); err != nil {
			t.Error(err)
		}
		wantPaused(t, c, false)
	})
	t.Run("a dropped connection", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		s.Inject(adminserver.Pause, adminserver.Fault{Reply: adminserver.Dropped})
		if _, err := c.Pause(t.Context(), pauseRequest(100)); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		wantPaused(t, c, true)
	})
	t.Run("a Pause that lands after an Unpause", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		hold := make(chan struct{})
		s.Inject(adminserver.Pause, adminserver.Fault{Hold: hold})
		if _, err := c.Pause(short(t), pauseRequest(100)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if _, err := c.Unpause(t.Context(), &emptypb.Empty{}); err != nil {
			t.Error(err)
		}
		wantPaused(t, c, false)
		close(hold)
		eventually(t, "the delayed Pause lands", s.Paused)
	})
	t.Run("delays", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		s.Inject(adminserver.Pause, adminserver.Fault{Delay: 20 * time.Millisecond, ReplyDelay: 20 * time.Millisecond})
		if _, err := c.Pause(t.Context(), pauseRequest(100)); err != nil {
			t.Error(err)
		}
		if call := s.Calls()[0]; call.Answered.Sub(call.Received) < 40*time.Millisecond {
			t.Errorf("answered after %s", call.Answered.Sub(call.Received))
		}
	})
	t.Run("frozen and thawed", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		thaw := s.Freeze()
		if _, err := c.CheckPaused(short(t), &emptypb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		thaw()
		thaw()
		wantPaused(t, c, false)
	})
	t.Run("dropped connections keep the pause", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		if _, err := c.Pause(t.Context(), pauseRequest(100)); err != nil {
			t.Fatal(err)
		}
		s.DropConnections()
		eventually(t, "the client reconnects", func() bool {
			r, err := c.CheckPaused(t.Context(), &emptypb.Empty{})
			return err == nil && r.GetPaused()
		})
	})
	t.Run("faults that were cleared", func(t *testing.T) {
		s, c := start(t, adminserver.Options{})
		s.FailNext(adminserver.CheckPaused, 1, codes.Internal)
		s.ClearFaults()
		wantPaused(t, c, false)
	})
}
