// Package jmx is a client of JMX over RMI (the connector at service:jmx:rmi:///jndi/rmi://HOST:PORT/jmxrmi) without a JVM: it speaks JRMP and
// reads and writes Java's serialised objects itself. It knows nothing of the MBeans that it calls.
//
// A Client has one TCP connection, and the calls on it are made one after the other. A call whose deadline passes, or that is
// cancelled, goes on in the server, and its connection is spent (ErrConnectionSpent): nothing says any more which answer belongs to what. Whoever
// wants to go on connects anew and asks the server what became of the call.
//
// What a server sends is not trusted: an answer is at most 8 MiB and 2^20 values, nothing is allocated because a length says so, and no class of
// the server's is ever loaded, because there are none here.
package jmx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	// ConnectTimeout ends Connect when its context has no deadline.
	ConnectTimeout = 30 * time.Second
	// CallTimeout ends a call when its context has no deadline and Config.CallTimeout is not set.
	CallTimeout = 60 * time.Second
	// KeepAliveInterval lies between the calls that keep a connection alive. A server closes one that made no call for 120 s
	// (jmx.remote.x.server.connection.timeout).
	KeepAliveInterval = 40 * time.Second
	// CloseTimeout is how long Close waits for a call that is still under way, and for the server.
	CloseTimeout = 5 * time.Second
)

// Clock is where a Client takes time from. engine.Clock is one.
type Clock interface {
	// Sleep returns ctx's error when ctx ends first.
	Sleep(ctx context.Context, d time.Duration) error
	// WithTimeout is context.WithTimeout on this clock.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Config says how a JVM is reached. When it is printed, its password is left out.
type Config struct {
	// Host and Port are those of the RMI registry (com.sun.management.jmxremote.port). Both are required.
	Host string
	Port int
	// Username and Password are sent to the server. Both empty: no credentials.
	Username, Password string
	// Clock is required.
	Clock Clock
	// Dial opens every TCP connection; nil: a net.Dialer. That of an SSH client goes through a tunnel. It is called for the registry, and again when
	// the server itself is at another port, often one that was chosen at random.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is for connections with TLS. Its ServerName is the dialled host when it is empty. nil: a server that wants TLS is an error. Not nil: a server
	// that does not want TLS is one too, since else whoever stands in between could have the password sent in the clear.
	TLS *tls.Config
	// RegistryTLS says that the registry speaks TLS (com.sun.management.jmxremote.registry.ssl). The registry cannot say so itself; whether the
	// server behind it does is part of its answer.
	RegistryTLS bool
	// UseStubHost dials the host that the server gives as its own (java.rmi.server.hostname), which is often wrong seen from outside. false: Host, at
	// the port that the server gives.
	UseStubHost bool
	// CallTimeout ends a call when its context has no deadline; 0: the constant CallTimeout.
	CallTimeout time.Duration
	// KeepAlive is the interval of the calls that keep an idle connection alive; 0: KeepAliveInterval; negative: none are made.
	KeepAlive time.Duration
}

// Address is the registry's, "HOST:PORT".
func (c Config) Address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// Format implements fmt.Formatter: no verb prints the password.
func (c Config) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "jmx.Config("+c.Address()+")")
}

// Validate says what is wrong with the settings. Connect calls it.
func (c Config) Validate() error {
	switch {
	case c.Host == "":
		return errors.New("jmx: the host is missing")
	case c.Port < 1 || c.Port > 65535:
		return fmt.Errorf("jmx: port %d is not between 1 and 65535", c.Port)
	case c.Clock == nil:
		return errors.New("jmx: the clock is missing")
	case c.Username == "" && c.Password != "":
		return errors.New("jmx: a password without a username")
	case c.RegistryTLS && c.TLS == nil:
		return errors.New("jmx: a registry with TLS needs the TLS settings")
	case c.CallTimeout < 0:
		return errors.New("jmx: the timeout of a call is negative")
	}
	return nil
}

// Client is a JMX connection. It is safe for concurrent use; calls wait for one another.
//
// Every method but Close and Err makes one call, which ends at the latest with ctx or, when that has no deadline, after Config.CallTimeout. Errors:
//   - a *Throwable is what the server threw, and the connection is good for more, unless the error is ErrConnectionSpent as well;
//   - ErrAccess: the server threw a SecurityException, so this user may not do that;
//   - ErrConnectionSpent: no call will succeed on this Client any more;
//   - ErrOutcomeUnknown (always with ErrConnectionSpent): the call was sent, and nothing is known of its end.
//
// A call whose ctx ends while it waits for an earlier one was not sent and spends nothing.
type Client struct {
	address     string
	clock       Clock
	callTimeout time.Duration
	turn        chan struct{} // holds one token; who took it may use conn
	conn        *connection
	server      reference // the server's RMIConnection

	mu    sync.Mutex
	spent error

	stopKeepAlive context.CancelFunc
	keepAlive     sync.WaitGroup
	closing       sync.Once
	closeErr      error
}

// String is the registry's address.
func (c *Client) String() string { return "jmx " + c.address }

// GoString is String.
func (c *Client) GoString() string { return c.String() }

// Err returns why the connection is spent (it is ErrConnectionSpent), and nil when it is good as far as is known. It asks nobody.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spent
}

