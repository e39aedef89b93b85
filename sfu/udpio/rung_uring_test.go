package udpio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openRing is the one ring that this process has open.
func openRing(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if target, _ := os.Readlink(file); target == "anon_inode:[io_uring]" {
			fd, err := strconv.Atoi(filepath.Base(file))
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	t.Fatal("no ring is open")
	return -1
}

// breakRing has calls on the ring fail from now on.
func breakRing(t *testing.T, ring int) {
	t.Helper()
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, ring, unix.O_CLOEXEC); err != nil {
		t.Error(err)
	}
}

// TestUringLostUnderLoad: the ring itself, and the right to use it.
func TestUringLostUnderLoad(t *testing.T) {
	needUring(t)
	for name, lose := range map[string]func(ring int){
		"EOPNOTSUPP": func(ring int) { breakRing(t, ring) },
		"EPERM":      func(int) { refuse(t, unix.EPERM, uringCalls...) },
		"ENOSYS":     func(int) { refuse(t, unix.ENOSYS, uringCalls...) },
	} {
		t.Run(name, func(t *testing.T) {
			if !child(t, t.Name(), nil) {
				return
			}
			t.Cleanup(openFiles(t)) // the last to run
			c := listen(t, Config{Rung: "uring"})
			ring := openRing(t)
			lost := make(chan struct{})
			go func() {
				defer close(lost)
				for c.Stats().PacketsOut < 100 {
					runtime.Gosched()
				}
				lose(ring)
			}()
			loaded(t, c)
			<-lost
			loaded(t, c)
			if s := c.Stats(); s.Rung != "gso" || s.Demotions != 1 || s.Drops["refused"] != 0 || s.Why == "" {
				t.Errorf("%+v", s)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUringOpenedAnew: a new ring is opened when its time has come, if it can be.
func TestUringOpenedAnew(t *testing.T) {
	needUring(t)
	defer openFiles(t)()
	s, err := openSocket(loopbackAny)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	to := newSink(t, "127.0.0.1")
	defer to.conn.Close()
	ladder, _, err := choose("uring", &Prober{})
	if err != nil {
		t.Fatal(err)
	}
	counters := &counters{}
	l, err := newLadder(s, counters, ladder, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{counters: counters, ladder: l}
	sent := uint64(0)
	train := func(rung string) {
		t.Helper()
		m := message{dest: &destination{addr: to.addr()}}
		if m.dest.to, err = encode(m.dest.addr, s.family); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			m.parts = append(m.parts, datagram(sent, 100))
			sent++
		}
		w.send([]message{m})
		if at := l.state.Load().rung; at != rung {
			t.Errorf("on rung %s, want %s", at, rung)
		}
	}
	train("uring")
	breakRing(t, openRing(t))
	train("gso")
	l.retry()
	train("gso") // too early

	open := l.rungs[0].open
	l.rungs[0].open = func(*socket) (engine, error) { return nil, unix.EPERM }
	l.again = time.Time{}
	l.retry()
	train("gso")
	if until := time.Until(l.again); until < retryAfter/2 {
		t.Errorf("tried again in %v", until)
	}

	l.rungs[0].open = open
	l.again = time.Time{}
	l.retry()
	train("uring")
	if err := l.close(); err != nil {
		t.Error(err)
	}
	train("gso") // as from any lost ring
	if err := to.receive(sent); err != nil || to.lost > 0 {
		t.Errorf("lost %d, %v", to.lost, err)
	}
	if n := counters.demotions.Load(); n != 2 {
		t.Errorf("%d demotions", n)
	}
}

// TestUringOrder: where the socket's buffer is full again and again, each
// destination gets its messages in order, and each of them once.
func TestUringOrder(t *testing.T) {
	needUring(t)
	s, peer := full(t)
	e, err := openUring(s)
	if err != nil {
		t.Fatal(err)
	}
	defer e.(*uringEngine).close()
	s.sendBy.Store(time.Now().Add(10 * time.Second).UnixNano())
	const destinations, each = 2, 40000
	received := make(chan error)
	go func() { received <- receiveInOrder(peer, destinations, each) }()
	all := make([]destination, destinations)
	var messages []message
	for n := range each {
		for i := range all {
			text := binary.BigEndian.AppendUint32([]byte{byte(i)}, uint32(n))
			messages = append(messages, message{dest: &all[i], parts: [][]byte{text}})
		}
	}
	for len(messages) > 0 {
		sent, err := e.send(messages)
		if err != nil {
			t.Fatal(err)
		}
		messages = messages[sent:]
	}
	if err := <-received; err != nil {
		t.Error(err)
	}
}

// receiveInOrder reads what TestUringOrder sends, all of it.
func receiveInOrder(fd, destinations, each int) (wrong error) {
	next := make([]uint32, destinations)
	buf := make([]byte, 2000)
	for received := 0; received < destinations*each; {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EAGAIN:
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000); n == 0 {
				return fmt.Errorf("received %d, then nothing: %w", received, errors.Join(err, wrong))
			}
			continue
		case err != nil:
			return err
		case n != 5:
			continue // what filled the buffer
		}
		to, number := buf[0], binary.BigEndian.Uint32(buf[1:])
		if number != next[to] && wrong == nil {
			wrong = fmt.Errorf("destination %d: %d, want %d", to, number, next[to])
		}
		next[to] = number + 1
		received++
	}
	return wrong
}

// TestUringSentFirst: what left is told apart from what did not, wherever it
// stood.
func TestUringSentFirst(t *testing.T) {
	const again, tooLong = -int32(unix.EAGAIN), -int32(unix.EMSGSIZE)
	for _, test := range []struct {
		results []int32
		order   string
		sent    int
		errno   unix.Errno
	}{
		{[]int32{1, 1, 1, 1}, "abcd", 4, 0},
		{[]int32{1, again, 1, tooLong}, "acbd", 2, unix.EAGAIN},
		{[]int32{tooLong, again, 1, 1}, "cdab", 2, unix.EMSGSIZE},
		{[]int32{again, again, again, again}, "abcd", 0, unix.EAGAIN},
	} {
		e := &uringEngine{}
		copy(e.results[:], test.results)
		var messages []message
		for _, part := range "abcd" {
			messages = append(messages, message{dest: &destination{inFlight: true}, parts: [][]byte{[]byte(string(part))}})
		}
		sent, errno := e.sentFirst(messages)
		order := ""
		for _, m := range messages {
			order += string(m.parts[0])
		}
		inFlight := slices.ContainsFunc(messages, func(m message) bool { return m.dest.inFlight })
		if order != test.order || sent != test.sent || errno != test.errno || inFlight {
			t.Errorf("%v: %s, %d, %v, want %+v", test.results, order, sent, errno, test)
		}
	}
}

func TestUringClosed(t *testing.T) {
	needUring(t)
	s, _ := full(t)
	e, err := openUring(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.(*uringEngine).close(); err != nil {
		t.Error(err)
	}
	if n, err := e.send([]message{toOne(&destination{}, "late")}); n != 0 || !errors.Is(err, errLost) {
		t.Errorf("send after close: %d, %v", n, err)
	}
}
