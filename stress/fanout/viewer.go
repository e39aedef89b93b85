package fanout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// viewers is the viewer part: many viewers behind one pump. In a plain one the
// sockets are without sessions, for the ceiling.
type viewers struct {
	pump  *pump
	web   *http.Client
	share uint64 // one packet in so many is decrypted and checked
	all   []*viewer
}

// A viewer receives what one room's publisher sends. What is below is guarded by
// the pump's lock.
type viewer struct {
	room   int
	tap    *tap
	client *rtcclient.Viewer // nil: plain

	arrived map[uint64]time.Time // packets on their way through pion
	offset  uint64               // flow numbers less those of the publisher
	known   bool                 // offset is

	first   uint64 // publisher's number from which on is counted
	before  flow   // as it stood there
	full    uint64 // the tap's overflowed then
	checked uint64
	corrupt uint64
	delays  *hdrhistogram.Histogram // microseconds
}

func newViewers() (handlers, func(context.Context) error, error) {
	p, err := newPump()
	if err != nil {
		return nil, nil, err
	}
	v := &viewers{pump: p, share: 1}
	return handlers{
		"join": handle(v.join), "plain": handle(v.plain), "await": v.await, "begin": handle(v.begin),
		"received": v.received, "end": handle(v.end), "leave": handle(v.leave),
	}, v.close, nil
}

// joinViewers asks for viewers, spread evenly over the rooms.
type joinViewers struct {
	Target  target     `json:"target"`
	Bind    netip.Addr `json:"bind"`
	Whole   bool       `json:"whole"` // take trains uncut
	Rooms   int        `json:"rooms"`
	Viewers int        `json:"viewers"`
}

// joinParallel is how many viewers join at the same time.
const joinParallel = 8

type joined struct {
	Failed int    `json:"failed"`
	Error  string `json:"error,omitempty"` // one of the failures
}

func (v *viewers) join(ctx context.Context, o joinViewers) (any, error) {
	if v.web == nil {
		v.web = o.Target.web()
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards v.all and r
	var r joined
	slots := make(chan struct{}, joinParallel)
	for i := range o.Viewers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			one, err := v.view(ctx, o, i%o.Rooms)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.Failed, r.Error = r.Failed+1, err.Error()
				return
			}
			v.all = append(v.all, one)
		})
	}
	wg.Wait()
	v.web.CloseIdleConnections()
	return r, nil
}

// joinTimeout bounds one viewer's join.
const joinTimeout = 20 * time.Second

func (v *viewers) view(ctx context.Context, o joinViewers, room int) (*viewer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	one := newViewer(room)
	var err error
	one.tap, err = v.pump.open(o.Bind, o.Whole, func(n uint64, _ []byte, at time.Time) bool {
		pass := v.sampled(n)
		if pass {
			one.note(n, at)
		}
		return pass
	})
	if err != nil {
		return nil, err
	}
	cfg := o.Target.client("whep", room)
	cfg.HTTP, cfg.Conn, cfg.Source.NoAudio = v.web, one.tap, true
	cfg.Check = func(c rtcclient.Checked) {
		v.pump.mu.Lock()
		defer v.pump.mu.Unlock()
		n := one.tap.flow.extend(c.Seq)
		one.check(n, c.Number, c.Sent, one.arrived[n], c.Intact)
		delete(one.arrived, n)
	}
	if one.client, err = rtcclient.View(ctx, cfg); err != nil {
		return nil, errors.Join(err, one.tap.Close())
	}
	return one, nil
}

func newViewer(room int) *viewer {
	return &viewer{room: room, arrived: map[uint64]time.Time{}, delays: newDelays()}
}

// newDelays makes a histogram of microseconds up to 10 s, to 1 %.
func newDelays() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Second/time.Microsecond), 2)
}

// sampled picks one packet of each share, at another place in each, so that all
// places in a frame come to be looked at.
func (v *viewers) sampled(n uint64) bool { return n%v.share == n/v.share*5%v.share }

// note keeps when a packet came, until check has it. pion may drop some.
func (v *viewer) note(n uint64, at time.Time) {
	if len(v.arrived) == maxArrived {
		clear(v.arrived)
	}
	v.arrived[n] = at
}

// maxArrived is more than pion keeps of one stream.
const maxArrived = 4096

// check notes what a packet says of itself, with the pump locked.
func (v *viewer) check(n uint64, number uint32, sent, arrived time.Time, intact bool) {
	v.offset, v.known = n-uint64(number), true
	v.checked++
	if !intact {
		v.corrupt++
	}
	if !arrived.IsZero() {
		_ = v.delays.RecordValue(max(1, arrived.Sub(sent).Microseconds())) // above 10 s: not recorded
	}
}

