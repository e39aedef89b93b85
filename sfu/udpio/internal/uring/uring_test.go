package uring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/internal/testenv"
)

// soon is a limit for what is there at once.
const soon = 5 * time.Second

// newRing opens a ring of four submissions, and checks that nothing of it stays
// open.
func newRing(t *testing.T, flags uint32) *Ring {
	t.Helper()
	r, err := open(4, flags)
	if e, ok := errors.AsType[*Error](err); ok && (e.Step == Setup || e.Step == Features) {
		testenv.Skip(t, "io_uring", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := unix.FcntlInt(uintptr(r.fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("ring after Close: %v", err)
		}
	})
	return r
}

// pair returns two stream sockets that reach each other.
func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// header is that of a message of some bytes.
func header(data []byte) *unix.Msghdr {
	iov := &unix.Iovec{Base: unsafe.SliceData(data)}
	iov.SetLen(len(data))
	h := &unix.Msghdr{Iov: iov}
	h.SetIovlen(1)
	return h
}

// next takes an answer that must be there.
func next(t *testing.T, r *Ring, wantID uint64, want int32) {
	t.Helper()
	if id, result, ok := r.Next(); !ok || id != wantID || result != want {
		t.Fatalf("Next = %d, %d, %v, want %d, %d", id, result, ok, wantID, want)
	}
}

func TestHave(t *testing.T) {
	if err := Have(); err != nil {
		testenv.Skip(t, "io_uring", err)
	}
}

func TestSendmsg(t *testing.T) {
	r := newRing(t, 0)
	from, to := pair(t)
	buf := make([]byte, 100)
	for round := range uint64(10) { // the queues turn around
		texts := []string{"a", "bb", "ccc", fmt.Sprint(round)}
		var headers []*unix.Msghdr
		for i, text := range texts {
			headers = append(headers, header([]byte(text)))
			if !r.Sendmsg(round+uint64(i), from, headers[i], unix.MSG_DONTWAIT) {
				t.Fatal("no room")
			}
		}
		if r.Sendmsg(0, from, headers[0], 0) {
			t.Fatal("room for a fifth")
		}
		if err := r.Submit(len(texts), soon); err != nil {
			t.Fatal(err)
		}
		runtime.KeepAlive(headers)
		for i, text := range texts {
			next(t, r, round+uint64(i), int32(len(text)))
		}
		if id, _, ok := r.Next(); ok {
			t.Fatalf("%d answered twice", id)
		}
		if n, err := unix.Read(to, buf); err != nil || string(buf[:n]) != "abbccc"+texts[3] {
			t.Fatalf("received %q, %v", buf[:n], err)
		}
	}
}

// TestErrors: what fails has its errno as the answer, and does not hold up others.
func TestErrors(t *testing.T) {
	r := newRing(t, 0)
	from, to := pair(t)
	text := header([]byte("text"))
	fillUp(t, from)
	r.Sendmsg(1, from, text, unix.MSG_DONTWAIT)
	r.Sendmsg(2, -1, text, unix.MSG_DONTWAIT)
	r.Sendmsg(3, to, text, unix.MSG_DONTWAIT)
	r.push(submission{opcode: 255, id: 4})
	for _, want := range []struct {
		id     uint64
		result int32
	}{{1, -int32(unix.EAGAIN)}, {2, -int32(unix.EBADF)}, {3, 4}, {4, -int32(unix.EINVAL)}} {
		if err := r.Submit(1, soon); err != nil {
			t.Fatal(err)
		}
		next(t, r, want.id, want.result)
	}
	runtime.KeepAlive(text)
}

// fillUp leaves no room to send.
func fillUp(t *testing.T, fd int) {
	t.Helper()
	for {
		switch err := unix.Send(fd, make([]byte, 1<<10), unix.MSG_DONTWAIT); err {
		case nil:
		case unix.EAGAIN:
			return
		default:
			t.Fatal(err)
		}
	}
}

// TestLimitAndClosePending: what waits for room is not answered, and does not
// hold up Close.
func TestLimitAndClosePending(t *testing.T) {
	r := newRing(t, 0)
	from, _ := pair(t)
	text := header([]byte("waits"))
	fillUp(t, from)
	r.Sendmsg(1, from, text, 0)
	began := time.Now()
	const limit = 20 * time.Millisecond
	if err := r.Submit(1, limit); err != nil { // it was taken
		t.Fatal(err)
	}
	err := r.Submit(1, limit)
	if e, ok := errors.AsType[*Error](err); !ok || e.Step != Enter || e.Errno != unix.ETIME {
		t.Errorf("Submit: %v, want ETIME", err)
	}
	if took := time.Since(began); took < 2*limit {
		t.Errorf("waited %v of twice %v", took, limit)
	}
	if id, result, ok := r.Next(); ok {
		t.Errorf("%d answered %d", id, result)
	}
	t.Cleanup(func() { runtime.KeepAlive(text) }) // after the ring is closed
}

func TestOverflow(t *testing.T) {
	r := newRing(t, 0)
	var err error
	for n := range uint64(3) { // there is room for twice the submissions
		for id := range uint64(4) {
			r.push(submission{id: 4*n + id}) // IORING_OP_NOP
		}
		if err = r.Submit(4, soon); err != nil && n < 2 {
			t.Fatal(err)
		}
	}
	if !errors.Is(err, ErrOverflow) {
		t.Errorf("Submit: %v, want %v", err, ErrOverflow)
	}
	for id := range uint64(8) {
		next(t, r, id, 0)
	}
}

// TestForbiddenOpcode: an answer, as from a kernel without it.
func TestForbiddenOpcode(t *testing.T) {
	const disabled, registerRestrictions, registerEnable = 1 << 6, 11, 12
	r := newRing(t, disabled)
	register := func(op uintptr, arg unsafe.Pointer, count uintptr) {
		t.Helper()
		if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, uintptr(arg), count, 0, 0); errno != 0 {
			t.Fatal(os.NewSyscallError("io_uring_register", errno))
		}
	}
	var none [16]byte // a struct io_uring_restriction that allows no opcode
	register(registerRestrictions, unsafe.Pointer(&none), 1)
	register(registerEnable, nil, 0)
	from, _ := pair(t)
	text := header([]byte("text"))
	r.Sendmsg(1, from, text, 0)
	if err := r.Submit(1, soon); err != nil {
		t.Fatal(err)
	}
	next(t, r, 1, -int32(unix.EACCES))
	runtime.KeepAlive(text)
}

// TestLostDescriptor: calls on what is no ring fail, and Close does what can be.
func TestLostDescriptor(t *testing.T) {
	r := newRing(t, 0)
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, r.fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r.push(submission{})
	err = r.Submit(1, soon)
	if e, ok := errors.AsType[*Error](err); !ok || e.Step != Enter || e.Errno != unix.EOPNOTSUPP {
		t.Errorf("Submit: %v, want EOPNOTSUPP", err)
	}
}

func TestRefusedSetup(t *testing.T) {
	_, err := open(0, 0)
	if e, ok := errors.AsType[*Error](err); !ok || e.Step != Setup || e.Errno != unix.EINVAL {
		t.Errorf("ring of none: %v, want EINVAL", err)
	}
}
