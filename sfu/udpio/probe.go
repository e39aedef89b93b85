package udpio

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Verdict is what trying a capability showed.
type Verdict string

// The verdicts.
const (
	Yes     Verdict = "yes"
	No      Verdict = "no"
	Unknown Verdict = "unknown" // could not tell
)

// A Capability is one thing the host may be able to do.
type Capability struct {
	Name    string  `json:"name"`
	Tried   string  `json:"tried"` // what was done to find out
	Verdict Verdict `json:"verdict"`
	Cause   string  `json:"cause,omitempty"`  // unless yes: in a word, like UringCause; empty where it is not known
	Detail  string  `json:"detail,omitempty"` // unless yes: what happened
	Remedy  string  `json:"remedy,omitempty"` // unless yes: what the operator can do
}

// noLoopback is the remedy where nothing could be tried.
const noLoopback = "bring the loopback interface up (ip link set lo up)"

// Probe tries all that sending and receiving can make use of here, in less than
// a second but for a Child that hangs. It stops early, with what it has, when
// ctx ends.
func (p *Prober) Probe(ctx context.Context) []Capability {
	var found []Capability
	for _, probe := range []func() []Capability{
		one("sendmmsg", "sendmmsg(2) on no socket", p.HaveSendmmsg,
			"allow sendmmsg in the seccomp profile; until then each datagram takes a system call"),
		one("UDP_SEGMENT", "three datagrams sent as one over loopback, received and compared", p.HaveSegment,
			"needs Linux 4.18; until then datagrams leave one by one"),
		one("recvmmsg", "recvmmsg(2) on no socket", p.HaveRecvmmsg,
			"allow recvmmsg in the seccomp profile; until then each datagram takes a system call"),
		one("UDP_GRO", "three datagrams sent as one over loopback, received as one", p.HaveGRO,
			"needs Linux 5.0; until then merged datagrams arrive one by one"),
		one("io_uring", "a datagram and three as one sent through a ring over loopback, received and compared", p.HaveUring, ""),
		probeBuffers,
	} {
		if ctx.Err() != nil {
			break
		}
		found = append(found, probe()...)
	}
	return found
}

func one(name, tried string, have func() error, remedy string) func() []Capability {
	return func() []Capability {
		c := Capability{Name: name, Tried: tried, Verdict: Yes}
		if err := have(); err != nil {
			c.Verdict, c.Cause, c.Detail, c.Remedy = Unknown, causeOf(err), err.Error(), noLoopback
			if errors.Is(err, errors.ErrUnsupported) {
				c.Verdict, c.Remedy = No, remedy
			}
			if uring, ok := errors.AsType[*UringError](err); ok {
				c.Remedy = uring.Remedy
			}
		}
		return []Capability{c}
	}
}

// causeOf is an error from a Have method in a word.
func causeOf(err error) string {
	if uring, ok := errors.AsType[*UringError](err); ok {
		return string(uring.Cause)
	}
	switch {
	case !errors.Is(err, errors.ErrUnsupported):
		return ""
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOSYS):
		return "seccomp" // every kernel that Go runs on has these system calls
	}
	return "kernel"
}

// probeBuffers asks for the default socket buffers.
func probeBuffers() []Capability {
	s, err := openSocket(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0))
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		s, err = openSocket(netip.AddrPortFrom(netip.IPv6Loopback(), 0))
	}
	if err != nil {
		return []Capability{{Name: "socket buffers", Tried: "a UDP socket on loopback", Verdict: Unknown, Detail: err.Error(),
			Remedy: noLoopback}}
	}
	defer s.close()
	var found []Capability
	for _, b := range s.setBuffers(DefaultSocketBytes) {
		c := Capability{Name: b.name + " buffer", Tried: fmt.Sprintf("%d bytes asked", b.asked), Verdict: Yes}
		if remedy := b.remedy(); remedy != "" {
			c.Verdict, c.Cause, c.Detail, c.Remedy = No, "sysctl", fmt.Sprintf("%d bytes given", b.have), remedy
		}
		found = append(found, c)
	}
	return found
}
