package udpio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/internal/testenv"
)

// tryUringChild is a Prober's Child.
var tryUringChild = []string{os.Args[0], "try-uring"}

func TestMain(m *testing.M) {
	if slices.Equal(os.Args, tryUringChild) {
		TryUring()
		return
	}
	goleak.VerifyTestMain(m)
}

var _ ice.AddrPortReaderWriter = (*Conn)(nil)

// loopbackAny is any free port of loopback.
var loopbackAny = netip.MustParseAddrPort("127.0.0.1:0")

// places are the local addresses that tests listen on, and where that is
// reached.
var places = []struct {
	name          string
	listen, reach string
}{
	{"IPv4", "127.0.0.1:0", "127.0.0.1"},
	{"IPv6", "[::1]:0", "::1"},
	{"any IPv4", "0.0.0.0:0", "127.0.0.1"},
	{"dual stack by IPv4", "[::]:0", "127.0.0.1"},
	{"dual stack by IPv6", "[::]:0", "::1"},
}

// everyRung runs a test on each rung that this host has.
func everyRung(t *testing.T, test func(t *testing.T, rung string)) {
	for _, r := range rungs() {
		t.Run(r.name, func(t *testing.T) {
			prober := &Prober{}
			if err := r.missing(prober); errors.Is(err, errors.ErrUnsupported) {
				part := "sendmmsg"
				if r.trains && prober.HaveSegment() != nil {
					part = "gso"
				} else if r.name == "uring" {
					part = "io_uring"
				}
				testenv.Skip(t, part, err)
			}
			t.Cleanup(openFiles(t)) // the last to run
			test(t, r.name)
		})
	}
}

// openFiles returns a check that no file descriptor was left open since.
func openFiles(t *testing.T) func() {
	t.Helper()
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	// The first netpoller user opens its epoll set for good.
	probe, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	probe.Close()
	before := count()
	return func() {
		t.Helper()
		if after := count(); after != before {
			t.Errorf("%d files open, %d before", after, before)
		}
	}
}

func listen(t *testing.T, config Config) *Conn {
	t.Helper()
	if !config.Addr.IsValid() {
		config.Addr = loopbackAny
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	c, err := Listen(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// at is where c is reached from this host.
func at(c *Conn, ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), c.local.AddrPort().Port())
}

// A sink is an ordinary socket that checks what it receives: datagrams of any
// length from 8 up, numbered from 0 and filled with what the number says.
type sink struct {
	conn *net.UDPConn
	next uint64
	lost uint64
	err  error
}

func newSink(t *testing.T, ip string) *sink {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadBuffer(4 << 20)
	return &sink{conn: conn}
}

func (s *sink) addr() netip.AddrPort {
	addr := s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// receive reads until count datagrams were sent to it, or five seconds are over.
func (s *sink) receive(count uint64) error {
	buf := make([]byte, 64<<10)
	s.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for s.next < count {
		n, err := s.conn.Read(buf)
		if err != nil {
			return fmt.Errorf("received %d of %d: %w", s.next-s.lost, count, err)
		}
		number, err := verify(buf[:n])
		if err != nil {
			return err
		}
		if number < s.next {
			return fmt.Errorf("datagram %d after %d", number, s.next-1)
		}
		s.lost += number - s.next
		s.next = number + 1
	}
	return nil
}

func datagram(number uint64, length int) []byte {
	b := make([]byte, length)
	binary.BigEndian.PutUint64(b, number)
	for i := 8; i < len(b); i++ {
		b[i] = byte(number) + byte(i)
	}
	return b
}

func verify(b []byte) (number uint64, err error) {
	if len(b) < 8 {
		return 0, fmt.Errorf("datagram of %d bytes", len(b))
	}
	number = binary.BigEndian.Uint64(b)
	for i := 8; i < len(b); i++ {
		if b[i] != byte(number)+byte(i) {
			return number, fmt.Errorf("datagram %d of %d bytes is torn at %d", number, len(b), i)
		}
	}
	return number, nil
}

// lengths gives the datagrams of a test their lengths: rows of equal ones, as
// video makes them, among others.
func lengths(random *rand.Rand) func() int {
	length, left := 0, 0
	return func() int {
		if left--; left < 0 {
			length, left = 8+random.IntN(1400), random.IntN(20)
		}
		return length
	}
}

func TestOrderAndNothingLost(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		for _, place := range places {
			t.Run(place.name, func(t *testing.T) {
				const destinations, each = 8, 400
				c := listen(t, Config{Addr: netip.MustParseAddrPort(place.listen), Rung: rung})
				sinks := make([]*sink, destinations)
				for i := range sinks {
					sinks[i] = newSink(t, place.reach)
				}
				var receivers, senders sync.WaitGroup
				for _, s := range sinks {
					receivers.Go(func() { s.err = s.receive(each) })
				}
				for worker := range 2 { // each has half of the destinations
					senders.Go(func() {
						random := rand.New(rand.NewPCG(1, uint64(worker)))
						length := lengths(random)
						for number := range uint64(each) {
							for i := worker; i < destinations; i += 2 {
								if _, err := c.WriteToAddrPort(datagram(number, length()), sinks[i].addr()); err != nil {
									t.Error(err)
								}
							}
						}
					})
				}
				senders.Wait()
				receivers.Wait()
				for i, s := range sinks {
					if s.err != nil || s.lost > 0 {
						t.Errorf("destination %d: lost %d, %v", i, s.lost, s.err)
					}
				}
				c.Close()
				stats := c.Stats()
				if stats.PacketsOut != destinations*each || stats.Rung != rung || stats.Demotions != 0 {
					t.Errorf("stats: %+v", stats)
				}
			})
		}
	})
}

