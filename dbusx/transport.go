package dbusx

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxMessage = 16 << 20 // bytes of one incoming message; the specification allows 128 MiB
	headerSize = 16       // fixed part of a message
)

// wire is the byte stream under a godbus connection. Writes end in time,
// framing that godbus would stumble on ends the stream, and any error is final.
type wire struct {
	net.Conn
	in         *bufio.Reader
	writeLimit time.Duration
	mimed      *strings.Reader // what godbus reads until it says BEGIN
	frameLeft  int             // bytes left of the current message
	broken     atomic.Bool     // a read or write has failed
	start      time.Time
	asking     atomic.Int64 // calls that wait for their reply
	owed       atomic.Int64 // 1 + since start: since when the peer owes us bytes; 0: it does not
}

func newWire(c net.Conn, writeLimit time.Duration) *wire {
	return &wire{
		Conn:       c,
		in:         bufio.NewReaderSize(c, 16<<10),
		writeLimit: writeLimit,
		mimed:      strings.NewReader("REJECTED EXTERNAL\r\nOK 0\r\n"),
		start:      time.Now(),
	}
}

// authenticate is the client's side of EXTERNAL as user uid in one round trip
// (D-Bus specification, Authentication Protocol). godbus takes three, too many
// for the moments in which a systemd that re-executes itself again and again
// can be talked to; it has to do it all the same to start reading, so Read and
// Write mime a server for it.
func (w *wire) authenticate(uid int) error {
	_, err := w.write(fmt.Appendf(nil, "\x00AUTH EXTERNAL %x\r\nBEGIN\r\n", strconv.Itoa(uid)))
	if err != nil {
		return err
	}
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("OK ")) {
		return fmt.Errorf("peer answers %.40q", line)
	}
	return nil
}

// errUnsent marks a failed write: the peer has at most a part of the message
// and so cannot have acted on it.
var errUnsent = errors.New("not sent")

// Write writes all of p within the write limit or closes the connection.
func (w *wire) Write(p []byte) (int, error) {
	if w.mimed == nil {
		return w.write(p)
	}
	if bytes.Equal(p, []byte("BEGIN\r\n")) {
		w.mimed = nil
	}
	return len(p), nil
}

func (w *wire) write(p []byte) (int, error) {
	_ = w.SetWriteDeadline(time.Now().Add(w.writeLimit))
	n, err := w.Conn.Write(p)
	if err != nil {
		w.broken.Store(true)
		_ = w.Conn.Close()
		err = fmt.Errorf("%w: %w", errUnsent, err)
	}
	return n, err
}

// Read never returns bytes of two messages at once, and none of a message that
// is too long or not D-Bus.
func (w *wire) Read(p []byte) (int, error) {
	if w.mimed != nil {
		return w.mimed.Read(p)
	}
	n, err := w.readFramed(p)
	w.heard()
	if err != nil {
		w.broken.Store(true)
		_ = w.Conn.Close()
	}
	return n, err
}

func (w *wire) readFramed(p []byte) (int, error) {
	if w.frameLeft == 0 {
		h, err := w.in.Peek(headerSize)
		if err != nil {
			return 0, err
		}
		if w.frameLeft, err = frameSize(h); err != nil {
			return 0, err
		}
	}
	n, err := w.in.Read(p[:min(len(p), w.frameLeft)])
	w.frameLeft -= n
	return n, err
}

// frameSize returns the length of the message that starts with h
// (D-Bus specification, Message Format).
func frameSize(h []byte) (int, error) {
	var order binary.ByteOrder = binary.LittleEndian
	switch h[0] {
	case 'l':
	case 'B':
		order = binary.BigEndian
	default:
		return 0, fmt.Errorf("message starts with byte %#x", h[0])
	}
	if h[3] != 1 {
		return 0, fmt.Errorf("message of protocol version %d", h[3])
	}
	fields := (uint64(order.Uint32(h[12:])) + 7) &^ 7
	size := headerSize + fields + uint64(order.Uint32(h[4:]))
	if size > maxMessage {
		return 0, fmt.Errorf("message of %d bytes", size)
	}
	return int(size), nil
}

// ask notes that the peer owes a reply until the returned function is called.
func (w *wire) ask() (done func()) {
	w.asking.Add(1)
	w.owed.CompareAndSwap(0, w.now())
	return func() { w.asking.Add(-1) }
}

// heard notes that the peer has sent something.
func (w *wire) heard() {
	if w.asking.Load() > 0 {
		w.owed.Store(w.now())
	} else {
		w.owed.Store(0)
	}
}

func (w *wire) now() int64 { return 1 + int64(time.Since(w.start)) }

// silent reports whether the peer has sent nothing for at least d although it
// owed, or still owes, a reply.
func (w *wire) silent(d time.Duration) bool {
	owed := w.owed.Load()
	return owed != 0 && time.Duration(w.now()-owed) >= d
}
