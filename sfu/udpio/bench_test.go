package udpio

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hole is a socket that the kernel drops everything for, after all the work of
// delivering it.
func hole(tb testing.TB) netip.AddrPort {
	tb.Helper()
	s, err := openSocket(loopbackAny)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.close() })
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	if err := unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]}); err != nil {
		tb.Fatal(err)
	}
	return s.local
}

// cpuTime is the CPU time of this process, user and system.
func cpuTime(tb testing.TB) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// holes are so many of them.
func holes(tb testing.TB, n int) []netip.AddrPort {
	tb.Helper()
	to := make([]netip.AddrPort, n)
	for i := range to {
		to[i] = hole(tb)
	}
	return to
}

// A meter is an engine that tells when so many datagrams have left.
type meter struct {
	engine
	left int
	done chan struct{}
}

func (m *meter) send(messages []message) (int, error) {
	n, err := m.engine.send(messages)
	for _, sent := range messages[:n] {
		m.left -= len(sent.parts)
	}
	if m.left <= 0 {
		m.done <- struct{}{}
	}
	return n, err
}

// metered returns a Conn on the rung, without a pace, and its meter.
func metered(b *testing.B, rung string) (*Conn, *meter) {
	b.Helper()
	ladder, _, err := choose(rung, &Prober{})
	if err != nil {
		b.Fatal(err)
	}
	m, real := &meter{done: make(chan struct{}, 1)}, ladder[0].open
	ladder[0].open = func(s *socket) (e engine, err error) {
		m.engine, err = real(s)
		return m, err
	}
	config := quiet
	config.Pace = -1
	c, err := open(config.withDefaults(), ladder, "")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c, m
}

// frames is what a viewer gets: datagrams of 1200 bytes of which the last of a
// frame is shorter.
func frames(size int) [][]byte {
	packets := make([][]byte, size)
	for i := range packets {
		packets[i] = make([]byte, 1200)
	}
	packets[size-1] = packets[size-1][:1100]
	return packets
}

// costs collects figures of several ways that take turns, so that a busy machine
// is busy for all.
type costs map[string][]float64

// measure adds the CPU time per datagram of a round.
func (c costs) measure(b *testing.B, way string, datagrams int, round func()) {
	before := cpuTime(b)
	round()
	c[way] = append(c[way], float64(cpuTime(b)-before)/float64(datagrams))
}

func (c costs) median(way string) float64 {
	slices.Sort(c[way])
	return c[way][len(c[way])/2]
}

func (c costs) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	for way := range c {
		b.ReportMetric(c.median(way), way+"-ns/packet")
	}
}

const benchDestinations, benchRounds = 100, 10

// write writes a frame to each as an SFU does. It holds if that is of several
// packets.
func write(c *Conn, to []netip.AddrPort, frame [][]byte) {
	if len(frame) > 1 {
		c.Hold()
		defer c.Release()
	}
	for _, addr := range to {
		for _, packet := range frame {
			c.WriteToAddrPort(packet, addr)
		}
	}
}

// BenchmarkRungs reports for each rung the CPU time that one datagram costs, for
// frames of 1 and 8 of them to 100 destinations: the median.
func BenchmarkRungs(b *testing.B) {
	for _, size := range []int{1, 8} {
		b.Run(fmt.Sprintf("frame=%d", size), func(b *testing.B) {
			to, frame, found := holes(b, benchDestinations), frames(size), make(costs)
			type way struct {
				*Conn
				*meter
			}
			conns := make(map[string]way)
			for _, r := range rungs() {
				if r.missing(&Prober{}) == nil {
					c, m := metered(b, r.name)
					conns[r.name] = way{c, m}
				}
			}
			for b.Loop() {
				for name, w := range conns {
					found.measure(b, name, benchRounds*size*len(to), func() {
						for range benchRounds {
							w.left = size * len(to)
							write(w.Conn, to, frame)
							<-w.done
						}
					})
				}
			}
			found.report(b)
		})
	}
}

