package udpio

import (
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// A script is an engine that answers with fail, if that gives an error.
type script struct {
	inner engine // nil: all that is not failed counts as sent
	fail  func(m message) error
	sent  []string
}

func (s *script) send(messages []message) (int, error) {
	for n, m := range messages {
		if err := s.fail(m); err != nil {
			if n == 0 {
				return 0, err
			}
			messages = messages[:n]
			break
		}
	}
	if s.inner != nil {
		return s.inner.send(messages)
	}
	for _, m := range messages {
		for _, part := range m.parts {
			s.sent = append(s.sent, string(part))
		}
	}
	return len(messages), nil
}

func (s *script) close() error {
	if inner, ok := s.inner.(interface{ close() error }); ok {
		return inner.close()
	}
	return nil
}

// What a filter and a packet filter have the system call itself answer.
func blocked() error { return unsupported("call", unix.EPERM) }
func allowed() error { return nil }

// scripted returns a ladder of engines that share nothing with the kernel.
func scripted(t *testing.T, call func() error, fails ...func(message) error) (*ladder, []*script) {
	t.Helper()
	var scripts []*script
	var rungs []rung
	for i, fail := range fails {
		s := &script{fail: fail}
		scripts = append(scripts, s)
		rungs = append(rungs, rung{name: string(rune('a' + i)), trains: i == 0, call: call, open: func(*socket) (engine, error) { return s, nil }})
	}
	l, err := newLadder(nil, &counters{}, rungs, "because", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l, scripts
}

func always(err error) func(message) error { return func(message) error { return err } }

func toOne(d *destination, parts ...string) message {
	m := message{dest: d}
	for _, part := range parts {
		m.parts = append(m.parts, []byte(part))
	}
	return m
}

func TestLadderDescendsAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := error(unix.ENOSYS)
		l, s := scripted(t, blocked, func(message) error { return broken }, always(unix.EPERM), always(nil))
		w := &writer{counters: l.counters, ladder: l}
		d := &destination{}
		w.send([]message{toOne(d, "1"), toOne(d, "2", "3"), toOne(d, "4")})
		if got := s[2].sent; !slices.Equal(got, []string{"1", "2", "3", "4"}) {
			t.Errorf("sent %q on the lowest rung", got)
		}
		if st := l.state.Load(); st.rung != "c" || st.why != "a: function not implemented while sending" || l.counters.demotions.Load() != 1 {
			t.Errorf("stands on %+v, %d demotions", st, l.counters.demotions.Load())
		}
		if d.trains != (trainLimits{}) {
			t.Errorf("the destination is blamed: %+v", d.trains)
		}

		broken = nil
		time.Sleep(retryAfter - 1)
		if l.retry(); l.at != 2 {
			t.Errorf("back on rung %d too early", l.at)
		}
		time.Sleep(1 * time.Nanosecond)
		l.retry()
		w.send([]message{toOne(d, "5", "6")})
		if st := l.state.Load(); st.rung != "a" || st.why != "because" || !slices.Equal(s[0].sent, []string{"5", "6"}) {
			t.Errorf("stands on %+v, sent %q", st, s[0].sent)
		}
	})
}

// TestLadderStays: EPERM of a packet filter, and of a filter that leaves no
// lower rung either.
func TestLadderStays(t *testing.T) {
	for name, test := range map[string]struct {
		call  func() error
		tried int
	}{"packet filter": {allowed, 0}, "all calls refused": {blocked, 2}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tried := 0
				l, _ := scripted(t, test.call, always(unix.EPERM), func(message) error { tried++; return unix.EPERM })
				w := &writer{counters: l.counters, ladder: l}
				for range 100 {
					w.send([]message{toOne(&destination{}, "1")})
				}
				time.Sleep(retryAfter)
				w.send([]message{toOne(&destination{}, "1")})
				if st := l.state.Load(); st.rung != "a" || st.why != "because" || tried != test.tried || l.counters.drops[dropRefused].Load() != 101 {
					t.Errorf("stands on %+v, lower rung tried %d times, %d refused", st, tried, l.counters.drops[dropRefused].Load())
				}
			})
		})
	}
}

