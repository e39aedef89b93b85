package sfu

import "errors"

// What Publish, Subscribe and Session.UpdateICE return where the caller
// branches; each is wrapped with the detail.
var (
	ErrMalformed       = errors.New("malformed SDP")                    // not SDP at all
	ErrUnusable        = errors.New("unusable offer")                   // SDP, but not one this server can answer
	ErrCodec           = errors.New("no common codec")                  // nothing offered can be received or is sent here
	ErrRoomName        = errors.New("bad room name")                    // not 1 to 64 of [A-Za-z0-9._~-]
	ErrNoRoom          = errors.New("nobody publishes to the room")     // nor ever did since the room came to be
	ErrPublisherExists = errors.New("the room has a publisher")         // a second one is refused
	ErrDraining        = errors.New("draining: no new rooms")           // try another server
	ErrFull            = errors.New("server is full")                   // a limit of Config is reached
	ErrClosed          = errors.New("server is closed")                 // or is closing
	ErrSessionClosed   = errors.New("session is closed")                // or is closing
	ErrICESession      = errors.New("not the current ICE session")      // Session.UpdateICE with an outdated tag
	ErrCredentials     = errors.New("bad ICE credentials or candidate") // RFC 8839, sections 5.1 and 5.4
)
