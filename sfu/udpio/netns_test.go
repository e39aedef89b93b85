package udpio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownNetwork is a user and a network namespace for a process.
func ownNetwork() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
}

// A network is a network namespace. Sockets stay in that of the thread that
// opened them.
type network struct {
	file *os.File
}

// newNetwork makes one beside that of the process.
func newNetwork(t *testing.T) network {
	t.Helper()
	file := make(chan *os.File, 1)
	go func() {
		defer close(file)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(os.NewSyscallError("unshare", err))
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
			return
		}
		file <- f
	}()
	f := <-file
	if f == nil {
		t.FailNow()
	}
	t.Cleanup(func() { f.Close() })
	return network{f}
}

// do calls f on a thread that is in the network.
func (n network) do(t *testing.T, f func()) {
	t.Helper()
	done := make(chan bool)
	go func() {
		defer close(done) // on t.FailNow as well
		runtime.LockOSThread()
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(os.NewSyscallError("setns", err))
			return
		}
		f()
	}()
	<-done
	if t.Failed() {
		t.FailNow()
	}
}

// attribute is a struct rtattr (rtnetlink(7)) around data, with padding.
func attribute(kind uint16, data ...[]byte) []byte {
	joined := bytes.Join(data, nil)
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(joined)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), joined...)
	return append(b, make([]byte, -len(b)&3)...)
}

// netlink sends a request of rtnetlink(7) and waits for the answer.
func netlink(t *testing.T, kind, flags uint16, body ...[]byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)
	joined := bytes.Join(body, nil)
	header := unix.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + len(joined)), Type: kind, Flags: flags | unix.NLM_F_REQUEST | unix.NLM_F_ACK}
	request := append(unsafe.Slice((*byte)(unsafe.Pointer(&header)), unix.SizeofNlMsghdr), joined...)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(os.NewSyscallError("sendto", err))
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < unix.SizeofNlMsghdr+4 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if errno := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
		t.Fatalf("rtnetlink request %d: %v", kind, unix.Errno(errno))
	}
}

// pair makes two interfaces named veth, joined by a cable: one in the network of
// the calling thread, one in the other.
func pair(t *testing.T, other network) {
	t.Helper()
	name := attribute(unix.IFLA_IFNAME, []byte("veth\x00"))
	there := attribute(unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(other.file.Fd())))
	const peer = 1 // VETH_INFO_PEER
	netlink(t, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, make([]byte, unix.SizeofIfInfomsg), name,
		attribute(unix.IFLA_LINKINFO,
			attribute(unix.IFLA_INFO_KIND, []byte("veth")),
			attribute(unix.IFLA_INFO_DATA, attribute(peer, make([]byte, unix.SizeofIfInfomsg), name, there))))
}

// interfaceRequest calls an ioctl of netdevice(7) on an interface of the calling
// thread's network.
func interfaceRequest(t *testing.T, name string, request uint, set func(*unix.Ifreq)) *unix.Ifreq {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(r)
	}
	if err := unix.IoctlIfreq(fd, request, r); err != nil {
		t.Fatalf("ioctl %#x on %s: %v", request, name, err)
	}
	return r
}

// up gives an interface its MTU, starts it, and gives it addresses.
func up(t *testing.T, name string, mtu uint32, addresses ...netip.Prefix) {
	t.Helper()
	interfaceRequest(t, name, unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(mtu) })
	interfaceRequest(t, name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP) })
	index := interfaceRequest(t, name, unix.SIOCGIFINDEX, nil).Uint32()
	for _, a := range addresses {
		info := unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: uint8(a.Bits()), Flags: unix.IFA_F_NODAD, Index: index}
		if a.Addr().Is6() {
			info.Family = unix.AF_INET6
		}
		netlink(t, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
			bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&info)), unix.SizeofIfAddrmsg)),
			attribute(unix.IFA_LOCAL, a.Addr().AsSlice()), attribute(unix.IFA_ADDRESS, a.Addr().AsSlice()))
	}
}

// featuresOff switches features of an interface off by their names, which are those
// that ethtool(8) prints: ETHTOOL_GSTRINGS has them, ETHTOOL_SFEATURES changes
// them (linux/ethtool.h).
func featuresOff(t *testing.T, name string, off ...string) {
	t.Helper()
	const (
		getStrings, setFeatures, ofFeatures = 0x1b, 0x3b, 4
		stringLength                        = 32
		most                                = 128
	)
	var strings struct {
		command, set, count uint32
		data                [most][stringLength]byte
	}
	strings.command, strings.set = getStrings, ofFeatures
	ethtool(t, name, unsafe.Pointer(&strings))
	type block struct{ valid, requested uint32 }
	var change struct {
		command, size uint32
		blocks        [most / 32]block
	}
	change.command, change.size = setFeatures, (strings.count+31)/32
	for _, want := range off {
		found := false
		for i := range strings.data[:min(strings.count, most)] {
			if unix.ByteSliceToString(strings.data[i][:]) == want {
				change.blocks[i/32].valid |= 1 << (i % 32)
				found = true
			}
		}
		if !found {
			t.Fatalf("%s has no feature %s", name, want)
		}
	}
	ethtool(t, name, unsafe.Pointer(&change))
}

