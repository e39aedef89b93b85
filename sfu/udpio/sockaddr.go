package udpio

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A sockaddr is a struct sockaddr_in or sockaddr_in6 as the kernel takes it.
type sockaddr struct {
	raw    unix.RawSockaddrInet6 // the longer of the two
	length uint32
}

// encode makes a sockaddr for a socket of that family. A socket of AF_INET6
// takes IPv4 addresses as mapped ones.
func encode(addr netip.AddrPort, family int) (sockaddr, error) {
	var s sockaddr
	ip := addr.Addr()
	switch {
	case !ip.IsValid():
		return s, &net.AddrError{Err: "no address", Addr: addr.String()}
	case family == unix.AF_INET6:
		s.length = unix.SizeofSockaddrInet6
		s.raw.Family = unix.AF_INET6
		s.raw.Addr = ip.As16()
		scope, err := scopeID(ip.Zone())
		if err != nil {
			return s, err
		}
		s.raw.Scope_id = scope
	case ip.Is4() || ip.Is4In6():
		s.length = unix.SizeofSockaddrInet4
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		four.Family = unix.AF_INET
		four.Addr = ip.As4()
	default:
		return s, &net.AddrError{Err: "IPv6 address on an IPv4 socket", Addr: addr.String()}
	}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&s.raw.Port))[:], addr.Port())
	return s, nil
}

// decode reads what the kernel filled in. Mapped IPv4 addresses become plain
// ones. It returns the zero AddrPort for another family.
func (s *sockaddr) decode() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&s.raw.Port))[:])
	switch s.raw.Family {
	case unix.AF_INET:
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port)
	case unix.AF_INET6:
		ip := netip.AddrFrom16(s.raw.Addr).Unmap()
		if s.raw.Scope_id != 0 && ip.Is6() {
			ip = ip.WithZone(strconv.FormatUint(uint64(s.raw.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, port)
	}
	return netip.AddrPort{}
}

// scopeID is the interface index of a zone, which is its name or the index in
// digits.
func scopeID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("find zone %s: %w", zone, err)
	}
	return uint32(i.Index), nil
}
