package jmx

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const bean = "test:type=Service"

func TestMethodHashes(t *testing.T) {
	const name, subject, marshalled = "Ljavax/management/ObjectName;", "Ljavax/security/auth/Subject;", "Ljava/rmi/MarshalledObject;"
	for m, descriptor := range map[method]string{
		methodNewClient:        "newClient(Ljava/lang/Object;)Ljavax/management/remote/rmi/RMIConnection;",
		methodInvoke:           "invoke(" + name + "Ljava/lang/String;" + marshalled + "[Ljava/lang/String;" + subject + ")Ljava/lang/Object;",
		methodGetAttribute:     "getAttribute(" + name + "Ljava/lang/String;" + subject + ")Ljava/lang/Object;",
		methodGetAttributes:    "getAttributes(" + name + "[Ljava/lang/String;" + subject + ")Ljavax/management/AttributeList;",
		methodIsRegistered:     "isRegistered(" + name + subject + ")Z",
		methodQueryNames:       "queryNames(" + name + marshalled + subject + ")Ljava/util/Set;",
		methodGetDefaultDomain: "getDefaultDomain(" + subject + ")Ljava/lang/String;",
		methodGetConnectionID:  "getConnectionId()Ljava/lang/String;",
		methodClose:            "close()V",
	} {
		w := writer{}
		w.utf(descriptor)
		sum := sha1.Sum(w.b)
		if got := int64(binary.LittleEndian.Uint64(sum[:])); got != m.hash || m.operation != -1 {
			t.Errorf("%s has the hash %d, not %d", descriptor, got, m.hash)
		}
	}
}

func TestCalls(t *testing.T) {
	ctx := t.Context()
	var got []any
	s := &fakeServer{t: t, answer: func(name string, args []any) []byte {
		if name == "invoke" {
			got = args
		}
		return nil
	}}
	c := s.connect()
	if v, err := c.GetAttribute(ctx, bean, "Version"); v != "getAttribute" || err != nil {
		t.Error(v, err)
	}
	if v, err := c.ConnectionID(ctx); v != "getConnectionId" || err != nil {
		t.Error(v, err)
	}
	if v, err := c.IsRegistered(ctx, bean); !v || err != nil {
		t.Error(v, err)
	}
	if v, err := c.QueryNames(ctx, "test:*"); err == nil || c.Err() != nil { // this one answers with a string
		t.Error(v, err)
	}
	if v, err := c.Invoke(ctx, bean, "nothing", []any{"a", nil}, []string{"java.lang.String", "java.util.Map"}); v != "invoke" || err != nil {
		t.Error(v, err)
	}
	if len(got) != 5 || got[0] != ObjectName(bean) || got[1] != "nothing" || fmt.Sprint(got[3]) != "[java.lang.String java.util.Map]" || got[4] != nil {
		t.Errorf("invoke was called with %v", got)
	}
	sent, _ := got[2].(*Object)
	if b, ok := sent.Fields["objBytes"].([]byte); !ok {
		t.Errorf("%#v", sent)
	} else if v, err := readStream(b, answerLimits); fmt.Sprint(v) != "[a <nil>]" || err != nil {
		t.Error(v, err)
	}
	for _, bad := range []struct {
		args      []any
		signature []string
	}{{[]any{1}, []string{"int"}}, {[]any{"a"}, nil}, {nil, []string{"int"}}} {
		if v, err := c.Invoke(ctx, bean, "nothing", bad.args, bad.signature); err == nil || c.Err() != nil {
			t.Error(v, err)
		}
	}
}

