package fanout

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// A target is where an SFU answers WHIP and WHEP.
type target struct {
	URL    string `json:"url"`              // with {kind} (whip or whep) and {room}
	Socket string `json:"socket,omitempty"` // unix socket to reach it through
	Token  string `json:"token,omitempty"`
	Room   string `json:"room"` // what the rooms' names begin with
}

func (t target) client(kind string, room int) rtcclient.Config {
	url := strings.NewReplacer("{kind}", kind, "{room}", t.Room+strconv.Itoa(room)).Replace(t.URL)
	return rtcclient.Config{URL: url, Token: t.Token}
}

// web returns the HTTP client for the target, whose idle connections the caller
// closes.
func (t target) web() *http.Client {
	if t.Socket == "" {
		return &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	return &http.Client{Transport: control.Transport(t.Socket)}
}

// A Load is what each publisher sends.
type Load struct {
	Rate  int  `json:"rate"`  // bit/s of RTP payload; 0: nothing
	Frame int  `json:"frame"` // packets of a frame
	Paced bool `json:"paced"` // packets evenly over the frame's time, not all at once
}

// payloadSize is the length of an RTP payload, in bytes.
const payloadSize = 1200

func (l Load) packetsPerSecond() float64 { return float64(l.Rate) / (8 * payloadSize) }

func (l Load) source() rtcclient.Source {
	return rtcclient.Source{Rate: l.Rate, Frame: l.Frame, Paced: l.Paced, PacketSize: payloadSize, Pause: l.Rate == 0, NoAudio: true}
}

// publishers is the publisher part: one publisher for each room.
type publishers struct {
	target target
	web    *http.Client
	all    []*rtcclient.Publisher
}

func newPublishers() (handlers, func(context.Context) error, error) {
	p := &publishers{}
	return handlers{"open": handle(p.open), "load": handle(p.load), "sent": p.sent, "replace": handle(p.replace)}, p.close, nil
}

type openPublishers struct {
	Target target `json:"target"`
	Rooms  int    `json:"rooms"`
}

func (p *publishers) open(ctx context.Context, o openPublishers) (any, error) {
	p.target, p.web = o.Target, o.Target.web()
	for room := range o.Rooms {
		one, err := p.publish(ctx, room)
		if err != nil {
			return nil, err
		}
		p.all = append(p.all, one)
	}
	return nil, nil
}

// publish connects to a room, and sends nothing yet.
func (p *publishers) publish(ctx context.Context, room int) (*rtcclient.Publisher, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	defer p.web.CloseIdleConnections()
	cfg := p.target.client("whip", room)
	cfg.HTTP, cfg.Source = p.web, Load{Frame: 1}.source()
	return rtcclient.Publish(ctx, cfg)
}

// replace has another publisher take the place of a room's.
func (p *publishers) replace(ctx context.Context, room int) (any, error) {
	if err := p.all[room].Close(ctx); err != nil {
		return nil, err
	}
	one, err := p.publish(ctx, room)
	if err != nil {
		return nil, err
	}
	p.all[room] = one
	return nil, nil
}

// load has all publishers send so from now on, and returns how many packets each
// room was sent until then.
func (p *publishers) load(_ context.Context, l Load) (any, error) {
	for _, one := range p.all {
		one.Set(l.source())
	}
	return p.numbers(), nil
}

func (p *publishers) sent(context.Context, json.RawMessage) (any, error) { return p.numbers(), nil }

// numbers returns how many packets each room was sent.
func (p *publishers) numbers() []uint64 {
	numbers := make([]uint64, len(p.all))
	for i, one := range p.all {
		numbers[i] = one.Stats().Video
	}
	return numbers
}

func (p *publishers) close(ctx context.Context) error {
	var errs []error
	for _, one := range p.all {
		errs = append(errs, one.Close(ctx))
	}
	if p.web != nil {
		p.web.CloseIdleConnections()
	}
	return errors.Join(errs...)
}
