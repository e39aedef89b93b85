package sfu

import (
	"testing"
	"time"
)

func TestSenderReportAt(t *testing.T) {
	r := senderReport{ntp: 5 << 32, rtp: 1<<32 - 45000, arrived: time.Unix(1000, 0)}
	for _, test := range []struct {
		after time.Duration
		ntp   uint64
		rtp   uint32
	}{
		{0, 5 << 32, 1<<32 - 45000},
		{-time.Second, 5 << 32, 1<<32 - 45000}, // a clock that was set back
		{500 * time.Millisecond, 5<<32 + 1<<31, 0},
		{time.Hour, 3605 << 32, 3600*90000 - 45000},
		{1000 * time.Hour, 3600005 << 32, uint32((3600000*90000 - 45000) % (1 << 32))},
	} {
		if ntp, rtp := r.at(r.arrived.Add(test.after), 90000); ntp != test.ntp || rtp != test.rtp {
			t.Errorf("after %v: NTP %x, RTP %d; want %x, %d", test.after, ntp, rtp, test.ntp, test.rtp)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for _, d := range []time.Duration{0, 50 * time.Millisecond, 51 * time.Millisecond, time.Second, time.Minute} {
		h.observe(d)
	}
	s := h.snapshot()
	want := []uint64{2, 3, 3, 3, 4, 4, 4, 4}
	for i, n := range want {
		if s.Counts[i] != n {
			t.Errorf("%d observations within %v s, want %d", s.Counts[i], s.Bounds[i], n)
		}
	}
	if s.Count != 5 || s.Sum != 61.101 {
		t.Errorf("count %d, sum %v", s.Count, s.Sum)
	}
}
