package sfu

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A room has one publisher at a time and any number of viewers, and is there as
// long as it has either. Server.mu guards it.
type room struct {
	name      string
	since     time.Time
	publisher *Session // nil while there is none
	viewers   map[*Session]struct{}
	slots     []*slot // of the publishers' tracks, one of a kind; empty until one was answered
}

func (r *room) empty() bool { return r.publisher == nil && len(r.viewers) == 0 }

// slotOf returns the room's slot of the kind, or nil.
func (r *room) slotOf(video bool) *slot {
	for _, s := range r.slots {
		if s.format.isVideo() == video {
			return s
		}
	}
	return nil
}

// admit gives the session its place and its formats.
func (r *room) admit(s *Session) error {
	if s.role == Publisher {
		s.chosen = r.choosePublished(s.offer)
		r.publisher = s
		return nil
	}
	chosen, slots, ok := r.chooseViewed(s.offer)
	if !ok {
		return fmt.Errorf("%w: the room has %s", ErrCodec, r.codecs())
	}
	s.chosen = chosen
	for i, from := range slots {
		if from != nil {
			s.downs = append(s.downs, &downTrack{slot: from, session: s, format: chosen[i], mid: s.offer.media[i].mid})
		}
	}
	r.viewers[s] = struct{}{}
	return nil
}

// leave takes the session's place back.
func (r *room) leave(s *Session) {
	delete(r.viewers, s)
	if r.publisher != s {
		return
	}
	r.publisher = nil
	for _, slot := range r.slots {
		if u := slot.up.Load(); u != nil && u.session == s {
			slot.up.Store(nil)
		}
	}
}

// codecs are the room's, for people.
func (r *room) codecs() string {
	var names []string
	for _, s := range r.slots {
		names = append(names, s.format.mime)
	}
	return strings.Join(names, " and ")
}

// choosePublished picks a format for each m-section of a publisher: the one the
// room's viewers know, else the first that the publisher offers.
func (r *room) choosePublished(o *offer) []format {
	var chosen []format
	for _, m := range o.media {
		pick := m.formats[0]
		if known := r.slotOf(m.video); known != nil {
			if f, ok := best(m.formats, known.format); ok {
				pick = f
			}
		}
		chosen = append(chosen, pick)
	}
	return chosen
}

// chooseViewed picks for each m-section of a viewer the format the room has,
// and tells the slots; nil for a kind that the room has not. ok is false if the
// viewer cannot receive what there is of a kind it wants, or wants nothing of
// what there is.
func (r *room) chooseViewed(o *offer) (chosen []format, slots []*slot, ok bool) {
	for _, m := range o.media {
		pick, from := m.formats[0], r.slotOf(m.video)
		if from != nil {
			f, common := best(m.formats, from.format)
			if !common {
				return nil, nil, false
			}
			pick, ok = f, true
		}
		chosen, slots = append(chosen, pick), append(slots, from)
	}
	return chosen, slots, ok
}

// best finds the offered format that receives what is sent as sent.
func best(offered []format, sent format) (f format, ok bool) {
	score := 0
	for _, o := range offered {
		if n := o.receives(sent); n > score {
			f, score = o, n
		}
	}
	return f, score > 0
}

// seat gives the publisher's tracks their slots. A slot of the same codec goes
// on with its down-tracks; one of another codec is replaced and its viewers are
// returned, for they cannot go on; one of a kind that is not published any more
// waits.
func (r *room) seat(publisher *Session) (stranded []*Session) {
	var ups []*upTrack
	for _, f := range publisher.chosen {
		old := r.slotOf(f.isVideo())
		to := old
		if old == nil || f.receives(old.format) == 0 {
			to = newSlot(f)
			stranded = append(stranded, r.watchers(old)...)
			r.slots = append(slices.DeleteFunc(r.slots, func(s *slot) bool { return s == old }), to)
		}
		u := newUpTrack(publisher, f, to)
		to.up.Store(u)
		ups = append(ups, u)
	}
	publisher.setUps(ups)
	return stranded
}

// watchers are the viewers with a down-track of s.
func (r *room) watchers(s *slot) []*Session {
	var all []*Session
	for v := range r.viewers {
		if slices.ContainsFunc(v.downs, func(d *downTrack) bool { return d.slot == s }) {
			all = append(all, v)
		}
	}
	return all
}

// snapshot is the room's part of Stats.
func (r *room) snapshot() Room {
	out := Room{Name: r.name, Since: r.since, Publisher: r.publisher != nil, Viewers: len(r.viewers), Tracks: []Track{}}
	for _, s := range r.slots {
		out.Tracks = append(out.Tracks, s.track())
	}
	return out
}
