package udpio

import (
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
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkRungs reports for each rung the CPU time that one datagram of 1200
// bytes costs, for frames of 1 and 8 of them to 50 destinations. The rungs take
// turns, so that a busy machine is busy for all; the figure is the median.
func BenchmarkRungs(b *testing.B) {
	const destinations, packets = 50, 4000
	payload := make([]byte, 1200)
	for _, frame := range []int{1, 8} {
		b.Run(fmt.Sprintf("frame=%d", frame), func(b *testing.B) {
			var to []netip.AddrPort
			for range destinations {
				to = append(to, hole(b))
			}
			conns := make(map[string]*Conn)
			for _, r := range rungs() {
				if r.missing(&Prober{}) == nil {
					conns[r.name] = benchConn(b, r.name)
				}
			}
			costs := make(map[string][]float64)
			for b.Loop() {
				for name, c := range conns {
					before, sent := cpuTime(b), c.counters.packetsOut.Load()
					for n := 0; n < packets; n += destinations * frame {
						for _, addr := range to {
							for range frame {
								c.WriteToAddrPort(payload, addr)
							}
						}
						for c.counters.packetsOut.Load() < sent+uint64(n+destinations*frame) {
							time.Sleep(20 * time.Microsecond)
						}
					}
					costs[name] = append(costs[name], float64(cpuTime(b)-before)/packets)
				}
			}
			b.ReportMetric(0, "ns/op")
			for name, cost := range costs {
				slices.Sort(cost)
				b.ReportMetric(cost[len(cost)/2], name+"-ns/packet")
			}
		})
	}
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

// BenchmarkQueue is what the caller of WriteToAddrPort pays, for packets to 100
// destinations.
func BenchmarkQueue(b *testing.B) {
	q, payload := newQueue(DefaultQueueBytes, DefaultDestinationBytes, 0, unix.AF_INET), make([]byte, 1200)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if drop, err := q.write(payload, destinationAt(n%100)); drop != dropNone || err != nil {
			b.Fatal(drop, err)
		}
		if n%500 == 499 {
			sending, _ := q.take()
			q.release(sending)
		}
	}
}

// BenchmarkReceive reports the CPU time of a datagram of 200 bytes from another
// socket of this process, to send and to receive it, for each way to receive.
func BenchmarkReceive(b *testing.B) {
	for _, rung := range []string{"mmsg", "plain"} {
		for _, burst := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/burst=%d", rung, burst), func(b *testing.B) {
				from, to := benchConn(b, "mmsg"), benchConn(b, rung)
				payload, buf := make([]byte, 200), make([]byte, 1500)
				before := cpuTime(b)
				b.ReportAllocs()
				for b.Loop() {
					for range burst {
						from.WriteToAddrPort(payload, to.local.AddrPort())
					}
					for range burst {
						if _, _, err := to.ReadFromAddrPort(buf); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N*burst), "cpu-ns/packet")
			})
		}
	}
}
