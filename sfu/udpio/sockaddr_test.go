package udpio

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSockaddr(t *testing.T) {
	for _, test := range []struct {
		addr   string
		family int
		want   string // "" if it is refused
	}{
		{"192.0.2.1:443", unix.AF_INET, "192.0.2.1:443"},
		{"192.0.2.1:443", unix.AF_INET6, "192.0.2.1:443"},
		{"[::ffff:192.0.2.1]:443", unix.AF_INET, "192.0.2.1:443"},
		{"[::ffff:192.0.2.1]:443", unix.AF_INET6, "192.0.2.1:443"},
		{"[2001:db8::1]:65535", unix.AF_INET6, "[2001:db8::1]:65535"},
		{"[2001:db8::1]:1", unix.AF_INET, ""},
		{"[fe80::1%7]:1", unix.AF_INET6, "[fe80::1%7]:1"},
		{"[fe80::1%no-such-zone]:1", unix.AF_INET6, ""},
	} {
		s, err := encode(netip.MustParseAddrPort(test.addr), test.family)
		if (err != nil) != (test.want == "") {
			t.Errorf("encode(%s, %d): %v", test.addr, test.family, err)
		} else if err == nil && s.decode().String() != test.want {
			t.Errorf("encode(%s, %d) = %v, want %v", test.addr, test.family, s.decode(), test.want)
		}
	}
	if _, err := encode(netip.AddrPort{}, unix.AF_INET6); err == nil {
		t.Error("no address is one")
	}
	if got := (&sockaddr{}).decode(); got.IsValid() {
		t.Errorf("no family decodes to %v", got)
	}
}

func TestSockaddrZone(t *testing.T) {
	interfaces, err := net.Interfaces()
	if err != nil || len(interfaces) == 0 {
		t.Fatalf("no interfaces: %v", err)
	}
	i := interfaces[0]
	addr := netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(i.Name), 9)
	s, err := encode(addr, unix.AF_INET6)
	if err != nil || int(s.raw.Scope_id) != i.Index {
		t.Errorf("zone %s has index %d, want %d, %v", i.Name, s.raw.Scope_id, i.Index, err)
	}
}

func FuzzSockaddr(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1}, uint16(443))
	f.Add([]byte{0x20, 1, 0xd, 0xb8, 15: 1}, uint16(0))
	f.Fuzz(func(t *testing.T, ip []byte, port uint16) {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return
		}
		want := netip.AddrPortFrom(addr, port)
		s, err := encode(want, unix.AF_INET6)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.decode(); got != netip.AddrPortFrom(addr.Unmap(), port) {
			t.Errorf("%v became %v", want, got)
		}
	})
}