func TestReceive(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		for _, place := range places {
			t.Run(place.name, func(t *testing.T) {
				const each = 400 // which the receive buffer holds
				from := listen(t, Config{Addr: netip.AddrPortFrom(netip.MustParseAddr(place.reach), 0)})
				to := listen(t, Config{Addr: netip.MustParseAddrPort(place.listen), Rung: rung})
				var sender sync.WaitGroup
				sender.Go(func() {
					length := lengths(rand.New(rand.NewPCG(2, 2)))
					for number := range uint64(each) {
						from.WriteToAddrPort(datagram(number, length()), at(to, place.reach))
					}
				})
				defer sender.Wait()
				buf := make([]byte, 1500)
				to.SetReadDeadline(time.Now().Add(5 * time.Second))
				for want := range uint64(each) {
					n, addr, err := to.ReadFromAddrPort(buf)
					if err != nil {
						t.Fatalf("datagram %d: %v", want, err)
					}
					if number, err := verify(buf[:n]); number != want || err != nil {
						t.Fatalf("datagram %d, want %d: %v", number, want, err)
					}
					if addr != at(from, place.reach) {
						t.Fatalf("from %v, want %v", addr, at(from, place.reach))
					}
				}
			})
		}
	})
}

func TestCloseUnblocks(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		c := listen(t, Config{Rung: rung})
		errs := make(chan error, 2)
		for range cap(errs) {
			go func() {
				_, _, err := c.ReadFrom(make([]byte, 1500))
				errs <- err
			}()
		}
		for range 3 {
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		for range cap(errs) {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v, want %v", err, net.ErrClosed)
			}
		}
		if _, err := c.WriteTo([]byte("late"), c.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after Close: %v", err)
		}
		if _, _, err := c.ReadFromAddrPort(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
		if err := c.SetReadDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("deadline after Close: %v", err)
		}
	})
}

func TestCloseForgetsWhatCame(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		c := listen(t, Config{Rung: rung})
		for range 10 {
			c.WriteTo([]byte("unread"), c.LocalAddr())
		}
		buf := make([]byte, 100)
		for range 3 { // the rest may have come with these
			if _, _, err := c.ReadFrom(buf); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		if _, _, err := c.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v, want %v", err, net.ErrClosed)
		}
	})
}

func TestCloseSendsWhatWaits(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		const each = 500
		s := newSink(t, "127.0.0.1")
		c := listen(t, Config{Rung: rung})
		for number := range uint64(each) {
			c.WriteToAddrPort(datagram(number, 200), s.addr())
		}
		c.Close()
		if err := s.receive(each); err != nil || s.lost > 0 {
			t.Errorf("lost %d, %v", s.lost, err)
		}
	})
}

