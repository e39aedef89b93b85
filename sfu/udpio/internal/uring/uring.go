// Package uring hands sends to the kernel through an io_uring (io_uring(7),
// Linux 5.11) and takes the answers.
package uring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrOverflow is that of Submit when answers came for which there was no room:
// the ring is not to be used any more.
var ErrOverflow = errors.New("io_uring: completion queue overflowed")

// A Step is what was done to a ring when it went wrong.
type Step string

// The steps.
const (
	Setup    Step = "io_uring_setup"
	Features Step = "io_uring features" // the kernel is too old for this package
	Map      Step = "io_uring mmap"
	Enter    Step = "io_uring_enter"
	Sendmsg  Step = "IORING_OP_SENDMSG"
)

// An Error is a step that the kernel refused.
type Error struct {
	Step  Step
	Errno syscall.Errno
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Step, e.Errno) }
func (e *Error) Unwrap() error { return e.Errno }

// Have tries whether the kernel has io_uring and no filter stops it: EBADF is the
// answer that says so. That is not to say that New works, which
// kernel.io_uring_disabled forbids. The error is an *Error.
func Have() error {
	const none = ^uintptr(0)
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, none, 0, 0, 0, 0, 0); errno != unix.EBADF {
		return &Error{Enter, errno}
	}
	return nil
}

// A Ring is used by one goroutine at a time, on whatever thread. What is pushed
// is submitted by Submit, and answered by Next.
type Ring struct {
	fd    int
	rings []byte // the memory of both queues
	table []byte // that of entries
	sq    queue
	cq    queue

	flags, overflow *atomic.Uint32 // the kernel's
	entries         []submission
	answers         []completion

	// Of Submit. In the Ring since the kernel is given addresses.
	wait     getevents
	duration unix.Timespec
}

// A queue is a head where entries leave and a tail where they come.
type queue struct {
	head, tail *atomic.Uint32
	mask       uint32
}

// New makes a ring for so many submissions at once, rounded up to a power of
// two. An error of the kernel is an *Error.
//
// It sets no flags. IORING_SETUP_SINGLE_ISSUER with DEFER_TASKRUN ties a ring to
// one thread, and a goroutine that is locked to one is dear to wake: up to 2.5
// times the CPU time of a send. They and COOP_TASKRUN bring nothing to calls that
// are answered while they are submitted.
func New(entries int) (*Ring, error) { return open(entries, 0) }

func open(entries int, flags uint32) (*Ring, error) {
	p := params{flags: flags}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, &Error{Setup, errno}
	}
	r := &Ring{fd: int(fd)}
	if err := r.mmap(&p); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// mmap finds the queues.
func (r *Ring) mmap(p *params) error {
	const needed = featureSingleMmap | featureNoDrop | featureExtArg
	if p.features&needed != needed {
		return &Error{Features, unix.ENOSYS}
	}
	size := max(p.sqOff.array+p.sqEntries*4, p.cqOff.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	var err error
	if r.rings, err = r.mapAt(offsetRings, int(size)); err != nil {
		return err
	}
	if r.table, err = r.mapAt(offsetEntries, int(p.sqEntries)*int(unsafe.Sizeof(submission{}))); err != nil {
		return err
	}
	r.sq = queue{r.word(p.sqOff.head), r.word(p.sqOff.tail), p.sqEntries - 1}
	r.cq = queue{r.word(p.cqOff.head), r.word(p.cqOff.tail), p.cqEntries - 1}
	r.flags, r.overflow = r.word(p.sqOff.flags), r.word(p.cqOff.overflow)
	r.entries = unsafe.Slice((*submission)(unsafe.Pointer(&r.table[0])), p.sqEntries)
	r.answers = unsafe.Slice((*completion)(unsafe.Pointer(&r.rings[p.cqOff.cqes])), p.cqEntries)
	for i := range p.sqEntries { // entry i stays in place i
		r.word(p.sqOff.array + 4*i).Store(i)
	}
	return nil
}

func (r *Ring) mapAt(offset int64, length int) ([]byte, error) {
	b, err := unix.Mmap(r.fd, offset, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if errno, ok := err.(syscall.Errno); ok {
		return nil, &Error{Map, errno}
	}
	return b, err
}

func (r *Ring) word(offset uint32) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&r.rings[offset]))
}

// Sendmsg pushes a sendmsg(2) on a socket, and reports whether there was room.
// Next answers it with id. The caller keeps header, and what it points to, in
// place until then.
func (r *Ring) Sendmsg(id uint64, fd int, header *unix.Msghdr, flags uint32) bool {
	return r.push(submission{
		opcode: opSendmsg, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(header))), len: 1, opFlags: flags, id: id,
	})
}

func (r *Ring) push(s submission) bool {
	tail := r.sq.tail.Load()
	if tail-r.sq.head.Load() == uint32(len(r.entries)) {
		return false
	}
	r.entries[tail&r.sq.mask] = s
	r.sq.tail.Store(tail + 1)
	return true
}

// Submit has the kernel take what was pushed, and waits until count answers are
// there for Next, or for limit. There may be fewer where the kernel took only a
// part or the limit passed: then it is called again, and returns an error if
// nothing was taken. The error is an *Error, with ETIME for the limit, or
// ErrOverflow.
func (r *Ring) Submit(count int, limit time.Duration) error {
	r.duration = unix.NsecToTimespec(int64(limit))
	r.wait = getevents{duration: uint64(uintptr(unsafe.Pointer(&r.duration)))}
	for {
		pushed := r.sq.tail.Load() - r.sq.head.Load()
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(pushed), uintptr(count),
			enterGetevents|enterExtArg, uintptr(unsafe.Pointer(&r.wait)), unsafe.Sizeof(r.wait))
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return &Error{Enter, errno}
		case r.flags.Load()&sqOverflow != 0 || r.overflow.Load() != 0:
			return ErrOverflow
		}
		return nil
	}
}

// Next returns an answer that is there: what the system call would have
// returned, a negative errno if it failed.
func (r *Ring) Next() (id uint64, result int32, ok bool) {
	head := r.cq.head.Load()
	if head == r.cq.tail.Load() {
		return 0, 0, false
	}
	c := r.answers[head&r.cq.mask]
	r.cq.head.Store(head + 1)
	return c.id, c.result, true
}

// Close gives the ring back. The kernel cancels what it has not answered, some
// time later.
func (r *Ring) Close() error {
	var errs []error
	for _, mapped := range [][]byte{r.rings, r.table} {
		if mapped != nil {
			errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(mapped)))
		}
	}
	return errors.Join(append(errs, os.NewSyscallError("close", unix.Close(r.fd)))...)
}
