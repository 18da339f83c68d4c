package rds

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Setting is one property that a restore loses and In, the input of ModifyDBInstance or ModifyDBCluster, sets again.
type Setting[In any] struct {
	Name    string
	Given   bool // by an argument: then it must come to be
	Differs bool
	Set     func(*In)
}

// NewSetting makes one.
func NewSetting[In any](name string, given, differs bool, set func(*In)) Setting[In] {
	return Setting[In]{Name: name, Given: given, Differs: differs, Set: set}
}

// PutBack sets what differs, with modify. What an argument asks for must come to be; what is only the source's setting is reported as lost when AWS refuses it.
func PutBack[In any](ctx context.Context, list []Setting[In], modify func(context.Context, []Setting[In]) error, lost func(name string, err error)) error {
	var given, inherited []Setting[In]
	for _, s := range list {
		switch {
		case !s.Differs:
		case s.Given:
			given = append(given, s)
		default:
			inherited = append(inherited, s)
		}
	}
	for _, some := range [][]Setting[In]{given, inherited} {
		if len(some) == 0 {
			continue
		}
		err := modify(ctx, some)
		if err == nil {
			continue
		}
		if some[0].Given || !Refused(err) {
			return err
		}
		// Which one was it? The others need not suffer.
		for _, s := range some {
			if err := modify(ctx, []Setting[In]{s}); Refused(err) {
				lost(s.Name, err)
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// Differing are the names of what differs.
func Differing[In any](list []Setting[In]) (names []string) {
	for _, s := range list {
		if s.Differs {
			names = append(names, s.Name)
		}
	}
	return names
}

// FlagDiffers compares two flags; nil as wanted is content with anything.
func FlagDiffers(want, got *bool) bool { return want != nil && aws.ToBool(want) != aws.ToBool(got) }

// SameSet compares lists whose order says nothing.
func SameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// Without are the elements of a that b has not.
func Without(a, b []string) (out []string) {
	for _, v := range a {
		if !slices.Contains(b, v) {
			out = append(out, v)
		}
	}
	return out
}

// Text is a string for the SDK: nil when it is empty.
func Text(s string) *string {
	if s == "" {
		return nil
	}
	return aws.String(s)
}

// Positive is Text for numbers.
func Positive(n int32) *int32 {
	if n == 0 {
		return nil
	}
	return aws.Int32(n)
}
