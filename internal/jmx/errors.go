package jmx

import (
	"errors"
	"slices"
	"strings"
)

var (
	// ErrConnectionSpent says that a Client makes no more calls: an answer did not come or made no sense, the server ended the connection, or Close
	// was called. Connect anew.
	ErrConnectionSpent = errors.New("the JMX connection is spent")
	// ErrOutcomeUnknown says that a call was sent and its answer did not arrive: the server may have carried it out, or may still be at it.
	ErrOutcomeUnknown = errors.New("the server may have carried out the call, or still be at it")
	// ErrAuthentication says that Connect was refused for its credentials, or for the lack of them.
	ErrAuthentication = errors.New("the JMX server refuses the credentials")
	// ErrAccess says that the user was let in but may not make this call.
	ErrAccess = errors.New("the JMX server does not let this user make the call")
	// ErrTLS says that server and settings do not agree on whether a connection has TLS. (Failed handshakes are errors of package crypto/tls.)
	ErrTLS = errors.New("the JMX server and the settings do not agree on TLS")
)

// Throwable is what the server threw, as an error.
type Throwable struct {
	Class   string     // such as "java.io.IOException"
	Supers  []string   // the classes that Class extends, nearest first
	Message string     // without control characters and cut off when it is long; may be empty
	Cause   *Throwable // may be nil
}

const (
	maxMessage = 4096 // of a Throwable's message that is kept, in bytes
	maxCauses  = 64   // that are kept
	maxTold    = 3    // causes that an error's text names
)

// Error is the class and the message of the root, like Java's toString, and of what caused that.
func (t *Throwable) Error() string {
	t = t.Root()
	text := t.text()
	for range maxTold {
		if t = t.Cause; t == nil {
			break
		}
		text += ", caused by " + t.text()
	}
	return text
}

func (t *Throwable) text() string {
	if t.Message == "" {
		return t.Class
	}
	return t.Class + ": " + t.Message
}

// Unwrap returns the cause.
func (t *Throwable) Unwrap() error {
	if t.Cause == nil {
		return nil // not an error that holds a nil pointer
	}
	return t.Cause
}

// IsA tells whether the class is of that name or extends it.
func (t *Throwable) IsA(class string) bool {
	return t.Class == class || slices.Contains(t.Supers, class)
}

// Root is what the operation itself threw: the first in the chain of causes that is none of the wrappers that JMX, RMI and reflection put around, and no
// RuntimeException that was made of its cause alone.
func (t *Throwable) Root() *Throwable {
	for t.Cause != nil {
		made := t.Class == "java.lang.RuntimeException" && (t.Message == "" || t.Message == t.Cause.text())
		if !made && !slices.Contains(wrappers, t.Class) {
			break
		}
		t = t.Cause
	}
	return t
}

// The classes that say nothing themselves. fromMBean are those that say that an MBean, not the server, threw what they hold.
var (
	fromMBean = []string{"javax.management.MBeanException", "javax.management.RuntimeMBeanException", "javax.management.RuntimeErrorException"}
	wrappers  = append([]string{
		"javax.management.ReflectionException", "javax.management.RuntimeOperationsException", "java.rmi.RemoteException", "java.rmi.ServerException", "java.rmi.ServerError",
		"java.lang.reflect.InvocationTargetException", "java.lang.reflect.UndeclaredThrowableException",
	}, fromMBean...)
)

// refuses tells whether the server itself (not an MBean) threw one of these classes.
func (t *Throwable) refuses(classes ...string) bool {
	for ; t != nil; t = t.Cause {
		if slices.Contains(fromMBean, t.Class) {
			return false
		}
		if slices.ContainsFunc(classes, t.IsA) {
			return true
		}
	}
	return false
}

// has tells whether the class is anywhere in the chain of causes.
func (t *Throwable) has(class string) bool {
	for ; t != nil; t = t.Cause {
		if t.IsA(class) {
			return true
		}
	}
	return false
}

// redact takes a secret out of all messages: a server may well repeat what it was sent.
func (t *Throwable) redact(secret string) {
	if secret == "" {
		return
	}
	for ; t != nil; t = t.Cause {
		t.Message = strings.ReplaceAll(t.Message, secret, "***")
	}
}
