package sfu

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/sfu-agent/sfu-agent/internal/testenv"
)

func TestCandidates(t *testing.T) {
	for _, test := range []struct {
		name, bind string
		advertise  []string
		want       []string // IPs, nil: whatever the interfaces have
	}{
		{"bound address", "127.0.0.1", nil, []string{"127.0.0.1"}},
		{"advertised", "127.0.0.1", []string{"198.51.100.7", "::ffff:203.0.113.9"}, []string{"198.51.100.7", "203.0.113.9"}},
		{"unspecified", "0.0.0.0", nil, nil},
		{"unspecified and advertised", "0.0.0.0", []string{"198.51.100.7"}, []string{"198.51.100.7"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(test.bind)})
			must(t, err)
			cfg := Config{Conn: conn}
			for _, a := range test.advertise {
				cfg.Advertise = append(cfg.Advertise, netip.MustParseAddr(a))
			}
			server, err := New(cfg)
			must(t, err)
			defer func() { must(t, server.Close(t.Context())) }()
			var got []string
			for _, a := range server.mux.GetListenAddresses() {
				udp := a.(*net.UDPAddr)
				if udp.Port != conn.LocalAddr().(*net.UDPAddr).Port {
					t.Errorf("candidate %v of a socket on %v", a, conn.LocalAddr())
				}
				got = append(got, udp.IP.String())
			}
			if want := strings.Join(test.want, " "); test.want != nil && strings.Join(got, " ") != want {
				t.Errorf("candidates %v, want %s", got, want)
			}
			if len(got) == 0 || got[0] == "0.0.0.0" {
				t.Errorf("candidates %v", got)
			}
		})
	}
}

func TestConnOfAnotherNetwork(t *testing.T) {
	conn, err := net.ListenPacket("unixgram", "")
	must(t, err)
	defer conn.Close()
	if _, err := New(Config{Conn: conn}); err == nil {
		t.Error("a Server on a unix socket")
	}
}

// One socket on [::] serves both families.
func TestBothFamilies(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv6unspecified})
	if errors.Is(err, syscall.EAFNOSUPPORT) {
		testenv.Skip(t, "ipv6", err)
	}
	must(t, err)
	server, err := New(Config{Conn: conn, Advertise: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}})
	must(t, err)
	t.Cleanup(func() { must(t, server.Close(context.Background())) })
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{ipv6: true})
	f := film{track: p.video}
	f.frame(t, true, 0)
	waitFor(t, "the frame", func() bool { return len(v.received()) >= 2 })
	checkFrames(t, v.received(), 0)
}

// recorder notes to whom it writes.
type recorder struct {
	net.PacketConn
	to []string
}

func (r *recorder) ReadFromAddrPort([]byte) (int, netip.AddrPort, error) {
	return 0, netip.AddrPort{}, net.ErrClosed
}

func (r *recorder) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	r.to = append(r.to, to.String())
	return len(b), nil
}

// The mux hears of each address a session writes to, and then no more of it.
func TestSessionConnWritesPastTheMux(t *testing.T) {
	var mux, socket recorder
	c := &sessionConn{addrPortConn: &mux, direct: &socket}
	for _, to := range []string{"192.0.2.1:1", "192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:2", "192.0.2.1:2", "192.0.2.1:1"} {
		n, err := c.WriteToAddrPort([]byte{0}, netip.MustParseAddrPort(to))
		if n != 1 || err != nil {
			t.Errorf("write to %s: %d, %v", to, n, err)
		}
	}
	if got := strings.Join(mux.to, " "); got != "192.0.2.1:1 192.0.2.1:2 192.0.2.1:1" {
		t.Errorf("through the mux: %s", got)
	}
	if got := strings.Join(socket.to, " "); got != "192.0.2.1:1 192.0.2.1:2 192.0.2.1:2" {
		t.Errorf("past it: %s", got)
	}
}
