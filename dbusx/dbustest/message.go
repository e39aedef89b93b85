package dbustest

import (
	"bytes"
	"encoding/binary"

	"github.com/godbus/dbus/v5"
)

// Call is a method call that waits for its answer.
type Call struct {
	*dbus.Message
	Conn *Conn
}

// Method returns interface and member.
func (c *Call) Method() string {
	iface, _ := c.Headers[dbus.FieldInterface].Value().(string)
	member, _ := c.Headers[dbus.FieldMember].Value().(string)
	return iface + "." + member
}

// Reply answers with values.
func (c *Call) Reply(values ...any) {
	if c.Flags&dbus.FlagNoReplyExpected == 0 {
		_ = c.Conn.Send(Reply(c.Serial(), values...))
	}
}

// Fail answers with an error.
func (c *Call) Fail(name, text string) { _ = c.Conn.Send(Failure(c.Serial(), name, text)) }

// Reply returns the reply to the call of that serial.
func Reply(serial uint32, values ...any) *dbus.Message {
	return withBody(&dbus.Message{
		Type: dbus.TypeMethodReply,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(serial),
		},
	}, values)
}

// Failure returns the error reply to the call of that serial.
func Failure(serial uint32, name, text string) *dbus.Message {
	m := Reply(serial, text)
	m.Type = dbus.TypeError
	m.Headers[dbus.FieldErrorName] = dbus.MakeVariant(name)
	return m
}

// Signal returns a signal; name is interface and member.
func Signal(sender string, path dbus.ObjectPath, name string, values ...any) *dbus.Message {
	dot := bytes.LastIndexByte([]byte(name), '.')
	return withBody(&dbus.Message{
		Type: dbus.TypeSignal,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldSender:    dbus.MakeVariant(sender),
			dbus.FieldPath:      dbus.MakeVariant(path),
			dbus.FieldInterface: dbus.MakeVariant(name[:dot]),
			dbus.FieldMember:    dbus.MakeVariant(name[dot+1:]),
		},
	}, values)
}

func withBody(m *dbus.Message, values []any) *dbus.Message {
	m.Body = values
	if len(values) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(values...))
	}
	return m
}

// Encode returns the message as it goes over the wire, with that serial.
func Encode(m *dbus.Message, serial uint32) ([]byte, error) {
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		return nil, err
	}
	data := b.Bytes()
	binary.LittleEndian.PutUint32(data[8:], serial) // godbus has no other way to set it
	return data, nil
}
