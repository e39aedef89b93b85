package cgroups

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// recheck is how often every watched cgroup is looked at, whether or not the
// kernel told of a change: a notification within 10 ms of another is held back,
// and lost when the cgroup is removed meanwhile.
const recheck = 250 * time.Millisecond

// watchedFiles tell by inotify that Events changed (cgroups(7)).
var watchedFiles = []string{"cgroup.events", "memory.events"}

// A Watcher follows the Events of cgroups, all with one inotify descriptor and
// one goroutine. Where the kernel has no inotify instance or watch left it goes
// on by looking every 250 ms, and says so in the log.
type Watcher struct {
	log     *slog.Logger
	inotify *os.File // nil when polling
	fd      int      // of inotify; used under mu, and not after Close
	closed  chan struct{}
	done    chan struct{}

	// Lock order: Watcher.mu before Watch.mu.
	mu      sync.Mutex
	polling error // why not every change is told by inotify
	watches []*Watch
	byWD    map[int32][]*Watch
}

// NewWatcher returns a Watcher of nothing. Close it. A nil log discards.
func NewWatcher(log *slog.Logger) *Watcher {
	return newWatcher(log, func() (int, error) { return unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK) })
}

func newWatcher(log *slog.Logger, open func() (fd int, err error)) *Watcher {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &Watcher{log: log, closed: make(chan struct{}), done: make(chan struct{}), byWD: map[int32][]*Watch{}}
	fd, err := open()
	if err != nil {
		w.poll(fmt.Errorf("make inotify instance: %w", err))
	} else {
		w.inotify, w.fd = os.NewFile(uintptr(fd), "inotify"), fd
	}
	go w.run()
	return w
}

// Close ends all watches and returns when that is done. A second Close does nothing.
func (w *Watcher) Close() {
	w.mu.Lock()
	select {
	case <-w.closed:
	default:
		close(w.closed)
		if w.inotify != nil {
			w.inotify.Close()
		}
	}
	w.mu.Unlock()
	<-w.done
}

// Polling returns nil, or why the Watcher cannot rely on inotify.
func (w *Watcher) Polling() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.polling
}

// poll notes and logs, once, that changes are found by looking. Callers hold
// w.mu, or are alone.
func (w *Watcher) poll(why error) {
	if w.polling == nil {
		w.polling = why
		w.log.Warn("cgroup events by polling", "every", recheck, "error", why)
	}
}

// A Watch is a cgroup that a Watcher follows.
type Watch struct {
	watcher *Watcher
	group   Group
	changed chan struct{}
	wds     []int32 // guarded by Watcher.mu

	mu     sync.Mutex // held over a look, so that no look overtakes another
	events Events
	gone   bool
	killed time.Time // when OOMKill was last seen to rise
}

// Watch follows a cgroup until the Watch is closed. It returns ErrGone for a
// cgroup that is not there.
func (w *Watcher) Watch(g Group) (*Watch, error) {
	x := &Watch{watcher: w, group: g, changed: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.closed:
		return nil, fmt.Errorf("watch cgroup %s: %w", g, os.ErrClosed)
	default:
	}
	w.watches = append(w.watches, x)
	w.subscribe(x)
	events, err := g.Events() // after the subscription: no change falls between
	if err != nil {
		w.forget(x)
		return nil, err
	}
	x.events = events
	return x, nil
}

// subscribe asks the kernel to tell of x's changes. The caller holds w.mu.
func (w *Watcher) subscribe(x *Watch) {
	if w.inotify == nil {
		return
	}
	for _, name := range watchedFiles {
		wd, err := unix.InotifyAddWatch(w.fd, filepath.Join(x.group.Dir(), name), unix.IN_MODIFY)
		switch {
		case err == nil:
			w.byWD[int32(wd)] = append(w.byWD[int32(wd)], x)
			x.wds = append(x.wds, int32(wd))
		case errors.Is(err, unix.ENOENT): // no such controller, or no such cgroup
		default:
			w.poll(fmt.Errorf("watch %s of cgroup %s: %w", name, x.group, err))
		}
	}
}

