package sfu

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeyFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		k := newKeyFrames(func() { sent.Add(1) })
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go k.run(ctx)
		check := func(what string, after time.Duration, want int64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := sent.Load(); got != want {
				t.Fatalf("%s: %d requests, want %d", what, got, want)
			}
		}
		check("nobody asked", time.Hour, 0)
		for range 20 {
			k.want()
		}
		check("20 at once", 0, 1)
		check("before the interval is over", pliInterval-1, 1)
		check("no key frame came", 1, 2)
		k.arrived()
		check("it came", time.Hour, 2)
		k.want()
		check("the next one asks", 0, 3)
		k.arrived()
		k.want()
		check("right after that", pliInterval-1, 3)
		check("when the interval is over", 1, 4)
		k.arrived()
		check("satisfied", time.Hour, 4)
	})
}
