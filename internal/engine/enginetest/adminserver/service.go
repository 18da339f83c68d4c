package adminserver

import (
	"context"
	"path"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/admin/adminpb"
)

// Behaviour is a generation of servers.
type Behaviour int

const (
	// Classic is what a Scalar DB server of 3.13 was seen to do, and what all servers before mid-2026 do. A Pause that cannot drain in
	// time reopens the gate, also if an earlier Pause had closed it; an Unpause during a drain is not noticed, and the Pause answers
	// OK once nothing is in flight; a wait of 0 is the default, a negative one none.
	Classic Behaviour = iota
	// Modern is what ScalarDB Cluster does from 3.19 and ScalarDL from 3.14 on: Pauses that wait take turns; ABORTED when another call won,
	// FAILED_PRECONDITION when time ran out, both with an ErrorInfo that tells the outcome; a wait that is not positive is INVALID_ARGUMENT.
	Modern
)

// Domain is the domain of a Modern server's ErrorInfo.
const Domain = "com.scalar.db.cluster.admin"

// service is the API over one gate. As in a real server, no call looks at its context, which ends when the client gives up.
type service struct {
	adminpb.UnimplementedAdminServer
	gate        *gate
	behaviour   Behaviour
	defaultWait time.Duration
}

func method(full string) Method { return Method(path.Base(full)) }

// nothingDone is the answer of a server that says it did what it did not do.
func nothingDone(m Method) any {
	if m == CheckPaused {
		return &adminpb.CheckPausedResponse{}
	}
	return &emptypb.Empty{}
}

// Pause implements both generations.
func (s *service) Pause(_ context.Context, r *adminpb.PauseRequest) (*emptypb.Empty, error) {
	if s.behaviour == Modern {
		return s.pauseModern(r)
	}
	if !r.GetWaitOutstanding() {
		s.gate.close()
		return &emptypb.Empty{}, nil
	}
	wait := s.defaultWait
	if r.GetMaxPauseWaitTime() != 0 {
		wait = time.Duration(r.GetMaxPauseWaitTime()) * time.Millisecond
	}
	if !s.gate.closeAndDrain(wait) {
		return nil, status.Error(codes.FailedPrecondition, "")
	}
	return &emptypb.Empty{}, nil
}

func (s *service) pauseModern(r *adminpb.PauseRequest) (*emptypb.Empty, error) {
	var result outcome
	if !r.GetWaitOutstanding() {
		result = s.gate.tryClose()
	} else {
		wait := s.defaultWait
		if r.MaxPauseWaitTime != nil {
			if r.GetMaxPauseWaitTime() <= 0 {
				return nil, status.Errorf(codes.InvalidArgument, "max_pause_wait_time is %d ms, it must be positive", r.GetMaxPauseWaitTime())
			}
			wait = time.Duration(r.GetMaxPauseWaitTime()) * time.Millisecond
		}
		result = s.gate.pauseInTurn(wait)
	}
	code := codes.Aborted
	switch result {
	case paused:
		return &emptypb.Empty{}, nil
	case timedOut, timedOutStillPaused:
		code = codes.FailedPrecondition
	}
	st, err := status.New(code, "the pause did not complete").WithDetails(&errdetails.ErrorInfo{Reason: string(result), Domain: Domain})
	if err != nil {
		return nil, err
	}
	return nil, st.Err()
}

// Unpause opens the gate, whoever closed it.
func (s *service) Unpause(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	s.gate.reopen(openedByUnpause)
	return &emptypb.Empty{}, nil
}

// CheckPaused says whether the gate is closed, also while it drains.
func (s *service) CheckPaused(context.Context, *emptypb.Empty) (*adminpb.CheckPausedResponse, error) {
	return &adminpb.CheckPausedResponse{Paused: s.gate.closed()}, nil
}