func TestReadDeadline(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		c := listen(t, Config{Rung: rung})
		buf := make([]byte, 100)
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, _, err := c.ReadFrom(buf)
		var timeout net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("read: %v, want a timeout", err)
		}
		c.SetDeadline(time.Time{})
		if _, err := c.WriteTo([]byte("to myself"), c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		n, from, err := c.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "to myself" || from.String() != c.LocalAddr().String() {
			t.Errorf("read %q from %v, %v", buf[:n], from, err)
		}
	})
}

func TestListenRefuses(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name   string
		ctx    context.Context
		config Config
		want   string
	}{
		{"no address", t.Context(), Config{}, "no address"},
		{"unknown rung", t.Context(), Config{Addr: loopbackAny, Rung: "fastest"}, "want auto or one of gso, sendmsg-gso, mmsg, writebatch, plain, uring"},
		{"foreign address", t.Context(), Config{Addr: netip.MustParseAddrPort("192.0.2.1:0")}, "bind: cannot assign requested address"},
		{"unknown zone", t.Context(), Config{Addr: netip.MustParseAddrPort("[fe80::1%no-such-zone]:0")}, "find zone no-such-zone"},
		{"cancelled", cancelled, Config{Addr: loopbackAny}, context.Canceled.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Cleanup(openFiles(t))
			c, err := Listen(test.ctx, test.config)
			if c != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Listen = %v, %v, want %q", c, err, test.want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	old := &Prober{known: map[string]error{
		"UDP_SEGMENT": unsupported("UDP_SEGMENT", unix.ENOPROTOOPT),
		"sendmmsg":    unsupported("sendmmsg", unix.EPERM),
	}}
	ringless := &Prober{known: map[string]error{"UDP_SEGMENT": nil, "sendmmsg": nil,
		"io_uring returns": nil, "io_uring": &UringError{Cause: UringSeccomp, Err: unix.EPERM}}}
	able := &Prober{known: map[string]error{"UDP_SEGMENT": nil, "sendmmsg": nil, "io_uring returns": nil, "io_uring": nil}}
	for _, test := range []struct {
		rung   string
		prober *Prober
		want   string
		why    string
		err    error
	}{
		{"auto", able, "gso", "", nil},
		{"uring", able, "uring", "", nil},
		{"uring", ringless, "gso", "uring: io_uring: seccomp: operation not permitted", nil},
		{"auto", &Prober{known: map[string]error{"UDP_SEGMENT": nil, "sendmmsg": old.known["sendmmsg"]}}, "sendmsg-gso",
			"gso: sendmmsg: unsupported operation: operation not permitted", nil},
		{"auto", &Prober{known: map[string]error{"UDP_SEGMENT": old.known["UDP_SEGMENT"], "sendmmsg": nil}}, "mmsg",
			"gso: UDP_SEGMENT: unsupported operation: protocol not available; sendmsg-gso: UDP_SEGMENT: unsupported operation: protocol not available", nil},
		{"plain", old, "plain", "", nil},
		{"mmsg", old, "", "", unix.EPERM},
		{"gso", old, "", "", errors.ErrUnsupported},
	} {
		ladder, why, err := choose(test.rung, test.prober)
		if !errors.Is(err, test.err) || why != test.why || err == nil && ladder[0].name != test.want {
			t.Errorf("choose(%s) = %v, %q, %v, want %s, %q, %v", test.rung, ladder, why, err, test.want, test.why, test.err)
		}
	}
	if ladder, _, err := choose("auto", old); err != nil || len(ladder) != 1 || ladder[0].name != "plain" {
		t.Errorf("choose on an old host = %v, %v", ladder, err)
	}
}

func TestPortInUse(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		c := listen(t, Config{Rung: rung})
		config := Config{Addr: c.local.AddrPort(), Rung: rung, Log: slog.New(slog.DiscardHandler)}
		if second, err := Listen(t.Context(), config); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second Listen: %v, %v, want %v", second, err, syscall.EADDRINUSE)
		}
		c.Close()
		second, err := Listen(t.Context(), config)
		if err != nil {
			t.Fatalf("Listen after Close: %v", err)
		}
		second.Close()
	})
}
