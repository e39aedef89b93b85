package fanout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"time"

	"github.com/sfu-agent/sfu-agent/agent/control"
)

// A scene is what one measurement after the other is made on: an SFU with
// publishers and viewers, and a ceiling with as many sockets.
type scene struct {
	cfg     *Config
	variant Variant
	viewers int
	pids    []int // of the SFU
	target  target

	worker            *worker // nil: the SFU is another's
	publisher, viewer *part
	ceiling, plain    *part // nil: no ceiling
	rssPerViewer      float64
	failed            int
	failure           string
}

// open starts what the scene needs. On an error it leaves nothing behind.
func (cfg *Config) open(ctx context.Context, v Variant, viewers int) (_ *scene, err error) {
	s := &scene{cfg: cfg, variant: v, viewers: viewers, pids: tree(cfg.PIDs...)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, %d viewers: %w", v, viewers, errors.Join(err, s.close(context.WithoutCancel(ctx))))
		}
	}()
	s.target = target{URL: cfg.Target, Token: cfg.Token, Room: "fanout-" + rand.Text()[:8] + "-"}
	if cfg.Target == "" {
		s.worker, err = startWorker(ctx, func(socket string) *exec.Cmd { return cfg.Worker(socket, v) })
		if err != nil {
			return s, err
		}
		s.target.URL, s.target.Socket = "http://worker/{kind}/{room}", s.worker.socket()
		s.pids = []int{s.worker.pid()}
	}
	if err := s.connect(ctx); err != nil {
		return s, err
	}
	return s, s.openCeiling(ctx)
}

func (s *scene) connect(ctx context.Context) error {
	var err error
	if s.publisher, err = startPart(s.cfg.Part(publisherPart), publisherPart); err != nil {
		return err
	}
	if s.viewer, err = startPart(s.cfg.Part(viewerPart), viewerPart); err != nil {
		return err
	}
	s.cfg.progress("publishers connect")
	if err := s.publisher.call(ctx, "open", openPublishers{s.target, s.cfg.Rooms}, nil); err != nil {
		return err
	}
	empty, err := s.settledRSS(ctx)
	if err != nil {
		return err
	}
	s.cfg.progress(fmt.Sprintf("%d viewers join", s.viewers))
	var j joined
	if err := s.viewer.call(ctx, "join", joinViewers{s.target, s.cfg.bind(), s.cfg.GRO, s.cfg.Rooms, s.viewers}, &j); err != nil {
		return err
	}
	if s.failed, s.failure = j.Failed, j.Error; j.Failed == s.viewers {
		return fmt.Errorf("no viewer could join: %s", j.Error)
	}
	full, err := s.settledRSS(ctx)
	s.rssPerViewer = float64(full-empty) / 1024 / float64(s.viewers-s.failed)
	return err
}

// settle is how long memory is left to settle before it is looked at.
const settle = time.Second

func (s *scene) settledRSS(ctx context.Context) (int64, error) {
	if err := sleep(ctx, settle); err != nil {
		return 0, err
	}
	return rss(s.pids)
}

func (s *scene) openCeiling(ctx context.Context) error {
	if s.cfg.NoCeiling {
		return nil
	}
	var err error
	if s.ceiling, err = startPart(s.cfg.Part(ceilingPart), ceilingPart); err != nil {
		return err
	}
	if s.plain, err = startPart(s.cfg.Part(viewerPart), viewerPart); err != nil {
		return err
	}
	var dests []netip.AddrPort
	if err := s.plain.call(ctx, "plain", plainViewers{s.cfg.bind(), s.cfg.GRO, s.cfg.Rooms, s.viewers}, &dests); err != nil {
		return err
	}
	return s.ceiling.call(ctx, "open", openCeiling{s.cfg.Rooms, dests}, nil)
}

func (s *scene) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var errs []error
	for _, p := range []*part{s.viewer, s.plain, s.publisher, s.ceiling} {
		if p != nil {
			errs = append(errs, p.close(ctx))
		}
	}
	if s.worker != nil {
		errs = append(errs, s.worker.close())
	}
	return errors.Join(errs...)
}

// A sample is one measurement.
type sample struct {
	cpu       time.Duration // of the process measured
	wall      time.Duration
	delivered uint64 // packets, in the time that cpu is of
	published uint64
	tally     tally // until all of it had come
	udp       udpWork
}

