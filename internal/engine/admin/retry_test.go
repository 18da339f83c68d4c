package admin_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/clock"
)

// refuser is an HTTP/2 server, or a proxy, that says of every request that it was not processed, after it came whole. gRPC would send
// it again by itself.
type refuser struct {
	net.Listener
	requests atomic.Int32
	refuse   func(f *http2.Framer, stream uint32) error
}

func (r *refuser) serve() {
	for {
		c, err := r.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
				return
			}
			f := http2.NewFramer(c, c)
			if f.WriteSettings() != nil {
				return
			}
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				switch frame := frame.(type) {
				case *http2.SettingsFrame:
					if !frame.IsAck() {
						err = f.WriteSettingsAck()
					}
				case *http2.DataFrame:
					if frame.StreamEnded() {
						r.requests.Add(1)
						err = r.refuse(f, frame.StreamID)
					}
				}
				if err != nil {
					return
				}
			}
		}()
	}
}

func TestPauseIsNeverSentTwice(t *testing.T) {
	for name, refuse := range map[string]func(f *http2.Framer, stream uint32) error{
		"REFUSED_STREAM": func(f *http2.Framer, stream uint32) error {
			return f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		},
		"GOAWAY": func(f *http2.Framer, _ uint32) error {
			return errors.Join(f.WriteGoAway(0, http2.ErrCodeNo, nil), io.EOF)
		},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			r := &refuser{Listener: listener, refuse: refuse}
			go r.serve()
			t.Cleanup(func() { _ = listener.Close() })
			c := dial(t, listener.Addr().String(), clock.System{})
			wantOutcome(t, c.Pause(t.Context(), time.Second), engine.PauseUnknown)
			if n := r.requests.Load(); n != 1 {
				t.Errorf("the Pause was sent %d times", n)
			}
			// The same server does see gRPC's own retry of a call that may be repeated: it can show one.
			r.requests.Store(0)
			_, _ = c.CheckPaused(t.Context())
			if n := r.requests.Load(); n != 2 {
				t.Errorf("CheckPaused was sent %d times; want 2, else this test shows nothing", n)
			}
		})
	}
}
