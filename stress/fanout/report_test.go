package fanout

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

func mustJSON(t *testing.T, v any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Spread
		text   string
	}{
		{nil, Spread{}, "-"},
		{[]float64{2}, Spread{2, 2, 2}, "2.00 [2.00-2.00]"},
		{[]float64{3, 1, 2}, Spread{2, 1, 3}, "2.00 [1.00-3.00]"},
		{[]float64{4, 1, 2, 3}, Spread{2.5, 1, 4}, "2.50 [1.00-4.00]"},
	} {
		if got := spread(test.values); got != test.want || got.String() != test.text {
			t.Errorf("%v: %+v, %s", test.values, got, got)
		}
	}
}

func TestQuantile(t *testing.T) {
	h := histogram{1000: 98, 2000: 1, 9000: 1}
	for q, want := range map[float64]float64{.5: 1000, .98: 1000, .99: 2000, 1: 9000} {
		if got := h.quantile(q); got != want {
			t.Errorf("%v: %v", q, got)
		}
	}
	if got := (histogram{}).quantile(.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestRow adds up two rounds of a load of 1000 packets/s to one viewer.
func TestRow(t *testing.T) {
	r := &Row{Rung: "gso", Viewers: 1, Rooms: 1, Load: Load{Rate: 8 * payloadSize * 1000, Frame: 8}, delays: histogram{}}
	for _, us := range []time.Duration{3, 5} {
		m := sample{
			cpu: us * time.Millisecond, wall: time.Second, delivered: 1000, published: 1000, udp: udpWork{packets: 1000, calls: 50, sends: 125, batches: 10, held: .01},
			tally: tally{Delivered: 1000, Lost: 1, Checked: 10, MaxMS: float64(us), DelaysUS: histogram{1000: 9, 4000: 1}},
		}
		r.add(m, &sample{cpu: 2 * time.Millisecond, wall: time.Second, delivered: 1000, published: 900})
	}
	r.conclude()
	if r.CPUPerPacketUS != (Spread{4, 3, 5}) || r.CeilingUS != (Spread{2, 2, 2}) || r.Ratio != (Spread{2, 1.5, 2.5}) {
		t.Errorf("CPU %v, ceiling %v, ratio %v", r.CPUPerPacketUS, r.CeilingUS, r.Ratio)
	}
	if r.PacketsPerSecond != 1000 || r.PacketsPerSend != 8 || r.PacketsPerCall != 20 || r.HeldMeanMS != 1 || r.Lost != 2 || r.Checked != 20 {
		t.Errorf("%+v", r)
	}
	if r.LatencyMS.P50 != 1 || r.LatencyMS.P99 != 4 || r.LatencyMS.Max != 5 {
		t.Errorf("latency %+v", r.LatencyMS)
	}
	if r.Note != "the ceiling sent only 90 % of what was asked" {
		t.Errorf("note %q", r.Note)
	}
	if r.kept() {
		t.Error("kept, with loss")
	}
	if r.Lost = 0; !r.kept() {
		t.Error("not kept, without loss")
	}
	if r.SentOfAsked = .9; r.kept() {
		t.Error("kept, with a slow publisher")
	}
	report := &Report{Rows: []*Row{r}}
	for name, write := range map[string]func(io.Writer) error{"text": report.Text, "Markdown": report.Markdown, "JSON": report.JSON} {
		var out bytes.Buffer
		if err := write(&out); err != nil || !strings.Contains(out.String(), "gso") {
			t.Errorf("%s: %v, %s", name, err, &out)
		}
	}
}

func TestBad(t *testing.T) {
	good := Row{Delivered: 9}
	for name, test := range map[string]struct {
		change         func(*Row)
		lenient, stern bool // whether it is bad
	}{
		"good":            {func(*Row) {}, false, false},
		"a loss":          {func(r *Row) { r.Lost = 1 }, false, true},
		"a wrong byte":    {func(r *Row) { r.Corrupt = 1 }, false, true},
		"a session":       {func(r *Row) { r.SessionsFailed = 1 }, true, true},
		"nothing at all":  {func(r *Row) { r.Delivered = 0 }, true, true},
		"the ceiling's":   {func(r *Row) { r.CeilingLost = 9 }, false, false},
		"duplicates only": {func(r *Row) { r.Duplicates = 9 }, false, false},
	} {
		row := good
		test.change(&row)
		r := &Report{Rows: []*Row{&good, &row}}
		if err := r.Bad(false); (err != nil) != test.lenient {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.Bad(true); (err != nil) != test.stern {
			t.Errorf("%s, strict: %v", name, err)
		}
	}
}

func TestNext(t *testing.T) {
	for _, test := range []struct{ good, bad, want int }{{0, 0, 100}, {100, 0, 200}, {0, 100, 50}, {100, 200, 150}} {
		if got := next(100, test.good, test.bad); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
}

func TestSoakVerdict(t *testing.T) {
	const n = 31 // one of warm-up, thirds of ten at least
	for name, test := range map[string]struct {
		change func(i int, s *SoakSample)
		want   string // in the verdict; empty for a good one
	}{
		"flat":               {func(int, *SoakSample) {}, ""},
		"warm-up":            {func(i int, s *SoakSample) { s.RSS -= int64(max(0, 3-i)) << 20; s.FDs -= max(0, 3-i) }, ""},
		"a little memory":    {func(i int, s *SoakSample) { s.RSS += int64(i) << 12 }, ""},
		"memory":             {func(i int, s *SoakSample) { s.RSS += int64(i) << 18 }, "memory grew"},
		"open files":         {func(i int, s *SoakSample) { s.FDs += i / 15 }, "open files grew from 13 to 14"},
		"goroutines":         {func(i int, s *SoakSample) { s.Goroutines += i / 15 }, "goroutines grew"},
		"one, for a moment":  {func(i int, s *SoakSample) { s.FDs += i / 30 }, ""},
		"fewer":              {func(i int, s *SoakSample) { s.Goroutines -= i }, ""},
		"loss":               {func(i int, s *SoakSample) { s.Lost = uint64(i / 30) }, "1 lost"},
		"no media":           {func(i int, s *SoakSample) { s.Delivered = uint64(30 - i) }, "0 packets delivered"},
		"memory, short time": {func(i int, s *SoakSample) { s.Seconds /= 100; s.RSS += int64(i) << 20 }, ""},
	} {
		r := &SoakReport{}
		for i := range n {
			s := SoakSample{Seconds: float64(i * 60), RSS: 40 << 20, FDs: 13, Goroutines: 300, Delivered: 30}
			test.change(i, &s)
			r.Samples = append(r.Samples, s)
		}
		err := r.Bad()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		var out bytes.Buffer
		if err := r.Print(&out, false); err != nil || strings.Count(out.String(), "\n") > soakLines+3 || !strings.Contains(out.String(), r.Verdict) {
			t.Errorf("%s: %v, printed\n%s", name, err, &out)
		}
	}
	if (&SoakReport{Samples: make([]SoakSample, 3)}).Bad() == nil {
		t.Error("three samples are enough")
	}
}

func TestPartAnswers(t *testing.T) {
	in := strings.NewReader(`{"do":"sent"}` + "\n" + `{"do":"fly"}` + "\n" + `{"do":"load","args":"fast"}` + "\n")
	var out bytes.Buffer
	if err := Part(context.Background(), ceilingPart, in, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || lines[0] != `{"result":[]}` || lines[1] != `{"error":"unknown order"}` || !strings.Contains(lines[2], "cannot unmarshal") {
		t.Errorf("answers %q", lines)
	}
	if Part(context.Background(), "drummer", in, &out) == nil {
		t.Error("there is a drummer")
	}
}