// forget takes x out. The caller holds w.mu.
func (w *Watcher) forget(x *Watch) {
	same := func(other *Watch) bool { return other == x }
	w.watches = slices.DeleteFunc(w.watches, same)
	for _, wd := range x.wds {
		rest, ok := w.byWD[wd]
		if rest = slices.DeleteFunc(rest, same); len(rest) > 0 {
			w.byWD[wd] = rest
		} else if ok {
			delete(w.byWD, wd)
			unix.InotifyRmWatch(w.fd, uint32(wd)) // fails if the cgroup has been removed
		}
	}
	x.wds = nil
}

// Close ends the watch. A second Close does nothing.
func (x *Watch) Close() {
	w := x.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.closed:
	default:
		w.forget(x)
	}
}

// Changed holds a value whenever Events may have changed since it was received
// last. Changes that come faster than they are received become one.
func (x *Watch) Changed() <-chan struct{} { return x.changed }

// Events returns what was seen last. When the cgroup has been removed it
// returns ErrGone beside it.
func (x *Watch) Events() (Events, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone {
		return x.events, fmt.Errorf("watch cgroup %s: %w", x.group, ErrGone)
	}
	return x.events, nil
}

// OOMKilled returns when OOMKill was last seen to rise; zero if it was not.
func (x *Watch) OOMKilled() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.killed
}

// Look reads the events now, and returns them as Events does.
func (x *Watch) Look() (Events, error) {
	x.mu.Lock()
	before, gone := x.events, x.gone
	if !gone {
		now, err := x.group.Events()
		switch {
		case err == nil:
			x.events = now.atLeast(x.events) // a cgroup loses its files one by one
			if x.events.OOMKill > before.OOMKill {
				x.killed = time.Now()
			}
		case errors.Is(err, ErrGone):
			x.gone = true
			x.events.Populated = false
		}
	}
	changed := x.events != before || x.gone != gone
	x.mu.Unlock()
	if changed {
		select {
		case x.changed <- struct{}{}:
		default:
		}
	}
	return x.Events()
}

func (w *Watcher) run() {
	defer close(w.done)
	var buffer [4096]byte
	next := time.Now().Add(recheck)
	for {
		told, err := w.wait(buffer[:], next)
		if err != nil {
			return
		}
		if !time.Now().Before(next) {
			told = w.all()
			next = time.Now().Add(recheck)
		}
		for _, x := range told {
			x.Look()
		}
	}
}

func (w *Watcher) all() []*Watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.watches)
}

// wait returns the watches that the kernel told of, none after next, and an
// error when the Watcher was closed.
func (w *Watcher) wait(buffer []byte, next time.Time) ([]*Watch, error) {
	if w.inotify == nil {
		select {
		case <-time.After(time.Until(next)):
			return nil, nil
		case <-w.closed:
			return nil, os.ErrClosed
		}
	}
	w.inotify.SetReadDeadline(next)
	n, err := w.inotify.Read(buffer)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return w.told(parseInotify(buffer[:n])), nil
}

func (w *Watcher) told(events []inotifyEvent) []*Watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	var told []*Watch
	for _, event := range events {
		if event.mask&unix.IN_Q_OVERFLOW != 0 {
			return slices.Clone(w.watches)
		}
		for _, x := range w.byWD[event.wd] {
			if !slices.Contains(told, x) {
				told = append(told, x)
			}
		}
		if event.mask&unix.IN_IGNORED != 0 { // the kernel has removed it
			delete(w.byWD, event.wd)
		}
	}
	return told
}

type inotifyEvent struct {
	wd   int32
	mask uint32
}

// parseInotify parses what read(2) returns (inotify(7)).
func parseInotify(data []byte) []inotifyEvent {
	var events []inotifyEvent
	for len(data) >= unix.SizeofInotifyEvent {
		events = append(events, inotifyEvent{
			wd:   int32(binary.NativeEndian.Uint32(data[0:])),
			mask: binary.NativeEndian.Uint32(data[4:]),
		})
		name := uint64(binary.NativeEndian.Uint32(data[12:]))
		if name > uint64(len(data)-unix.SizeofInotifyEvent) {
			break
		}
		data = data[unix.SizeofInotifyEvent+name:]
	}
	return events
}
