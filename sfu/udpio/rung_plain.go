package udpio

import "net"

// plain sends with Go's net, one datagram at a time.
type plain struct {
	conn *net.UDPConn
}

func openPlain(s *socket) (engine, error) {
	conn, err := s.netConn()
	if err != nil {
		return nil, err
	}
	return &plain{conn: conn}, nil
}

func (e *plain) send(messages []message) (int, error) {
	m := messages[0]
	if _, err := e.conn.WriteToUDPAddrPort(m.parts[0], m.dest.addr); err != nil {
		return 0, err
	}
	return 1, nil
}