func (s sample) cpuPerPacket() float64 {
	return float64(s.cpu.Nanoseconds()) / 1000 / float64(s.delivered)
}

// udpWork is what the worker's socket did.
type udpWork struct {
	packets, calls, sends float64
	batches, held         float64 // batches that were held back, and seconds of it
}

// plus returns u with so many times v.
func (u udpWork) plus(v udpWork, times float64) udpWork {
	return udpWork{
		u.packets + times*v.packets, u.calls + times*v.calls, u.sends + times*v.sends,
		u.batches + times*v.batches, u.held + times*v.held,
	}
}

func workOf(c control.Counters) udpWork {
	return udpWork{
		packets: float64(c.UDPPacketsOut), calls: float64(c.UDPBatches), sends: float64(c.UDPTrains + c.UDPPacketsOut - c.UDPInTrains),
		batches: float64(c.UDPHolds + c.UDPDelays), held: c.UDPHeldSeconds,
	}
}

// ours measures the SFU.
func (s *scene) ours(ctx context.Context, l Load, d time.Duration) (sample, error) {
	return s.measure(ctx, s.publisher, s.viewer, s.pids, l, d)
}

// atCeiling measures the ceiling.
func (s *scene) atCeiling(ctx context.Context, l Load, d time.Duration) (sample, error) {
	return s.measure(ctx, s.ceiling, s.plain, []int{s.ceiling.pid()}, l, d)
}

// warmUp is for how long a load runs before it is measured.
const warmUp = 500 * time.Millisecond

// measure has sender send l to receiver, and looks at what pids use for d of it.
func (s *scene) measure(ctx context.Context, sender, receiver *part, pids []int, l Load, d time.Duration) (m sample, err error) {
	if err := s.trickle(ctx, sender, receiver, l); err != nil {
		return m, err
	}
	if err := sender.call(ctx, "load", l, nil); err != nil {
		return m, err
	}
	if err := sleep(ctx, warmUp); err != nil {
		return m, err
	}
	if err := receiver.call(ctx, "begin", s.share(l), nil); err != nil {
		return m, err
	}
	before, err := s.look(ctx, sender, receiver, pids)
	if err != nil {
		return m, err
	}
	if err := sleep(ctx, d); err != nil {
		return m, err
	}
	after, err := s.look(ctx, sender, receiver, pids)
	if err != nil {
		return m, err
	}
	var sent []uint64
	if err := sender.call(ctx, "load", Load{}, &sent); err != nil {
		return m, err
	}
	m = sample{
		cpu: after.cpu - before.cpu, wall: after.at.Sub(before.at), delivered: after.delivered - before.delivered,
		published: after.published - before.published, udp: after.udp.plus(before.udp, -1),
	}
	return m, receiver.call(ctx, "end", sent, &m.tally)
}

// trickle sends a little until every viewer has something.
func (s *scene) trickle(ctx context.Context, sender, receiver *part, l Load) error {
	l.Rate = min(l.Rate, 10*l.Frame*payloadSize*8)
	if err := sender.call(ctx, "load", l, nil); err != nil {
		return err
	}
	return receiver.call(ctx, "await", nil, nil)
}

// Packets are all checked up to so many a second, else one of so many.
const (
	checkAll   = 5000
	checkShare = 32
)

func (s *scene) share(l Load) uint64 {
	if l.packetsPerSecond()*float64(s.viewers) <= checkAll {
		return 1
	}
	return checkShare
}

// look is what the counters say at one moment.
type look struct {
	at        time.Time
	cpu       time.Duration
	delivered uint64
	published uint64
	udp       udpWork
}

func (s *scene) look(ctx context.Context, sender, receiver *part, pids []int) (look, error) {
	var l look
	var err error
	if s.worker != nil {
		status, err := s.worker.control.Status(ctx)
		if err != nil {
			return l, err
		}
		l.udp = workOf(status.Counters)
	}
	var sent []uint64
	if err := sender.call(ctx, "sent", nil, &sent); err != nil {
		return l, err
	}
	for _, n := range sent {
		l.published += n
	}
	if err := receiver.call(ctx, "received", nil, &l.delivered); err != nil {
		return l, err
	}
	l.at = time.Now()
	l.cpu, err = cpuTime(pids)
	return l, err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
