package sfu

import (
	"context"
	"sync/atomic"
	"time"
)

// pliInterval is the least time between two key-frame requests to a publisher,
// whatever the number of viewers that ask.
const pliInterval = 500 * time.Millisecond

// keyFrames asks a publisher for key frames: at once when the last request is
// older than an interval, and again at each interval until one comes.
type keyFrames struct {
	send     func() // one PLI
	interval time.Duration
	wanted   atomic.Bool
	wake     chan struct{} // capacity 1
}

func newKeyFrames(send func()) *keyFrames {
	return &keyFrames{send: send, interval: pliInterval, wake: make(chan struct{}, 1)}
}

// want is called for everyone who needs a key frame. It does not block.
func (k *keyFrames) want() {
	k.wanted.Store(true)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// arrived is called when a key frame begins.
func (k *keyFrames) arrived() {
	if k.wanted.Load() {
		k.wanted.Store(false)
	}
}

// run sends the requests until ctx ends.
func (k *keyFrames) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-k.wake:
		case <-ctx.Done():
			return
		}
		for k.wanted.Load() {
			k.send()
			timer.Reset(k.interval)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
	}
}
