// Package whip serves an SFU's rooms over HTTP: WHIP (RFC 9725) to publish and
// WHEP (draft-ietf-wish-whep) to watch.
package whip
