package udpio

import (
	"errors"
	"sync"
)

// A Prober finds out what this host can do, by trying. An answer that is
// conclusive, yes or no, is remembered; the zero value knows nothing yet.
//
// Each Have method returns nil, an error that wraps errors.ErrUnsupported, or
// another one when it could not tell.
type Prober struct {
	// Child is a command that calls TryUring and exits with 0. UringReturns runs
	// it where a seccomp filter is on.
	Child []string

	mu    sync.Mutex
	known map[string]error
}

// HaveSendmmsg tries sendmmsg(2) (Linux 3.0).
func (p *Prober) HaveSendmmsg() error { return p.once("sendmmsg", trySendmmsg) }

// HaveRecvmmsg tries recvmmsg(2) (Linux 2.6.33).
func (p *Prober) HaveRecvmmsg() error { return p.once("recvmmsg", tryRecvmmsg) }

// HaveSegment sends a train of three datagrams over loopback and compares what
// arrives (udp(7), UDP_SEGMENT, Linux 4.18).
func (p *Prober) HaveSegment() error { return p.once("UDP_SEGMENT", trySegment) }

// HaveGRO tries to have datagrams merged on receipt (udp(7), UDP_GRO, Linux 5.0).
func (p *Prober) HaveGRO() error { return p.once("UDP_GRO", tryGRO) }

// HaveUring sends a datagram and a train through an io_uring over loopback and
// compares what arrives (io_uring(7), Linux 5.11), if UringReturns. An error is
// a *UringError.
func (p *Prober) HaveUring() error {
	if err := p.UringReturns(); err != nil {
		return err
	}
	return p.once("io_uring", tryUring)
}

// UringReturns finds out whether this process survives calls of io_uring, which
// a seccomp filter may answer by ending it. Without a filter it does, else Child
// goes first, for two seconds at most. An error is a *UringError.
//
// A process that is to install a filter without execve(2) calls this before,
// and HaveUring after; the filter must allow io_uring calls or answer them with
// an errno.
func (p *Prober) UringReturns() error {
	return p.once("io_uring returns", func() error { return uringReturns(p.Child) })
}

func (p *Prober) once(name string, try func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err, ok := p.known[name]; ok {
		return err
	}
	err := try()
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		if p.known == nil {
			p.known = make(map[string]error)
		}
		p.known[name] = err
	}
	return err
}