// BenchmarkOverhead reports what the queue and the writer add to a loop that does
// nothing but send the same datagrams on the same rung.
func BenchmarkOverhead(b *testing.B) {
	for _, size := range []int{1, 8} {
		b.Run(fmt.Sprintf("frame=%d", size), func(b *testing.B) {
			to, frame, found := holes(b, benchDestinations), frames(size), make(costs)
			c, m := metered(b, "auto")
			raw, messages := prepared(b, to, frame)
			for b.Loop() {
				found.measure(b, "raw", benchRounds*size*len(to), func() {
					for range benchRounds {
						for rest := messages; len(rest) > 0; {
							n, err := raw.send(rest[:min(len(rest), maxMessages)])
							if err != nil {
								b.Fatal(err)
							}
							rest = rest[n:]
						}
					}
				})
				found.measure(b, "conn", benchRounds*size*len(to), func() {
					for range benchRounds {
						m.left = size * len(to)
						write(c, to, frame)
						<-m.done
					}
				})
			}
			found.report(b)
			b.ReportMetric(found.median("conn")-found.median("raw"), "over-ns/packet")
			sent := c.Stats()
			b.ReportMetric(float64(sent.PacketsOut)/float64(sent.BatchesOut), "packets/call")
		})
	}
}

// prepared returns an engine of the best rung on a socket of its own, and a
// message for each destination.
func prepared(b *testing.B, to []netip.AddrPort, frame [][]byte) (engine, []message) {
	b.Helper()
	s, err := openSocket(loopbackAny)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.close() })
	s.setBuffers(DefaultSocketBytes)
	ladder, _, err := choose("auto", &Prober{})
	if err != nil {
		b.Fatal(err)
	}
	e, err := ladder[0].open(s)
	if err != nil {
		b.Fatal(err)
	}
	var messages []message
	for _, addr := range to {
		sa, err := encode(addr, s.family)
		if err != nil {
			b.Fatal(err)
		}
		own := make([][]byte, len(frame)) // as what is sealed for one has memory of its own
		for i, packet := range frame {
			own[i] = bytes.Clone(packet)
		}
		messages = append(messages, message{dest: &destination{addr: addr, to: sa}, parts: own})
	}
	return e, messages
}

func benchConn(b *testing.B, rung string) *Conn {
	b.Helper()
	config := quiet
	config.Rung = rung
	c, err := Listen(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// BenchmarkQueue is what the caller of WriteToAddrPort pays for a packet to one of
// 100 destinations, and for 8 in a row to each.
func BenchmarkQueue(b *testing.B) {
	for _, row := range []int{1, 8} {
		b.Run(fmt.Sprintf("row=%d", row), func(b *testing.B) {
			q, payload := newQueue(DefaultQueueBytes, DefaultDestinationBytes, DefaultMaxHold, unix.AF_INET), make([]byte, 1200)
			b.Cleanup(q.close)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if drop, err := q.write(payload, destinationAt(n/row%100)); drop != dropNone || err != nil {
					b.Fatal(drop, err)
				}
				if n%500 == 499 {
					sending, _ := q.take()
					q.release(sending)
				}
			}
		})
	}
}

// BenchmarkReceive reports the CPU time of reading one datagram of those that have
// come, for each way to receive, in bursts of 1 (an idle socket), 8 and 32, sent
// singly or as a train.
func BenchmarkReceive(b *testing.B) {
	for _, test := range []struct {
		burst int
		train bool
	}{{1, false}, {8, false}, {8, true}, {32, false}} {
		b.Run(fmt.Sprintf("burst=%d/train=%v", test.burst, test.train), func(b *testing.B) {
			ways := map[string]*Conn{"recvmmsg": benchConn(b, "mmsg"), "plain": benchConn(b, "plain")}
			sends := make(map[string]func())
			for way, to := range ways {
				e, messages := prepared(b, []netip.AddrPort{to.local.AddrPort()}, slices.Repeat([][]byte{make([]byte, 1200)}, test.burst))
				if !test.train {
					messages = apart(messages[0])
				}
				sends[way] = func() {
					for rest := messages; len(rest) > 0; {
						n, err := e.send(rest)
						if err != nil {
							b.Fatal(err)
						}
						rest = rest[n:]
					}
				}
			}
			found, buf := make(costs), make([]byte, 1500)
			for b.Loop() {
				for way, to := range ways {
					sends[way]()
					found.measure(b, way, test.burst, func() {
						for range test.burst {
							if _, _, err := to.ReadFromAddrPort(buf); err != nil {
								b.Fatal(err)
							}
						}
					})
				}
			}
			found.report(b)
		})
	}
}

// apart makes a message of each datagram of one.
func apart(m message) (messages []message) {
	for i := range m.parts {
		messages = append(messages, message{dest: m.dest, parts: m.parts[i : i+1]})
	}
	return messages
}
