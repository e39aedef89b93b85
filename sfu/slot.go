package sfu

import (
	"slices"
	"sync/atomic"
)

// A slot is the room's m-section of one kind and codec: the up-track that feeds
// it now, if any, and the down-tracks that it feeds. Server.mu guards changes;
// both are read without it.
type slot struct {
	format format
	up     atomic.Pointer[upTrack]
	down   atomic.Pointer[[]*downTrack] // never changed once stored
}

func newSlot(f format) *slot {
	s := &slot{format: f}
	s.down.Store(&[]*downTrack{})
	return s
}

func (s *slot) add(d *downTrack) {
	all := append(slices.Clone(*s.down.Load()), d)
	s.down.Store(&all)
}

func (s *slot) remove(d *downTrack) {
	all := slices.DeleteFunc(slices.Clone(*s.down.Load()), func(other *downTrack) bool { return other == d })
	s.down.Store(&all)
}

// wantKeyFrame asks the publisher, if there is one, for a key frame.
func (s *slot) wantKeyFrame() {
	if u := s.up.Load(); u != nil && u.keyFrames != nil {
		u.keyFrames.want()
	}
}

// track is the slot's part of Stats.
func (s *slot) track() Track {
	t := Track{Kind: s.format.kind().String(), Codec: s.format.mime}
	if u := s.up.Load(); u != nil {
		t.SSRC, t.Packets, t.Bytes, t.Lost = u.ssrc.Load(), u.packets.Load(), u.bytes.Load(), u.lost.Load()
	}
	return t
}
