package rtcclient

import (
	"fmt"
	"net"

	"github.com/pion/ice/v4"
)

// socketBuffer is how much the kernel may queue for many clients on one socket,
// in bytes, as far as it lets.
const socketBuffer = 4 << 20

// A Socket is one UDP socket on 127.0.0.1 for any number of clients.
type Socket struct{ mux *ice.UDPMuxDefault }

// NewSocket opens a Socket.
func NewSocket() (*Socket, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("open client socket: %w", err)
	}
	_ = conn.SetReadBuffer(socketBuffer) // as much as net.core.rmem_max allows
	_ = conn.SetWriteBuffer(socketBuffer)
	return &Socket{ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn, Logger: quiet{}.NewLogger("ice")})}, nil
}

// Close closes the socket under all its clients.
func (s *Socket) Close() error { return s.mux.Close() }
