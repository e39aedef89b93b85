// Package sfu is a selective forwarding unit: rooms in which one publisher's
// RTP packets reach any number of viewers, on pion/webrtc.
//
// A Session is one client's PeerConnection, a publisher's or a viewer's. What a
// publisher sends in one m-section is an upTrack, what a viewer receives in one
// is a downTrack. A slot joins them: it is the room's m-section of one kind and
// codec, and outlives the publisher, so that viewers go on when he comes back.
//
// Packets pass without a lock of the Server: the up-track's goroutine loads the
// slot's immutable list of down-tracks and writes to each. Server.mu guards
// rooms, sessions and slots' membership; it is never held over a call that may
// wait, and is taken before any other lock. Session.update is the exception: it
// has one ICE restart wait for the other, and nobody else.
package sfu
