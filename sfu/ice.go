package sfu

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ICE is one side of an ICE session: its credentials and its candidates, the
// latter as in an a=candidate line without "candidate:" (RFC 8839).
type ICE struct {
	Ufrag, Pwd string
	Candidates []string
	Mid        string // of the m-section that stands for the bundle; not needed of a client
}

// check wants credentials as RFC 8839, section 5.4 has them, and candidates of
// the form of section 5.1. What a candidate stands for is not looked at: a lite
// agent sends no checks.
func (i ICE) check() error {
	if !iceChars(i.Ufrag, 4) || !iceChars(i.Pwd, 22) {
		return fmt.Errorf("%w: ice-ufrag has 4 to 256 and ice-pwd 22 to 256 of [A-Za-z0-9+/]", ErrCredentials)
	}
	return i.checkCandidates()
}

func (i ICE) checkCandidates() error {
	for _, c := range i.Candidates {
		f := strings.Fields(c) // foundation component transport priority address port "typ" type ...
		if len(f) < 8 || f[6] != "typ" || !number(f[1]) || !number(f[3]) || !number(f[5]) {
			return fmt.Errorf("%w: a=candidate:%.80q", ErrCredentials, c)
		}
	}
	return nil
}

func number(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

func iceChars(s string, atLeast int) bool {
	if len(s) < atLeast || len(s) > 256 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}

// ICE returns the server's side of the current ICE session. Its Ufrag names
// that ICE session.
func (s *Session) ICE() ICE {
	s.update.Lock()
	defer s.update.Unlock()
	return s.local
}

// UpdateICE takes what a client says about its side of ICE: more candidates of
// the current ICE session, or new credentials, which restart ICE (RFC 9725,
// section 4.3). current names the ICE session the client means by the server's
// Ufrag, and is empty if any will do; another than the current one is
// ErrICESession. After a restart, local is the server's new side; without one
// it is nil. On an error the session and its ICE session go on as they were.
func (s *Session) UpdateICE(ctx context.Context, current string, remote ICE) (local *ICE, err error) {
	s.update.Lock()
	defer s.update.Unlock()
	if current != "" && current != s.local.Ufrag {
		return nil, ErrICESession
	}
	if err := remote.checkCandidates(); err != nil {
		return nil, err
	}
	if remote.Ufrag == "" && remote.Pwd == "" || remote.Ufrag == s.remote.Ufrag && remote.Pwd == s.remote.Pwd {
		return nil, nil // a lite agent waits for the client's checks, whatever its candidates
	}
	if err := remote.check(); err != nil {
		return nil, err
	}
	return s.restartICE(ctx, remote)
}

// restartICE goes through with it whatever becomes of ctx, or pion and s.local
// would disagree on the current ICE session.
func (s *Session) restartICE(ctx context.Context, remote ICE) (*ICE, error) {
	if s.ctx.Err() != nil {
		return nil, ErrSessionClosed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	description, err := s.offer.describe(s.role, s.chosen, remote)
	if err != nil {
		return nil, fmt.Errorf("restart ICE: %w", err)
	}
	d, err := answer(ctx, s.pc, description)
	if err != nil {
		return nil, fmt.Errorf("restart ICE: %w", err)
	}
	s.remote, s.local = remote, iceOf(d)
	return &s.local, nil
}