func TestStubs(t *testing.T) {
	factory := func(class string) func(*writer) {
		return func(w *writer) { w.object(&javaClass{name: class, suid: 1, flags: flagSerializable}) }
	}
	proxy := func() []byte {
		handler := &javaClass{name: "java.rmi.server.RemoteObjectInvocationHandler", suid: 2, flags: flagSerializable, super: classRemoteObject}
		w := writer{rmi: true}
		w.b = append(w.b, tcObject, tcProxyClassDesc, 0, 0, 0, 1)
		w.utf("javax.management.remote.rmi.RMIServer")
		w.b = append(w.b, tcNull, tcEndBlockData)
		w.handles++
		w.class(&javaClass{"java.lang.reflect.Proxy", 0xE127DA20CC1043CB, flagSerializable, []javaField{{"h", "Ljava/lang/reflect/InvocationHandler;"}}, nil})
		w.handles++
		w.object(handler)
		unicastRef("192.0.2.77", 4000, connID)(&w)
		w.u8(tcEndBlockData)
		return w.b
	}
	stub := func(ref func(*writer)) func() []byte {
		return func() []byte {
			w := writer{rmi: true}
			w.stub(ref)
			return w.b
		}
	}
	const addr = "192.0.2.77"
	for name, k := range map[string]struct {
		stub func() []byte
		want reference
		err  string
	}{
		"UnicastRef":           {stub: stub(unicastRef(addr, 4000, connID)), want: reference{addr, 4000, false, connID}},
		"UnicastRef2":          {stub: stub(unicastRef2(addr, 4000, connID, nil)), want: reference{addr, 4000, false, connID}},
		"UnicastRef2 with TLS": {stub: stub(unicastRef2(addr, 4000, connID, factory(tlsSocketFactory))), want: reference{addr, 4000, true, connID}},
		"null as a factory":    {stub: stub(unicastRef2(addr, 4000, connID, func(w *writer) { w.u8(tcNull) })), want: reference{addr, 4000, false, connID}},
		"a proxy":              {stub: proxy, want: reference{addr, 4000, false, connID}},
		"another factory":      {stub: stub(unicastRef2(addr, 4000, connID, factory("evil.Factory"))), err: "evil.Factory"},
		"a string as factory":  {stub: stub(unicastRef2(addr, 4000, connID, func(w *writer) { w.string("x") })), err: "no object"},
		"port 0":               {stub: stub(unicastRef(addr, 0, connID)), err: "port 0"},
		"port 65536":           {stub: stub(unicastRef(addr, 65536, connID)), err: "port 65536"},
		"port -1":              {stub: stub(unicastRef(addr, -1, connID)), err: "ends early"},
		"too short":            {stub: stub(func(w *writer) { w.block([]byte("\x00\x0aUnicastRef")) }), err: "ends early"},
		"nothing":              {stub: stub(func(*writer) {}), err: "no remote object"},
		"another kind":         {stub: stub(func(w *writer) { w.block([]byte("\x00\x01X")) }), err: `kind "X"`},
		"another format":       {stub: stub(func(w *writer) { w.block([]byte("\x00\x0bUnicastRef2\x02\x00\x01a\x00\x00\x00\x01")) }), err: "format 2"},
		"null":                 {stub: func() []byte { return []byte{tcNull} }, err: "no remote object"},
		"a string":             {stub: func() []byte { return []byte{tcString, 0, 1, 'a'} }, err: "no remote object"},
		"another object":       {stub: func() []byte { w := writer{rmi: true}; factory("x.Y")(&w); return w.b }, err: `"x.Y"`},
	} {
		answer, _, err := readAnswer(reading(returns(nil, func(w *writer) { w.b = append(w.b, k.stub()...) })), answerLimits, returnsObject)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := referenceOf(answer.value)
		if k.err != "" {
			if err == nil || !strings.Contains(err.Error(), k.err) {
				t.Errorf("%s: %v", name, err)
			}
			// The same through Connect, which has to close what it opened.
			s := &fakeServer{t: t, stub: k.stub, answer: func(string, []any) []byte { return returns(nil, func(w *writer) { w.b = append(w.b, k.stub()...) }) }}
			if _, err := Connect(t.Context(), s.config()); err == nil {
				t.Errorf("%s: connected", name)
			}
			continue
		}
		if err != nil || got != k.want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

// The answer to newClient may again be at another port: only what is at the same endpoint goes over the same connection.
func TestWhereIsDialled(t *testing.T) {
	for _, k := range []struct {
		port        int
		useStubHost bool
		want        string
	}{
		{0, false, "[fake:7199]"},
		{4000, false, "[fake:7199 fake:4000]"},
		{4000, true, "[fake:7199 192.0.2.77:4000]"},
		{0, true, "[fake:7199 192.0.2.77:7199]"},
	} {
		s := &fakeServer{t: t, port: k.port}
		cfg := s.config()
		cfg.UseStubHost = k.useStubHost
		c, err := Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if fmt.Sprint(s.connections()) != k.want {
			t.Errorf("%+v: dialled %v", k, s.connections())
		}
		if want := []string{"lookup", "newClient", "close"}; !slices.Equal(s.made(), want) {
			t.Errorf("%v", s.made())
		}
	}
}

func TestTLSIsAgreedOn(t *testing.T) {
	ref := unicastRef2("fake", fakePort, serverID, func(w *writer) { w.object(&javaClass{name: tlsSocketFactory, suid: 1, flags: flagSerializable}) })
	s := &fakeServer{t: t, user: []any{"u", "secret"}, stub: func() []byte { w := writer{rmi: true}; w.stub(ref); return w.b }}
	if _, err := Connect(t.Context(), s.config()); !errors.Is(err, ErrTLS) {
		t.Error("the server wants TLS:", err)
	}
	s.stub = nil
	cfg := s.config()
	cfg.TLS, cfg.Username, cfg.Password = &tls.Config{MinVersion: tls.VersionTLS12}, "u", "secret"
	if _, err := Connect(t.Context(), cfg); !errors.Is(err, ErrTLS) {
		t.Error("the server gets around TLS:", err)
	}
	if slices.Contains(s.made(), "newClient") {
		t.Error("the password was sent in the clear")
	}
}

func TestAuthentication(t *testing.T) {
	security := javaException("java.lang.SecurityException", "java.lang.RuntimeException", "java.lang.Exception")
	inner := func(w *writer) { w.throwable(security, "Authentication failed for u with s3cret", nil) }
	for name, k := range map[string]struct {
		answer []byte
		want   bool
	}{
		"SecurityException": {throws(security, "Authentication failed! s3cret", nil), true},
		"wrapped":           {throws(javaException("java.lang.RuntimeException", "java.lang.Exception"), "java.lang.SecurityException: s3cret", inner), true},
		"login":             {throws(javaException("javax.security.auth.login.FailedLoginException", "javax.security.auth.login.LoginException"), "s3cret", nil), true},
		"something else":    {throws(javaException("java.lang.IllegalStateException"), "s3cret", nil), false},
	} {
		s := &fakeServer{t: t, answer: func(name string, args []any) []byte {
			if name == "newClient" {
				if fmt.Sprint(args) != "[[u s3cret]]" {
					t.Error(args)
				}
				return k.answer
			}
			return nil
		}}
		cfg := s.config()
		cfg.Username, cfg.Password = "u", "s3cret"
		_, err := Connect(t.Context(), cfg)
		var thrown *Throwable
		if errors.Is(err, ErrAuthentication) != k.want || !errors.As(err, &thrown) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", err, thrown), "s3cret") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
}

func TestNotBound(t *testing.T) {
	s := &fakeServer{t: t, answer: func(string, []any) []byte { return throws(javaException("java.rmi.NotBoundException"), "jmxrmi", nil) }}
	if _, err := Connect(t.Context(), s.config()); err == nil || !strings.Contains(err.Error(), "knows no JMX server") {
		t.Error(err)
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	s := &fakeServer{t: t, user: []any{"u", "s3cret"}}
	cfg := s.config()
	cfg.Username, cfg.Password = "u", "s3cret"
	c, err := Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, v := range []any{cfg, &cfg, c, struct{ C Config }{cfg}} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, "s3cret") || strings.Contains(s, fmt.Sprintf("%x", "s3cret")) {
				t.Errorf("%s of %T: %s", verb, v, s)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	good := (&fakeServer{t: t}).config()
	for name, change := range map[string]func(*Config){
		"host": func(c *Config) { c.Host = "" }, "port 0": func(c *Config) { c.Port = 0 }, "port 65536": func(c *Config) { c.Port = 65536 }, "clock": func(c *Config) { c.Clock = nil },
		"username": func(c *Config) { c.Password = "s3cret" }, "registry": func(c *Config) { c.RegistryTLS = true }, "timeout": func(c *Config) { c.CallTimeout = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := Connect(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGreeting(t *testing.T) {
	for name, k := range map[string]struct {
		greeting, want string
		is             error
	}{
		"TLS":      {greeting: "\x15\x03\x03\x00\x02\x02\x50", want: "wants TLS", is: ErrTLS},
		"refused":  {greeting: "O", want: "does not support"},
		"HTTP":     {greeting: "HTTP/1.1 400 Bad Request\r\n\r\n", want: "no RMI server"},
		"nothing":  {greeting: "", want: "did not greet"},
		"half":     {greeting: "N\x00\x09127", want: "greeting"},
		"no port":  {greeting: "N\x00\x01a\x00\x00", want: "greeting"},
		"too long": {greeting: "N\xff\xff" + strings.Repeat("a", 70000), want: "too long"},
		"not UTF":  {greeting: "N\x00\x01\xff\x00\x00\x00\x00", want: "UTF-8"},
	} {
		s := &fakeServer{t: t, greeting: []byte(k.greeting)}
		_, err := Connect(t.Context(), s.config())
		if err == nil || !strings.Contains(err.Error(), k.want) || k.is != nil && !errors.Is(err, k.is) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAccess(t *testing.T) {
	security := javaException("java.lang.SecurityException", "java.lang.RuntimeException", "java.lang.Exception")
	subclass := javaException("java.security.AccessControlException", "java.lang.SecurityException", "java.lang.RuntimeException")
	own := javaException("javax.management.RuntimeMBeanException", "javax.management.JMRuntimeException")
	for name, k := range map[string]struct {
		answer []byte
		want   bool
	}{
		"the server":   {throws(security, "Access denied!", nil), true},
		"a subclass":   {throws(subclass, "access denied", nil), true},
		"the MBean":    {throws(own, "", func(w *writer) { w.throwable(security, "its own", nil) }), false},
		"another":      {throws(javaException("javax.management.InstanceNotFoundException"), "a:b=c", nil), false},
		"two in turns": {throws(security, "a", func(w *writer) { w.throwable(own, "b", func(w *writer) { w.u8(tcReference); w.i32(baseHandle) }) }), true},
	} {
		s := &fakeServer{t: t, answer: func(name string, _ []any) []byte {
			if name == "getAttribute" {
				return k.answer
			}
			return nil
		}}
		c := s.connect()
		_, err := c.GetAttribute(t.Context(), bean, "Version")
		if name == "two in turns" { // a reference that is not to an exception
			if err == nil {
				t.Error("no error")
			}
			continue
		}
		var thrown *Throwable
		if !errors.As(err, &thrown) || errors.Is(err, ErrAccess) != k.want || errors.Is(err, ErrConnectionSpent) {
			t.Errorf("%s: %v", name, err)
		}
		if v, err := c.DefaultDomain(t.Context()); v != "getDefaultDomain" || err != nil {
			t.Errorf("%s: and then %v %v", name, v, err)
		}
	}
}

// A server ends a connection that makes no calls for 120 s.
func TestKeepAlive(t *testing.T) {
	for _, k := range []struct {
		interval time.Duration
		alive    bool
	}{{0, true}, {-1, false}} {
		synctest.Test(t, func(t *testing.T) {
			s := &fakeServer{t: t, idle: 120 * time.Second}
			cfg := s.config()
			cfg.KeepAlive = k.interval
			c, err := Connect(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10*time.Minute + time.Second)
			_, err = c.GetAttribute(t.Context(), bean, "Version")
			if k.alive && err != nil {
				t.Error(err)
			}
			if !k.alive && (!errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown)) {
				t.Error("without keep-alive:", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if n := len(s.made()); k.alive && n != 3+15+1 { // lookup, newClient, getAttribute, one every 40 s, close
				t.Errorf("%d calls: %v", n, s.made())
			}
		})
	}
}

// The keep-alive finds out that the server is gone, and ends.
func TestKeepAliveNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		s := &fakeServer{t: t, answer: func(name string, _ []any) []byte {
			if gone.Load() && name == "getDefaultDomain" {
				return []byte{0xff}
			}
			return nil
		}}
		cfg := s.config()
		cfg.KeepAlive = 0
		c, err := Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		gone.Store(true)
		time.Sleep(time.Hour)
		if err := c.Err(); !errors.Is(err, ErrConnectionSpent) {
			t.Error(err)
		}
		if n := len(s.made()); n != 3 {
			t.Errorf("%d calls: %v", n, s.made())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// hanging never answers invoke, until release is closed.
func hanging(t *testing.T) (s *fakeServer, release chan struct{}) {
	release = make(chan struct{})
	return &fakeServer{t: t, answer: func(name string, _ []any) []byte {
		if name == "invoke" {
			<-release
		}
		return nil
	}}, release
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, release := hanging(t)
		defer close(release)
		for _, k := range []struct {
			set  time.Duration
			ctx  time.Duration
			want time.Duration
		}{{0, 0, CallTimeout}, {time.Second, 0, time.Second}, {time.Second, time.Minute, time.Minute}, {0, time.Hour, time.Hour}} {
			cfg := s.config()
			cfg.CallTimeout = k.set
			c, err := Connect(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := t.Context(), func() {}
			if k.ctx != 0 {
				ctx, cancel = context.WithTimeout(ctx, k.ctx)
			}
			start := time.Now()
			_, err = c.Invoke(ctx, bean, "snapshot", nil, nil)
			if took := time.Since(start); took != k.want {
				t.Errorf("%+v: took %s", k, took)
			}
			if !errors.Is(err, ErrConnectionSpent) || !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
			// And no other call goes out on that connection, where it could get the first one's answer.
			n := len(s.made())
			if _, err := c.DefaultDomain(t.Context()); !errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) || len(s.made()) != n {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// Who waits for an earlier call and gives up has not sent anything.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, release := hanging(t)
		c := s.connect()
		first := make(chan error, 1)
		go func() {
			_, err := c.Invoke(t.Context(), bean, "snapshot", nil, nil)
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 { // the second time it has ended before
			_, err := c.DefaultDomain(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) {
				t.Error(err)
			}
		}
		close(release)
		if err := <-first; err != nil {
			t.Error("the earlier call:", err)
		}
		if _, err := c.DefaultDomain(t.Context()); err != nil {
			t.Error(err)
		}
		if slices.Contains(s.made()[:3], "getDefaultDomain") {
			t.Error(s.made())
		}
		_ = c.Close()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, release := hanging(t)
		defer close(release)
		c := s.connect()
		call := make(chan error, 1)
		go func() {
			_, err := c.Invoke(t.Context(), bean, "snapshot", nil, nil)
			call <- err
		}()
		synctest.Wait()
		start := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != CloseTimeout {
			t.Errorf("took %s", took)
		}
		if err := <-call; !errors.Is(err, ErrConnectionSpent) || !errors.Is(err, ErrOutcomeUnknown) {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A context that ends while connecting leaves nothing behind.
func TestConnectIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, at := range []string{"lookup", "newClient"} {
			release := make(chan struct{})
			s := &fakeServer{t: t, answer: func(name string, _ []any) []byte {
				if name == at {
					<-release
				}
				return nil
			}}
			start := time.Now()
			_, err := Connect(t.Context(), s.config())
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != ConnectTimeout {
				t.Error(at, took, err)
			}
			close(release)
			synctest.Wait()
		}
		// Nobody answers the greeting.
		silent := func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				b := make([]byte, 100)
				for {
					if _, err := theirs.Read(b); err != nil {
						return
					}
				}
			}()
			return ours, nil
		}
		cfg := (&fakeServer{t: t}).config()
		cfg.Dial = silent
		if _, err := Connect(t.Context(), cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// After these the connection must not be used: the next call could get the answer to this one.
func TestSpent(t *testing.T) {
	remote := func(class, message string, cause func(*writer)) []byte {
		return throws(javaException(class, "java.rmi.RemoteException", "java.io.IOException", "java.lang.Exception"), message, cause)
	}
	unmarshal := javaException("java.rmi.UnmarshalException", "java.rmi.RemoteException", "java.io.IOException")
	fine := returns(nil, func(w *writer) { w.string("1") })
	for name, k := range map[string]struct {
		answer  []byte
		unknown bool
	}{
		"garbage":               {[]byte("HTTP/1.1 400"), true},
		"half an answer":        {fine[:len(fine)-1], true},
		"an answer of no kind":  {reply(3, nil, nil), true},
		"more than was asked":   {returns([]byte{1, 2}, nil), true},
		"not an exception":      {reply(returnThrown, nil, func(w *writer) { w.string("x") }), true},
		"gone":                  {remote("java.rmi.NoSuchObjectException", "no such object in table", nil), false},
		"unread arguments":      {remote("java.rmi.ServerException", "x", func(w *writer) { w.throwable(unmarshal, "y", nil) }), false},
		"the server's problems": {remote("java.rmi.ServerError", "x", nil), true},
	} {
		s := &fakeServer{t: t}
		ended := false
		s.answer = func(name string, _ []any) []byte {
			if name != "getAttribute" {
				return nil
			}
			ended = true
			return k.answer
		}
		c := s.connect()
		if name == "half an answer" {
			// The pipe has to end for it to be half.
			s.answer = nil
			c.conn.raw = &cutConn{Conn: c.conn.raw, answer: k.answer}
			c.conn.conn, c.conn.in = c.conn.raw, reading(k.answer)
			ended = true
		}
		_, err := c.GetAttribute(t.Context(), bean, "Version")
		if !ended || !errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) != k.unknown {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.DefaultDomain(t.Context()); !errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s: the next call: %v", name, err)
		}
		if slices.Contains(s.made(), "getDefaultDomain") {
			t.Errorf("%s: a call on a spent connection", name)
		}
	}
}

// cutConn swallows what is sent.
type cutConn struct {
	net.Conn
	answer []byte
}

func (c *cutConn) Write(b []byte) (int, error) { return len(b), nil }

// What the server sends without being asked must not become the answer to the next call.
func TestUnsolicited(t *testing.T) {
	one := returns(nil, func(w *writer) { w.string("1") })
	s := &fakeServer{t: t, answer: func(name string, _ []any) []byte {
		if name == "getAttribute" {
			return append(slices.Clone(one), one...)
		}
		return nil
	}}
	c := s.connect()
	if v, err := c.GetAttribute(t.Context(), bean, "Version"); v != "1" || err != nil {
		t.Fatal(v, err)
	}
	if v, err := c.DefaultDomain(t.Context()); !errors.Is(err, ErrConnectionSpent) || errors.Is(err, ErrOutcomeUnknown) {
		t.Error(v, err)
	}
}
