package jmx

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// method is a remote method: its number, or the hash of its name and descriptor when that is -1.
type method struct {
	operation int32
	hash      int64
}

// The methods of java.rmi.registry.Registry, javax.management.remote.rmi.RMIServer and RMIConnection. A test computes the hashes.
var (
	methodLookup = method{2, 4905912898345647071} // of the registry's own, older numbering

	methodNewClient        = method{-1, -1089742558549201240}
	methodInvoke           = method{-1, 1434350937885235744}
	methodGetAttribute     = method{-1, -1089783104982388203}
	methodGetAttributes    = method{-1, 6285293806596348999}
	methodIsRegistered     = method{-1, 8325683335228268564}
	methodQueryNames       = method{-1, 9152567528369059802}
	methodGetDefaultDomain = method{-1, 6047668923998658472}
	methodGetConnectionID  = method{-1, -67907180346059933}
	methodClose            = method{-1, -4742752445160157748}
)

// call is one call of a method, with what to say about it in errors.
type call struct {
	what    string
	method  method
	args    []any
	returns int
}

func defaultDomain() call {
	return call{what: "asking for the default domain", method: methodGetDefaultDomain, args: []any{nil}}
}

// Connect looks the server up in the registry, signs on, and starts to keep the connection alive. It ends at the latest with ctx or, when that has no deadline,
// after ConnectTimeout; the Client outlives ctx. Errors: ErrAuthentication, ErrTLS, those of crypto/tls and net, a *Throwable.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = cfg.Clock.WithTimeout(ctx, ConnectTimeout)
		defer cancel()
	}
	c := &Client{address: cfg.Address(), clock: cfg.Clock, callTimeout: cfg.CallTimeout, turn: make(chan struct{}, 1)}
	if c.callTimeout == 0 {
		c.callTimeout = CallTimeout
	}
	if err := c.signOn(ctx, cfg); err != nil {
		return nil, fmt.Errorf("jmx %s: %w", c.address, err)
	}
	c.turn <- struct{}{}
	c.startKeepAlive(cfg.KeepAlive)
	return c, nil
}

// signOn goes from the registry to the server and from there to the connection. Each may be at another endpoint; where it is the same, so is the TCP connection.
func (c *Client) signOn(ctx context.Context, cfg Config) (err error) {
	registry := endpoint{cfg.Host, cfg.Port, cfg.RegistryTLS}
	conn, err := cfg.dial(ctx, registry)
	if err != nil {
		return fmt.Errorf("the registry: %w", err)
	}
	defer func() {
		if err != nil {
			conn.close()
		}
	}()
	server, err := conn.remote(ctx, objectID{}, call{method: methodLookup, args: []any{"jmxrmi"}})
	if err != nil {
		if t := (*Throwable)(nil); errors.As(err, &t) && t.has("java.rmi.NotBoundException") {
			return fmt.Errorf("the registry knows no JMX server (jmxrmi): %w", err)
		}
		return fmt.Errorf("the registry: looking up jmxrmi: %w", err)
	}
	if conn, err = cfg.follow(ctx, conn, server); err != nil {
		return err
	}
	var credentials any
	if cfg.Username != "" {
		credentials = []string{cfg.Username, cfg.Password}
	}
	signedOn, err := conn.remote(ctx, server.id, call{method: methodNewClient, args: []any{credentials}})
	if err != nil {
		return fmt.Errorf("the server at %s: signing on: %w", conn.to.address(), authentication(err, cfg.Password))
	}
	if conn, err = cfg.follow(ctx, conn, signedOn); err != nil {
		return err
	}
	c.conn, c.server = conn, signedOn
	if conn.cut.Load() { // ctx ended just then
		return ctx.Err()
	}
	return nil
}

// remote makes a call that returns a remote object.
func (c *connection) remote(ctx context.Context, id objectID, call call) (reference, error) {
	b, err := request(id, call.method, call.args)
	if err != nil {
		return reference{}, err
	}
	a, _, err := c.call(ctx, b, returnsObject)
	if err == nil && a.thrown != nil {
		err = a.thrown
	}
	if err != nil {
		return reference{}, err
	}
	return referenceOf(a.value)
}

// follow returns a connection to where a reference leads: the one that there is when it leads there. On an error it leaves conn to its caller.
func (c Config) follow(ctx context.Context, conn *connection, r reference) (*connection, error) {
	to := endpoint{c.Host, r.port, r.tls}
	if c.UseStubHost {
		to.host = r.host
	}
	switch {
	case r.tls && c.TLS == nil:
		return conn, fmt.Errorf("the server at %s wants TLS, and there are no TLS settings: %w", to.address(), ErrTLS)
	case !r.tls && c.TLS != nil:
		return conn, fmt.Errorf("the server at %s wants no TLS, and there are TLS settings, which it must not get around: %w", to.address(), ErrTLS)
	case to == conn.to:
		return conn, nil
	}
	next, err := c.dial(ctx, to)
	if err != nil {
		return conn, fmt.Errorf("the server at %s, where the registry at %s says that it is: %w", to.address(), c.Address(), err)
	}
	conn.close()
	return next, nil
}

// authentication tells a refusal of the credentials from other errors, and takes the password out of what the server says.
func authentication(err error, password string) error {
	var t *Throwable
	if !errors.As(err, &t) {
		return err
	}
	t.redact(password)
	if t.refuses("java.lang.SecurityException", "javax.security.auth.login.LoginException") || strings.HasPrefix(t.Root().Class, "javax.security.") {
		return fmt.Errorf("%w: %w", ErrAuthentication, err)
	}
	return err
}
