package udpio

import (
	"fmt"
	"strings"

	"github.com/sfu-agent/sfu-agent/sfu/udpio/internal/uring"
)

// An engine sends messages in one way. It is used by one goroutine.
type engine interface {
	// send hands the first messages to the kernel with one system call. It
	// returns how many left, at least one if err is nil, and otherwise why the
	// next one did not. It may wait for room in the socket's buffer until the
	// socket expires, and may change the order of messages to different
	// destinations. It keeps nothing of messages.
	send(messages []message) (n int, err error)
}

// A message is what one destination gets with one send: a datagram, or a train.
type message struct {
	dest  *destination
	parts [][]byte // the datagrams; more than one are a train
}

// maxMessages is how many messages an engine is given at once.
const maxMessages = 64

// A rung is one way to send.
type rung struct {
	name   string
	trains bool // understands messages of more than one part
	own    bool // works on a socket that Go's netpoller does not know
	wish   bool // taken only where asked for by name; if missing those below are
	have   []func(*Prober) error
	call   func() error // what the Prober would say now of the system call
	open   func(*socket) (engine, error)
}

// rungs lists the ways to send, each above those that it gives way to. The last
// one always works.
//
// io_uring saves nothing over sendmmsg of trains and up to a tenth without, and
// can fail in more ways: it is a wish.
func rungs() []rung {
	segment, sendmmsg, ring := (*Prober).HaveSegment, (*Prober).HaveSendmmsg, (*Prober).HaveUring
	return []rung{
		{"uring", true, true, true, []func(*Prober) error{segment, ring}, uring.Have, openUring},
		{"gso", true, true, false, []func(*Prober) error{segment, sendmmsg}, trySendmmsg, openMmsg},
		{"sendmsg-gso", true, true, false, []func(*Prober) error{segment}, trySendmsg, openMsg},
		{"mmsg", false, true, false, []func(*Prober) error{sendmmsg}, trySendmmsg, openMmsg},
		{"writebatch", false, false, false, []func(*Prober) error{sendmmsg}, trySendmmsg, openWriteBatch},
		{"plain", false, false, false, nil, func() error { return nil }, openPlain},
	}
}

// Rungs returns the names that Config.Rung takes besides "auto": the best way to
// send first, and after the last one those that "auto" does not take.
func Rungs() []string {
	var names, wishes []string
	for _, r := range rungs() {
		if r.wish {
			wishes = append(wishes, r.name)
		} else {
			names = append(names, r.name)
		}
	}
	return append(names, wishes...)
}

// choose returns the rung to use and those below it, and why none above.
func choose(name string, prober *Prober) (ladder []rung, why string, err error) {
	all := rungs()
	var missing []string
	for i, r := range all {
		if name != r.name && (name != "auto" || r.wish) {
			continue
		}
		err := r.missing(prober)
		if err == nil {
			return all[i:], strings.Join(missing, "; "), nil
		}
		if name == r.name && !r.wish {
			return nil, "", fmt.Errorf("rung %s: %w", name, err)
		}
		missing, name = append(missing, fmt.Sprintf("%s: %v", r.name, err)), "auto"
	}
	return nil, "", fmt.Errorf("no rung %q: want auto or one of %s", name, strings.Join(Rungs(), ", "))
}

// missing is what the host lacks for the rung.
func (r rung) missing(prober *Prober) error {
	for _, have := range r.have {
		if err := have(prober); err != nil {
			return err
		}
	}
	return nil
}
