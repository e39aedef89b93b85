package udpio

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWriterTakesTurns: a destination with much to get does not hold up others.
func TestWriterTakesTurns(t *testing.T) {
	l, scripts := scripted(t, allowed, always(nil))
	w := &writer{counters: l.counters, ladder: l}
	q := newQueue(1<<20, 1<<20, 0, unix.AF_INET)
	for n := range 3*maxTrain + 1 {
		q.write([]byte{'A' + byte(n/maxTrain)}, destinationAt(1))
	}
	q.write([]byte("x"), destinationAt(2))
	q.write([]byte("y"), destinationAt(2))
	q.write([]byte("z"), destinationAt(3))
	b, _ := q.take()
	w.sendBatch(b)
	q.release(b)
	train := func(s string) []string { return slices.Repeat([]string{s}, maxTrain) }
	want := slices.Concat(train("A"), []string{"x", "y", "z"}, train("B"), train("C"), []string{"D"})
	if got := scripts[0].sent; !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// full returns a socket without room to send, and its peer.
func full(t *testing.T) (*socket, int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	for err == nil {
		_, err = unix.Write(pair[0], make([]byte, 1200))
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	return &socket{fd: pair[0]}, pair[1]
}

func TestWaitWritable(t *testing.T) {
	s, peer := full(t)
	wrote := make(chan error)
	go func() {
		if done, err := s.settle(unix.EAGAIN); done || err != nil {
			wrote <- fmt.Errorf("wait for room: %v, %w", done, err)
			return
		}
		_, err := unix.Write(s.fd, []byte("room"))
		wrote <- err
	}()
	for err := error(nil); err == nil; {
		_, err = unix.Read(peer, make([]byte, 1200))
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func TestWaitWritableExpires(t *testing.T) {
	s, _ := full(t)
	done := make(chan error)
	go func() {
		_, err := s.settle(unix.EAGAIN)
		done <- err
	}()
	begin := time.Now()
	if err := s.expire(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) || time.Since(begin) < linger {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
}

// TestLogsOnce: one line at the start, one when trains are refused.
func TestLogsOnce(t *testing.T) {
	var out bytes.Buffer
	c := listen(t, Config{Rung: "mmsg", Log: slog.New(slog.NewTextHandler(&out, nil))})
	c.Close()
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "send=mmsg") {
		t.Errorf("logged %q", got)
	}
	out.Reset()
	l, _ := scripted(t, allowed, func(m message) error {
		if len(m.parts) > 1 {
			return unix.EIO
		}
		return nil
	})
	l.log = slog.New(slog.NewTextHandler(&out, nil))
	w := &writer{counters: l.counters, ladder: l}
	for range 5 {
		w.send([]message{toOne(&destination{}, "ab", "cd")})
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "input/output error") || l.counters.demotions.Load() != 5 {
		t.Errorf("%d demotions, logged %q", l.counters.demotions.Load(), got)
	}
}

func TestBufferRemedy(t *testing.T) {
	for _, test := range []struct {
		have int
		want string
	}{{4 << 20, ""}, {212992, "sysctl -w net.core.rmem_max=4194304 on the host, or CAP_NET_ADMIN"}} {
		b := bufferSize{name: "receive", asked: 4 << 20, have: test.have, sysctl: "net.core.rmem_max"}
		if got := b.remedy(); got != test.want {
			t.Errorf("remedy with %d: %q, want %q", test.have, got, test.want)
		}
	}
}
