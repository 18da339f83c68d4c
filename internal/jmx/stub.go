package jmx

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// objectID names an exported object of a server: a number and a UID (java.rmi.server.ObjID).
type objectID [22]byte

// reference says where a remote object is.
type reference struct {
	host string // as the server sees itself
	port int
	tls  bool
	id   objectID
}

// The one socket factory whose connections can be made here: TLS.
const tlsSocketFactory = "javax.rmi.ssl.SslRMIClientSocketFactory"

// referenceOf finds the reference in a stub: what RemoteObject, the base class of all stubs, wrote of its own accord. A dynamic proxy holds
// its RemoteObject in the field h.
func referenceOf(v any) (reference, error) {
	o, ok := v.(*object)
	if !ok {
		return reference{}, errors.New("the server answered with no remote object")
	}
	if o.class.proxy || o.class.isA("java.lang.reflect.Proxy") {
		if o, ok = o.field("h").(*object); !ok {
			return reference{}, errors.New("the server answered with a proxy that leads nowhere")
		}
	}
	l, ok := o.layer("java.rmi.server.RemoteObject")
	if !ok {
		return reference{}, fmt.Errorf("the server answered with a %q, which is no remote object", printable(o.class.name))
	}
	r, err := readReference(&notes{items: l.notes})
	if errors.Is(err, errNotes) {
		err = errors.New("the server's remote object has a reference that ends early")
	}
	return r, err
}

func readReference(n *notes) (reference, error) {
	kind, err := n.utf()
	if err != nil {
		return reference{}, err
	}
	format := []byte{0}
	switch kind {
	case "UnicastRef": // host and port
	case "UnicastRef2": // a format, host and port, and in the format 1 a socket factory
		if format, err = n.bytes(1); err != nil {
			return reference{}, err
		}
	default:
		return reference{}, fmt.Errorf("the server's remote object has a reference of the kind %q", printable(kind))
	}
	var r reference
	if r.host, err = n.utf(); err != nil {
		return reference{}, err
	}
	if r.port, err = n.int(); err != nil {
		return reference{}, err
	}
	if r.port < 1 || r.port > 65535 {
		return reference{}, fmt.Errorf("the server's remote object is at port %d, which there is not", r.port)
	}
	switch format[0] {
	case 0:
	case 1:
		if r.tls, err = readFactory(n); err != nil {
			return reference{}, err
		}
	default:
		return reference{}, fmt.Errorf("the server's remote object has a reference of the format %d", format[0])
	}
	id, err := n.bytes(len(r.id))
	if err != nil {
		return reference{}, err
	}
	copy(r.id[:], id)
	_, err = n.bytes(1) // whether it is the result of a call
	return r, err
}

func readFactory(n *notes) (bool, error) {
	v, err := n.object()
	if err != nil {
		return false, err
	}
	if v == nil {
		return false, nil
	}
	o, ok := v.(*object)
	if !ok {
		return false, errors.New("the server's remote object has a socket factory that is no object")
	}
	if o.class.name != tlsSocketFactory {
		return false, fmt.Errorf("the server wants connections made by its own class %q, which is not possible from here", printable(o.class.name))
	}
	return true, nil
}

// utf reads what DataOutput.writeUTF wrote.
func (n *notes) utf() (string, error) {
	b, err := n.bytes(2)
	if err != nil {
		return "", err
	}
	if b, err = n.bytes(int(binary.BigEndian.Uint16(b))); err != nil {
		return "", err
	}
	return fromModifiedUTF8(b)
}
