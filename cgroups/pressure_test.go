package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const pressureText = "some avg10=1.50 avg60=0.70 avg300=0.10 total=1125939\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=20\n"

func TestPressure(t *testing.T) {
	g := fakeGroup(t, map[string]string{"memory.pressure": pressureText, "cpu.pressure": "some avg10=x"})
	want := Pressure{
		Some: Stall{1.5, 0.7, 0.1, 1125939 * time.Microsecond},
		Full: Stall{Avg10: 0.5, Total: 20 * time.Microsecond},
	}
	if got, err := g.Pressure(Memory); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := g.Pressure(CPU); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("malformed: %v", err)
	}
	if _, err := g.Pressure(IO); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("missing: %v", err)
	}
	// What Linux before 6.1 reads with psi=0, where later ones have no file.
	off := g.fileError("read", IO.file(), &fs.PathError{Op: "read", Path: IO.file(), Err: syscall.EOPNOTSUPP})
	if !errors.Is(off, errors.ErrUnsupported) || !strings.Contains(off.Error(), "switched off") {
		t.Errorf("off: %v", off)
	}
	if _, err := g.Child("none").Pressure(IO); !errors.Is(err, ErrGone) {
		t.Errorf("no cgroup: %v", err)
	}
}

func FuzzPressure(f *testing.F) {
	for _, seed := range []string{pressureText, "some", "full avg10", "some total=-1", "other x=1\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parsePressure(data); err != nil && p != (Pressure{}) {
			t.Errorf("%+v with error %v", p, err)
		}
	})
}

func TestTriggerStretches(t *testing.T) {
	for _, test := range []struct{ t, want Trigger }{
		{Trigger{Stall: 100 * time.Millisecond, Window: time.Second}, Trigger{Stall: 200 * time.Millisecond, Window: 2 * time.Second}},
		{Trigger{Stall: 300 * time.Millisecond, Window: 3 * time.Second}, Trigger{Stall: 400 * time.Millisecond, Window: 4 * time.Second}},
		{Trigger{Stall: time.Second, Window: 2 * time.Second}, Trigger{Stall: time.Second, Window: 2 * time.Second}},
	} {
		if got := test.t.unprivileged(); got != test.want {
			t.Errorf("%v: got %v, want %v", test.t, got, test.want)
		}
	}
	if text := (Trigger{Full: true, Stall: 150 * time.Millisecond, Window: time.Second}).String(); text != "full 150000 1000000" {
		t.Errorf("text %q", text)
	}
}

func TestTriggerBounds(t *testing.T) {
	g := fakeGroup(t, map[string]string{"memory.pressure": pressureText})
	for _, bad := range []Trigger{
		{Resource: Memory, Stall: time.Millisecond, Window: 499 * time.Millisecond},
		{Resource: Memory, Stall: time.Millisecond, Window: 11 * time.Second},
		{Resource: Memory, Stall: 0, Window: time.Second},
		{Resource: Memory, Stall: time.Second, Window: time.Second},
	} {
		if err := g.WatchPressure(t.Context(), bad, func(TriggerMode) {}, func(Pressure) {}); err == nil {
			t.Errorf("took %v", bad)
		}
	}
	fine := Trigger{Resource: IO, Stall: time.Millisecond, Window: time.Second}
	if err := g.WatchPressure(t.Context(), fine, nil, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("C11: without pressure accounting: %v", err)
	}
}

func TestC11PollPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := func(n int) string { return fmt.Sprintf("some avg10=0 avg60=0 avg300=0 total=%d\n", n) }
		g := fakeGroup(t, map[string]string{"io.pressure": total(0)})
		ctx, cancel := context.WithCancel(t.Context())
		reached := 0
		ended := make(chan error)
		go func() {
			trigger := Trigger{Resource: IO, Stall: 100 * time.Millisecond, Window: time.Second}
			ended <- g.pollPressure(ctx, trigger, func(Pressure) { reached++ })
		}()
		synctest.Wait()
		for second, step := range []struct{ total, reached int }{{99_000, 0}, {199_000, 1}, {199_000, 1}, {500_000, 2}} {
			set(t, g, "io.pressure", total(step.total))
			time.Sleep(time.Second)
			synctest.Wait()
			if reached != step.reached {
				t.Errorf("second %d: reached %d times, want %d", second, reached, step.reached)
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended: %v", err)
		}
	})
}
