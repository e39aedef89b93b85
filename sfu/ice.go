package sfu

import (
	"fmt"
	"strconv"
	"strings"
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