// ConnectionID is the server's name of this connection, such as "rmi://10.0.0.7 backup 3".
func (c *Client) ConnectionID(ctx context.Context) (string, error) {
	return c.text(ctx, call{what: "reading the connection's id", method: methodGetConnectionID})
}

// DefaultDomain is the default domain of the MBean server. It is the cheapest call that counts as activity.
func (c *Client) DefaultDomain(ctx context.Context) (string, error) {
	return c.text(ctx, defaultDomain())
}

// IsRegistered tells whether there is an MBean of that name.
func (c *Client) IsRegistered(ctx context.Context, objectName string) (bool, error) {
	call := call{what: "looking up " + objectName, method: methodIsRegistered, returns: returnsBool, args: []any{ObjectName(objectName), nil}}
	if err := checkObjectName(objectName); err != nil {
		return false, c.refused(call.what, err)
	}
	v, err := c.do(ctx, call)
	b, _ := v.(bool)
	return b, err
}

// QueryNames returns the names of the MBeans that match a pattern such as "java.lang:*", sorted. An empty pattern matches all.
func (c *Client) QueryNames(ctx context.Context, pattern string) ([]string, error) {
	call := call{what: "looking for MBeans " + pattern, method: methodQueryNames, args: []any{nil, nil, nil}}
	if pattern != "" {
		if err := checkObjectName(pattern); err != nil {
			return nil, c.refused(call.what, err)
		}
		call.args[0] = ObjectName(pattern)
	}
	v, err := c.do(ctx, call)
	if err != nil {
		return nil, err
	}
	names, err := Strings(v)
	if err != nil {
		return nil, c.refused(call.what, err)
	}
	return sorted(names), nil
}

// GetAttribute reads one attribute of an MBean. What the value can be is said at Value.
func (c *Client) GetAttribute(ctx context.Context, objectName, attribute string) (Value, error) {
	call := call{what: "reading " + attribute + " of " + objectName, method: methodGetAttribute, args: []any{ObjectName(objectName), attribute, nil}}
	if err := checkObjectName(objectName); err != nil {
		return nil, c.refused(call.what, err)
	}
	return c.do(ctx, call)
}

// GetAttributes reads several attributes in one call. Those that the MBean does not have, or that it failed to read, are missing in the result.
func (c *Client) GetAttributes(ctx context.Context, objectName string, attributes ...string) (map[string]Value, error) {
	call := call{what: "reading attributes of " + objectName, method: methodGetAttributes, args: []any{ObjectName(objectName), attributes, nil}}
	if err := checkObjectName(objectName); err != nil {
		return nil, c.refused(call.what, err)
	}
	v, err := c.do(ctx, call)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, c.refused(call.what, fmt.Errorf("the server answered with %T, not with a list of attributes", v))
	}
	result := make(map[string]Value, len(list))
	for _, v := range list {
		a, ok := v.(Attribute)
		if !ok {
			return nil, c.refused(call.what, fmt.Errorf("the server answered with %T among the attributes", v))
		}
		result[a.Name] = a.Value
	}
	return result, nil
}

// Invoke calls an operation of an MBean. signature holds the Java names of the parameters' types ("java.lang.String", "boolean",
// "[Ljava.lang.String;"); the server looks the operation up by them, so they have to match exactly. args may hold:
//
//	nil                null
//	string             java.lang.String
//	bool               java.lang.Boolean, also for the parameter type boolean
//	int32              java.lang.Integer or int
//	int64              java.lang.Long or long
//	float64            java.lang.Double or double
//	[]string           java.lang.String[]
//	map[string]string  java.util.HashMap
//	Set                java.util.HashSet of strings
//	List               java.util.ArrayList of strings
//	ObjectName         javax.management.ObjectName
//
// Anything else is an error, and nothing is sent. An operation without a result returns nil.
func (c *Client) Invoke(ctx context.Context, objectName, operation string, args []any, signature []string) (Value, error) {
	what := "invoking " + operation + " of " + objectName
	if err := checkObjectName(objectName); err != nil {
		return nil, c.refused(what, err)
	}
	if len(args) != len(signature) {
		return nil, c.refused(what, fmt.Errorf("%d arguments for a signature of %d", len(args), len(signature)))
	}
	if args == nil {
		args = []any{}
	}
	if signature == nil {
		signature = []string{}
	}
	marshalled, err := marshal(args)
	if err != nil {
		return nil, c.refused(what, err)
	}
	return c.do(ctx, call{what: what, method: methodInvoke, args: []any{ObjectName(objectName), operation, marshalled, signature, nil}})
}

// Close tells the server that the connection is over, and ends it. A call that is under way has CloseTimeout to end; then it is cut off. Where the server
// cannot be told, it finds out by itself after its idle timeout (120 s); that is not an error. Later calls fail with ErrConnectionSpent.
func (c *Client) Close() error {
	c.closing.Do(func() { c.closeErr = c.close() })
	return c.closeErr
}

// refused is an error that spends nothing.
func (c *Client) refused(what string, err error) error {
	return fmt.Errorf("jmx %s: %s: %w", c.address, what, err)
}

func (c *Client) text(ctx context.Context, call call) (string, error) {
	v, err := c.do(ctx, call)
	if err != nil {
		return "", err
	}
	s, ok := v.(string)
	if !ok {
		return "", c.refused(call.what, fmt.Errorf("the server answered with %T, not with a string", v))
	}
	return s, nil
}
