package provider

import (
	"context"
	"errors"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine"
)

// summaries are the static first lines of errors, one per phase, to be searched for.
var summaries = map[engine.Phase]string{
	engine.PhaseResolve:   "Targets could not be resolved",
	engine.PhasePreflight: "Preflight check failed",
	engine.PhaseArm:       "Watchdog could not be armed",
	engine.PhasePause:     "Pausing failed",
	engine.PhaseCapture:   "Capture failed",
	engine.PhaseConfirm:   "Pause window does not count",
	engine.PhaseUnpause:   "Targets may still be paused",
	engine.PhaseAwait:     "Capture did not become restorable",
	engine.PhaseRecord:    "Backup could not be recorded",
	engine.PhaseRestore:   "Restore failed",
	engine.PhaseVerify:    "Verification failed",
	engine.PhaseDelete:    "Deleting failed",
}

// next says what to do about a failure of a phase.
var next = map[engine.Phase]string{
	engine.PhaseResolve:   "Correct pause.targets, or the network between here and the targets, and apply again.",
	engine.PhasePreflight: "Put right what this says, and apply again.",
	engine.PhaseArm:       "Apply again. The watchdog is this provider's own program, started as a second process that must reach every target by itself.",
	engine.PhasePause:     "Apply again, in a quieter moment or with a longer drain_timeout if transactions did not end in time.",
	engine.PhaseCapture:   "Put right what this says, and apply again: a new attempt takes a new window.",
	engine.PhaseConfirm:   "Apply again: a new attempt takes a new window.",
	engine.PhaseAwait:     "Put right what this says, and apply again: a new attempt takes a new window.",
	engine.PhaseRecord:    "Put right what this says, and apply again.",
	engine.PhaseRestore:   "Apply again: what this attempt made is deleted first, what existed before is left as it is.",
	engine.PhaseVerify:    "The endpoints of the restored storages are not handed out. If the data is as it should be, look at the verify arguments; else restore another backup.",
	engine.PhaseDelete:    "Apply again; what is gone already is no error.",
}

// subject is what a diagnostic needs to know about the run.
type subject struct {
	storages map[string]bool // whose names are keys of `storages`
	targets  bool            // the run pauses targets
}

// diagnose translates an engine's error: one diagnostic per failure, in the engine's order (the outage first).
func diagnose(err error, s subject) (diags diag.Diagnostics) {
	failures := flatten(err)
	stillPaused := false
	for _, f := range failures {
		stillPaused = stillPaused || f.Phase == engine.PhaseUnpause
	}
	for _, f := range failures {
		summary, known := summaries[f.Phase]
		if !known {
			summary = "Run failed"
		}
		detail := ""
		if f.Phase != "" {
			detail = "Phase: " + string(f.Phase) + ". "
		}
		if f.Subject != "" {
			detail += "On: " + f.Subject + ". "
		}
		detail += f.Err.Error() + "."
		if errors.Is(f.Err, context.Canceled) {
			detail += " The run was cancelled."
		}
		if p := pauseState(f.Phase, stillPaused, s); p != "" {
			detail += "\n\n" + p
		}
		if n := next[f.Phase]; n != "" {
			detail += "\n\n" + n
		}
		if f.Subject != "" && s.storages[f.Subject] {
			diags.AddAttributeError(path.Root("storages").AtMapKey(f.Subject), summary, detail)
			continue
		}
		diags.AddError(summary, detail)
	}
	return diags
}

// pauseState says whether anything is still paused.
func pauseState(p engine.Phase, stillPaused bool, s subject) string {
	switch {
	case !s.targets:
		return ""
	case stillPaused && p == engine.PhaseUnpause:
		return "The watchdog goes on trying to unpause them; the command line above does it by hand, without Terraform."
	case stillPaused:
		return "Targets may still be paused: see the error \"" + summaries[engine.PhaseUnpause] + "\"."
	}
	switch p {
	case engine.PhaseResolve, engine.PhasePreflight, engine.PhaseArm:
		return "Nothing was paused, nothing was touched."
	case engine.PhasePause, engine.PhaseCapture, engine.PhaseConfirm:
		return "Every target that a pause was sent to is unpaused again. What was captured was discarded."
	case engine.PhaseAwait, engine.PhaseRecord:
		return "No target is paused any more."
	}
	return ""
}

// flatten lists the engine's errors in a tree of joined ones, in order. What is none of them comes as one without a phase.
func flatten(err error) []*engine.Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*engine.Error); ok { //nolint:errorlint // the tree is walked by hand
		return []*engine.Error{e}
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*engine.Error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	var e *engine.Error
	if errors.As(err, &e) {
		return []*engine.Error{{Phase: e.Phase, Subject: e.Subject, Err: err}}
	}
	return []*engine.Error{{Err: err}}
}
