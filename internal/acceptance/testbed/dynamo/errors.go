package dynamo

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// apiError is an error as a service answers it.
type apiError struct {
	status  int
	kind    string
	message string
}

func (e *apiError) Error() string { return e.kind + ": " + e.message }

func apiErrorf(kind, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, kind, fmt.Sprintf(format, args...)}
}

func invalidf(format string, args ...any) *apiError {
	return apiErrorf("ValidationException", format, args...)
}

// rawError is an error of DynamoDB Local, which is passed on as it is: some have more members than a message.
type rawError struct {
	apiError
	text []byte
}

func (e *apiError) body(prefix string) []byte {
	switch e.kind {
	case "ValidationException":
		prefix = "com.amazon.coral.validate#"
	case "ThrottlingException":
		prefix = "com.amazon.coral.availability#"
	case "UnknownOperationException", "SerializationException", "UnrecognizedClientException", "MissingAuthenticationTokenException",
		"IncompleteSignatureException", "InvalidSignatureException", "AccessDeniedException":
		prefix = "com.amazon.coral.service#"
	}
	b, err := json.Marshal(map[string]string{"__type": prefix + e.kind, "message": e.message})
	if err != nil {
		panic(err) // never: strings
	}
	return b
}

type answered interface {
	error
	body(prefix string) []byte
}

func (e *rawError) body(string) []byte { return e.text }

type reply struct {
	answered
	status int
	kind   string
}

// asAPIError is what is answered for an error. What is no error of the API is one of the stand-in, and fails the test.
func (s *Service) asAPIError(err error, a api) reply {
	var raw *rawError
	if errors.As(err, &raw) {
		return reply{raw, raw.status, raw.kind}
	}
	var e *apiError
	if errors.As(err, &e) {
		return reply{e, e.status, e.kind}
	}
	s.broken(err)
	e = &apiError{http.StatusInternalServerError, a.internal, err.Error()}
	return reply{e, e.status, e.kind}
}

// broken reports a failure of the stand-in itself.
func (s *Service) broken(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping { // after the test, its calls fail, and it cannot be told
		s.t.Errorf("the DynamoDB stand-in failed: %v", err)
	}
}