// await returns when every viewer has had one more packet that was checked.
func (v *viewers) await(ctx context.Context, _ json.RawMessage) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	v.setShare(1)
	v.locked(func(one *viewer) { one.known = false })
	for {
		waiting := 0
		v.locked(func(one *viewer) {
			if !one.known {
				waiting++
			}
		})
		if waiting == 0 {
			return nil, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d viewers get no media: %w", waiting, len(v.all), ctx.Err())
		}
	}
}

func (v *viewers) setShare(share uint64) {
	v.pump.mu.Lock()
	defer v.pump.mu.Unlock()
	v.share = share
}

func (v *viewers) locked(do func(*viewer)) {
	v.pump.mu.Lock()
	defer v.pump.mu.Unlock()
	for _, one := range v.all {
		do(one)
	}
}

// begin sets the counts to nothing, and the share of the packets to be checked
// from now on.
func (v *viewers) begin(_ context.Context, share uint64) (any, error) {
	v.setShare(max(1, share))
	v.locked(func(one *viewer) {
		one.first, one.before = one.tap.flow.newest+1-one.offset, one.tap.flow
		one.full = one.tap.overflowed()
		one.checked, one.corrupt = 0, 0
		one.delays.Reset()
		one.tap.full = 0
	})
	return nil, nil
}

// received returns how many packets came since begin.
func (v *viewers) received(context.Context, json.RawMessage) (any, error) {
	var n uint64
	v.locked(func(one *viewer) { n += one.tap.flow.packets - one.before.packets })
	return n, nil
}

// A tally is what all viewers together got.
type tally struct {
	Delivered  uint64    `json:"delivered"`
	Lost       uint64    `json:"lost"`       // of what was published since the first packet counted
	Overflowed uint64    `json:"overflowed"` // reached a viewer's socket, which was full
	Duplicates uint64    `json:"duplicates"`
	Reordered  uint64    `json:"reordered"`
	Checked    uint64    `json:"checked"` // decrypted, and their checksum compared
	Corrupt    uint64    `json:"corrupt"`
	Unchecked  uint64    `json:"unchecked"` // picked to be checked, but this process was too slow
	Viewers    int       `json:"viewers"`
	Losers     int       `json:"losers"` // viewers that lost something
	MaxMS      float64   `json:"max_ms"`
	DelaysUS   histogram `json:"delays_us"`
}

// histogram is a hdrhistogram.Snapshot without its zeros, bounded as newDelays is.
type histogram map[int64]int64

// quiet is how long nothing has to come until nothing more is on its way.
const (
	quiet      = 150 * time.Millisecond
	quietLimit = 5 * time.Second
)

// end returns what came since begin when all is there, given for each room the
// number of packets that were sent.
func (v *viewers) end(ctx context.Context, sent []uint64) (any, error) {
	v.awaitQuiet(ctx)
	t := tally{DelaysUS: histogram{}}
	v.locked(func(one *viewer) {
		f := &one.tap.flow
		got := f.packets - one.before.packets
		t.Delivered += got
		if lost := int64(sent[one.room]) - int64(one.first) - int64(got); lost > 0 {
			t.Lost += uint64(lost)
			t.Losers++
		}
		t.Overflowed += one.tap.overflowed() - one.full
		t.Duplicates += f.duplicates - one.before.duplicates
		t.Reordered += f.reordered - one.before.reordered
		t.Checked += one.checked
		t.Corrupt += one.corrupt
		t.Unchecked += one.tap.full
		t.Viewers++
		t.MaxMS = math.Max(t.MaxMS, float64(one.delays.Max())/1000)
		for _, bar := range one.delays.Distribution() {
			if bar.Count > 0 {
				t.DelaysUS[bar.To] += bar.Count
			}
		}
	})
	return t, nil
}

func (v *viewers) awaitQuiet(ctx context.Context) {
	for end := time.Now().Add(quietLimit); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(quiet / 10) {
		var last time.Time
		v.locked(func(one *viewer) {
			if one.tap.last.After(last) {
				last = one.tap.last
			}
		})
		if time.Since(last) > quiet {
			return
		}
	}
}

// leave ends so many of the sessions, the oldest first; below 0 all.
func (v *viewers) leave(ctx context.Context, n int) (any, error) {
	if n < 0 || n > len(v.all) {
		n = len(v.all)
	}
	leaving := v.all[:n]
	v.all = append([]*viewer(nil), v.all[n:]...)
	errs := make([]error, len(leaving))
	var wg sync.WaitGroup
	slots := make(chan struct{}, joinParallel)
	for i, one := range leaving {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if one.client != nil {
				errs[i] = one.client.Close(ctx)
			}
			errs[i] = errors.Join(errs[i], one.tap.Close())
		})
	}
	wg.Wait()
	if v.web != nil {
		v.web.CloseIdleConnections()
	}
	return nil, errors.Join(errs...)
}

func (v *viewers) close(ctx context.Context) error {
	_, err := v.leave(ctx, -1)
	return errors.Join(err, v.pump.close())
}
