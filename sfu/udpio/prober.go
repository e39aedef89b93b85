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