func ethtool(t *testing.T, name string, data unsafe.Pointer) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: data}
	copy(request.name[:], name)
	if short, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 || short != 0 {
		t.Fatalf("ioctl SIOCETHTOOL on %s: %d, %v", name, short, errno)
	}
}

// The addresses of two networks that a pair of interfaces joins.
var (
	here  = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	there = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}
)

// TestDevices: over interfaces that lack this or that, and of which the MTU is
// smaller than some datagrams, all arrives on every rung, in order.
func TestDevices(t *testing.T) {
	for name, test := range map[string]struct {
		mtu uint32
		off []string
	}{
		"all":              {1500, nil},
		"no segmentation":  {1500, []string{"tx-udp-segmentation"}},
		"no checksums":     {1500, []string{"tx-checksum-ip-generic"}},
		"no offloads":      {1500, []string{"tx-udp-segmentation", "tx-checksum-ip-generic"}},
		"MTU 1280":         {1280, nil},
		"MTU 1280 without": {1280, []string{"tx-udp-segmentation", "tx-checksum-ip-generic"}},
	} {
		t.Run(name, func(t *testing.T) {
			if !child(t, t.Name(), ownNetwork()) {
				return
			}
			other := newNetwork(t)
			pair(t, other)
			up(t, "lo", 65536)
			up(t, "veth", test.mtu, here...)
			other.do(t, func() { up(t, "lo", 65536); up(t, "veth", test.mtu, there...) })
			if len(test.off) > 0 {
				featuresOff(t, "veth", test.off...)
			}
			everyRung(t, func(t *testing.T, rung string) {
				for i := range here {
					overDevice(t, rung, here[i].Addr(), there[i].Addr(), other, test.mtu)
				}
			})
		})
	}
}

// overDevice sends rows of datagrams that fit the MTU and rows of longer ones,
// which leave in fragments, to an ordinary socket and to a Conn of another
// network.
func overDevice(t *testing.T, rung string, from, to netip.Addr, other network, mtu uint32) {
	const each, rows, short, long = 400, 20, 1100, 1275
	c := listen(t, Config{Addr: netip.AddrPortFrom(from, 0), Rung: rung})
	var s *sink
	var peer *Conn
	other.do(t, func() {
		s = newSink(t, to.String())
		peer = listen(t, Config{Addr: netip.AddrPortFrom(to, 0), Rung: rung})
	})
	write := func(number uint64, length int) {
		c.WriteToAddrPort(datagram(number, length), s.addr())
		c.WriteToAddrPort(datagram(number, length), peer.local.AddrPort())
	}
	write(0, short) // more than a few are lost while the neighbour is unknown
	if err := errors.Join(s.receive(1), receiveAll(peer, 0, 1)); err != nil {
		t.Fatal(err)
	}
	received := make(chan error)
	go func() { received <- receiveAll(peer, 1, each) }()
	c.Hold()
	for number := uint64(1); number < each; number++ {
		length := short
		if number/rows%2 == 1 {
			length = long
		}
		write(number, length)
		if number%rows == rows-1 { // a row is a frame
			c.Release()
			c.Hold()
		}
	}
	c.Release()
	if err := s.receive(each); err != nil || s.lost > 0 {
		t.Errorf("%v: lost %d, %v", to, s.lost, err)
	}
	if err := <-received; err != nil {
		t.Errorf("%v: %v", to, err)
	}
	peer.Close()
	c.Close()
	stats := c.Stats()
	demotions := uint64(0)
	if stats.Rung == "gso" || stats.Rung == "sendmsg-gso" || stats.Rung == "uring" {
		if mtu < long+28 {
			demotions = 2 // once for each destination
		}
		if stats.TrainPackets < each*2/4 {
			t.Errorf("%v: %d of %d left in trains", to, stats.TrainPackets, each*2)
		}
	}
	if stats.PacketsOut != 2*each || stats.Rung != rung || stats.Demotions != demotions || stats.Drops["refused"] != 0 {
		t.Errorf("%v: %+v", to, stats)
	}
}

// receiveAll reads datagrams numbered from first up to end.
func receiveAll(c *Conn, first, end uint64) error {
	buf := make([]byte, 1500)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for want := first; want < end; want++ {
		n, _, err := c.ReadFromAddrPort(buf)
		if err != nil {
			return fmt.Errorf("datagram %d: %w", want, err)
		}
		if number, err := verify(buf[:n]); number != want || err != nil {
			return fmt.Errorf("datagram %d, want %d: %v", number, want, err)
		}
	}
	return nil
}
