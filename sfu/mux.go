package sfu

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// udpMux is pion's mux over the one socket, with the host candidates fixed once
// instead of read from the interfaces for every session.
type udpMux struct {
	*ice.UDPMuxDefault
	candidates  []net.Addr
	network     transport.Net            // with the interfaces as they were at first
	unspecified bool                     // bound to 0.0.0.0 or [::]
	direct      ice.AddrPortReaderWriter // the socket; nil if it is none
}

// newUDPMux serves all sessions from conn, which it closes with itself. Its
// candidates are advertise with conn's port; without any, conn's own address,
// and where that is unspecified, those of the interfaces.
func newUDPMux(conn net.PacketConn, advertise []netip.Addr, log logging.LeveledLogger) (*udpMux, error) {
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, fmt.Errorf("local address %v is not UDP", conn.LocalAddr())
	}
	m := &udpMux{unspecified: local.IP.IsUnspecified()}
	m.direct, _ = conn.(ice.AddrPortReaderWriter)
	for _, a := range advertise {
		m.candidates = append(m.candidates, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.Unmap(), uint16(local.Port))))
	}
	var err error
	if m.network, err = stdnet.NewNet(); err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	m.UDPMuxDefault = ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn, Logger: log, Net: m.network})
	if len(m.candidates) == 0 {
		m.candidates = m.UDPMuxDefault.GetListenAddresses()
	}
	return m, nil
}

// GetListenAddresses returns the host candidates.
func (m *udpMux) GetListenAddresses() []net.Addr { return m.candidates }

// GetConn returns the datagrams for ufrag. candidate tells but the family: all
// candidates are reached through the one socket.
func (m *udpMux) GetConn(ufrag string, candidate net.Addr) (net.PacketConn, error) {
	if !m.unspecified {
		candidate = m.LocalAddr()
	}
	conn, err := m.UDPMuxDefault.GetConn(ufrag, candidate)
	if through, ok := conn.(addrPortConn); ok && m.direct != nil {
		return &sessionConn{addrPortConn: through, direct: m.direct}, err
	}
	return conn, err
}

// addrPortConn is a conn that pion reads and writes without allocations.
type addrPortConn interface {
	net.PacketConn
	ice.AddrPortReaderWriter
}

// A sessionConn is one session's part of the mux. It writes to the socket as
// soon as the mux knows where the session's client is: the mux would look at
// that, under locks, for each packet again.
type sessionConn struct {
	addrPortConn
	direct ice.AddrPortReaderWriter
	known  atomic.Pointer[netip.AddrPort] // the client's address; nil before the first packet
}

// WriteToAddrPort implements ice.AddrPortReaderWriter.
func (c *sessionConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if known := c.known.Load(); known != nil && *known == to {
		return c.direct.WriteToAddrPort(b, to)
	}
	n, err := c.addrPortConn.WriteToAddrPort(b, to)
	if err == nil {
		c.remember(to)
	}
	return n, err
}

// remember is a function of its own for its allocation, which else each write
// would make.
func (c *sessionConn) remember(to netip.AddrPort) { c.known.Store(&to) }
