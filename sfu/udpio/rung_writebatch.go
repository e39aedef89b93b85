package udpio

import (
	"net"

	"golang.org/x/net/ipv6"
)

// writeBatch sends up to maxMessages with one WriteBatch of x/net.
type writeBatch struct {
	batch    *ipv6.PacketConn // on an IPv4 socket as well, it looks at no option
	messages [maxMessages]ipv6.Message
	buffers  [maxMessages][1][]byte
	addrs    [maxMessages]net.UDPAddr
}

func openWriteBatch(s *socket) (engine, error) {
	conn, err := s.netConn()
	if err != nil {
		return nil, err
	}
	return &writeBatch{batch: ipv6.NewPacketConn(conn)}, nil
}

func (e *writeBatch) send(messages []message) (int, error) {
	count := min(len(messages), maxMessages)
	for i, m := range messages[:count] {
		e.buffers[i][0] = m.parts[0]
		e.addrs[i] = *net.UDPAddrFromAddrPort(m.dest.addr)
		e.messages[i] = ipv6.Message{Buffers: e.buffers[i][:], Addr: &e.addrs[i]}
	}
	n, err := e.batch.WriteBatch(e.messages[:count], 0)
	return max(n, 0), err
}
