package admin

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// reasonStillPaused is the ErrorInfo reason of servers from mid-2026 on: the drain timed out, and an earlier Pause holds.
const reasonStillPaused = "TIMED_OUT_STILL_PAUSED"

// domainPrefix begins the ErrorInfo domains of Scalar's products (com.scalar.db.cluster.admin, com.scalar.dl.admin, ...).
const domainPrefix = "com.scalar."

const wrongPort = "nothing on this port answers the scalar-admin API: is it the wrong port? ScalarDB Server answers on scalar.db.server.port (60051), " +
	"ScalarDB Cluster on 60053 or, where scalar.db.cluster.node.admin.port is set, on that port only, ScalarDL Ledger on 50053, Auditor on 40053"

// outcomeOf says what a Pause that was sent, and failed with err, may have done. Only what a server says after it looked at
// the request is definite; what gRPC or something between may say as well is not.
func outcomeOf(err error) engine.PauseOutcome {
	s := status.Convert(err)
	if reason(s) == reasonStillPaused {
		return engine.PauseStillPaused
	}
	switch s.Code() {
	case codes.Aborted:
		return engine.PauseAborted
	case codes.FailedPrecondition, codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.AlreadyExists,
		codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		return engine.PauseRefused
	default:
		return engine.PauseUnknown
	}
}

// reason is the ErrorInfo reason that a Scalar product gave, or "".
func reason(s *status.Status) string {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && strings.HasPrefix(info.GetDomain(), domainPrefix) {
			return info.GetReason()
		}
	}
	return ""
}

// rpcError is a gRPC error for people: the code as the protocol's documents spell it, the reason, the message, a hint.
type rpcError struct {
	err  error
	hint string
}

func (e *rpcError) Error() string {
	s := status.Convert(e.err)
	text := code.Code(s.Code()).String()
	if r := reason(s); r != "" {
		text += " (" + r + ")"
	}
	if s.Message() != "" {
		text += ": " + s.Message()
	}
	if e.hint != "" {
		text += "; " + e.hint
	}
	return text
}

// Unwrap keeps status.Code and status.FromError working.
func (e *rpcError) Unwrap() error { return e.err }

func explain(err error) error {
	e := &rpcError{err: err}
	if status.Code(err) == codes.Unimplemented {
		e.hint = wrongPort
	}
	return e
}