func TestTrainRefused(t *testing.T) {
	for _, test := range []struct {
		cause   error
		segment int
	}{{unix.EIO, 0}, {unix.EINVAL, 0}, {unix.EMSGSIZE, 2}} {
		synctest.Test(t, func(t *testing.T) {
			l, s := scripted(t, allowed, func(m message) error {
				if len(m.parts) > 1 {
					return test.cause
				}
				return nil
			})
			w := &writer{counters: l.counters, ladder: l}
			d := &destination{}
			w.send([]message{toOne(d, "abc", "def", "g"), toOne(d, "h")})
			if got := s[0].sent; !slices.Equal(got, []string{"abc", "def", "g", "h"}) {
				t.Errorf("%v: sent %q", test.cause, got)
			}
			if d.trains.segment != test.segment || d.trains.allows(3) || l.counters.demotions.Load() != 1 {
				t.Errorf("%v: limits %+v", test.cause, d.trains)
			}
			time.Sleep(retryAfter)
			if !d.trains.allows(3) {
				t.Errorf("%v: not tried again after %v", test.cause, retryAfter)
			}
		})
	}
}

// TestTrainNotToBlame: the destination refuses single datagrams as well.
func TestTrainNotToBlame(t *testing.T) {
	l, _ := scripted(t, allowed, always(unix.ENETUNREACH))
	w := &writer{counters: l.counters, ladder: l}
	d := &destination{}
	w.send([]message{toOne(d, "abc", "def")})
	if d.trains != (trainLimits{}) || l.counters.demotions.Load() != 0 || l.counters.drops[dropRefused].Load() != 2 {
		t.Errorf("limits %+v, %d demotions, %d refused", d.trains, l.counters.demotions.Load(), l.counters.drops[dropRefused].Load())
	}
}

// loaded sends numbered datagrams in rows of equal length to four destinations
// and checks that all arrive in order.
func loaded(t *testing.T, c *Conn) {
	t.Helper()
	const each = 1000
	sinks := make([]*sink, 4)
	for i := range sinks {
		sinks[i] = newSink(t, "127.0.0.1")
	}
	for number := range uint64(each) {
		for i, s := range sinks {
			c.WriteToAddrPort(datagram(number, 100+100*i+int(number/40)), s.addr())
		}
	}
	for i, s := range sinks {
		if err := s.receive(each); err != nil || s.lost > 0 {
			t.Errorf("destination %d: lost %d, %v", i, s.lost, err)
		}
	}
}

// failing is a ladder of this host's rungs from name down, the first one with
// faults.
func failing(t *testing.T, name string, fail func(message) error) []rung {
	t.Helper()
	ladder, _, err := choose(name, &Prober{})
	if err != nil {
		t.Fatal(err)
	}
	real := ladder[0].open
	ladder[0].call = blocked
	ladder[0].open = func(s *socket) (engine, error) {
		e, err := real(s)
		return &script{inner: e, fail: fail}, err
	}
	return ladder
}

var quiet = Config{Addr: loopbackAny, Log: slog.New(slog.DiscardHandler)}

func TestRungLostUnderLoad(t *testing.T) {
	everyRung(t, func(t *testing.T, name string) {
		if name == "plain" {
			return // there is none below
		}
		for _, cause := range []error{unix.ENOSYS, unix.EPERM} {
			var calls atomic.Int64
			ladder := failing(t, name, func(message) error {
				if calls.Add(1) > 50 {
					return cause
				}
				return nil
			})
			c, err := open(quiet.withDefaults(), ladder, "")
			if err != nil {
				t.Fatal(err)
			}
			loaded(t, c)
			c.Close()
			if s := c.Stats(); s.Rung != ladder[1].name || s.Demotions != 1 || s.Why == "" {
				t.Errorf("%v: %+v", cause, s)
			}
		}
	})
}

func TestTrainsLostUnderLoad(t *testing.T) {
	everyRung(t, func(t *testing.T, name string) {
		if name != "uring" && name != "gso" && name != "sendmsg-gso" {
			return // it has none
		}
		for _, cause := range []error{unix.EIO, unix.EINVAL, unix.EMSGSIZE} {
			var calls atomic.Int64
			ladder := failing(t, name, func(m message) error {
				if len(m.parts) > 1 && calls.Add(1) > 10 && (!errors.Is(cause, unix.EMSGSIZE) || len(m.parts[0]) > 300) {
					return cause
				}
				return nil
			})
			c, err := open(quiet.withDefaults(), ladder, "")
			if err != nil {
				t.Fatal(err)
			}
			loaded(t, c)
			c.Close()
			if s := c.Stats(); s.Rung != name || s.Demotions == 0 {
				t.Errorf("%v: %+v", cause, s)
			}
		}
	})
}
