package scopes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fault is one way in which the world treats the churn badly.
type fault struct {
	about   string
	payload []string
	// loop does it, again and again; nil for faults of the payload.
	loop func(context.Context, faultRun) error
	// kill ends the payload of a cycle before or during its start.
	kill         func(*payload)
	zombie       bool // the payload has ended before the start
	mayDie       bool // a start may rightly fail
	blocksWrites bool // the bus may stop reading
	stopTimeout  time.Duration
}

// faultRun is what a fault's loop is given.
type faultRun struct {
	pid1    string // file through which PID 1 is stopped
	started func() // the fault is there
	ended   func() // the world is healthy again
}

var (
	sleeper  = []string{"sleep", "600"}
	stubborn = []string{"sh", "-c", `trap "" TERM; while :; do sleep 600; done`}
)

// faults by name.
var faults = map[string]fault{
	"none":        {about: "nothing", payload: sleeper},
	"reload":      {about: "systemctl daemon-reload in a loop", payload: sleeper, loop: every(0, systemctl("daemon-reload"))},
	"reexec":      {about: "systemctl daemon-reexec in a loop", payload: sleeper, loop: every(0, systemctl("daemon-reexec"))},
	"bus-restart": {about: "the bus is restarted every 2 s", payload: sleeper, loop: every(2*time.Second, restartBus)},
	"bus-kill":    {about: "the bus gets SIGKILL every 2 s", payload: sleeper, loop: every(2*time.Second, killBus)},
	"bus-stop":    {about: "the bus is stopped for 2 s of every 4 s", payload: sleeper, loop: every(2*time.Second, pauseBus), blocksWrites: true},
	"pid1-stop":   {about: "PID 1 is stopped for 2 s of every 4 s", payload: sleeper, loop: pausePID1, blocksWrites: true},
	"hold-conns":  {about: "254 connections to the bus are held", payload: sleeper, loop: holdConns},
	"die-early": {about: "the process gets SIGKILL 0 to 1.5 ms after the request", payload: sleeper, mayDie: true, kill: func(p *payload) {
		delay := time.Duration(rand.Int64N(int64(1500 * time.Microsecond)))
		time.AfterFunc(delay, p.kill)
	}},
	"zombie": {about: "the process has ended and is not reaped", payload: sleeper, mayDie: true, zombie: true, kill: func(p *payload) {
		p.kill()
		p.gone()
	}},
	"term-ignore": {about: "the process ignores SIGTERM", payload: stubborn, stopTimeout: 1500 * time.Millisecond},
}

// Faults are the names of all faults, "none" included.
func Faults() []string { return slices.Sorted(maps.Keys(faults)) }

// AboutFault is a fault in words.
func AboutFault(name string) string { return faults[name].about }

// every does something again and again, with a pause between.
func every(pause time.Duration, do func(context.Context) error) func(context.Context, faultRun) error {
	return func(ctx context.Context, run faultRun) error {
		run.started()
		for {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			run.ended()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(max(pause, 50*time.Millisecond)):
			}
		}
	}
}

// systemctl over the private socket where the bus is not to be counted on.
func systemctl(args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
}

func restartBus(ctx context.Context) error {
	unit, err := busUnit(ctx)
	if err != nil {
		return err
	}
	return systemctl("restart", unit)(ctx)
}

// killBus also starts it again, where no client's connection would.
func killBus(ctx context.Context) error {
	pid, err := busPID(ctx)
	if err != nil {
		return err
	}
	unit, err := busUnit(ctx)
	if err != nil {
		return err
	}
	if err := systemctl("reset-failed", unit, "dbus.socket")(ctx); err != nil { // or systemd has had enough of its starts
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	// The kill may have hit a start that others had asked for: then that is what
	// systemctl is told of.
	if !until(5*time.Second, func() bool { err = systemctl("start", unit)(ctx); return err == nil }) {
		return err
	}
	return nil
}

func pauseBus(ctx context.Context) error {
	pid, err := busPID(ctx)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, 2*time.Second)
	return syscall.Kill(pid, syscall.SIGCONT)
}

// busUnit is dbus.service or dbus-broker.service.
func busUnit(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "systemctl", "show", "-p", "Id", "--value", "dbus.service").Output()
	return strings.TrimSpace(string(out)), err
}

// busPID is the daemon that holds the connections: with dbus-broker the child
// of the unit's launcher.
func busPID(ctx context.Context) (int, error) {
	for range 100 {
		out, err := exec.CommandContext(ctx, "systemctl", "show", "-p", "MainPID", "--value", "dbus.service").Output()
		if err != nil {
			return 0, err
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(out)))
		if broker := childOf(pid); broker > 1 {
			return broker, nil
		}
		if pid > 1 {
			return pid, nil
		}
		pause(ctx, 50*time.Millisecond)
	}
	return 0, errors.New("the bus has no process")
}

func childOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	child, _ := strconv.Atoi(first)
	return child
}

// pausePID1 asks someone outside: PID 1 cannot be stopped from inside its
// namespace.
func pausePID1(ctx context.Context, run faultRun) error {
	ask := func(word string) error {
		if err := os.WriteFile(run.pid1, []byte(word), 0o600); err != nil {
			return err
		}
		if !until(5*time.Second, func() bool { _, err := os.Stat(run.pid1); return err != nil }) {
			return fmt.Errorf("nobody outside this PID namespace watches %s: run this by 'make stress-scopes'", run.pid1)
		}
		return nil
	}
	for {
		if err := ask("stop"); err != nil {
			return err
		}
		run.started()
		pause(ctx, 2*time.Second)
		if err := ask("cont"); err != nil {
			return err
		}
		run.ended()
		if pause(ctx, 2*time.Second); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// holdConns takes the connections that the bus grants to one user.
func holdConns(ctx context.Context, run faultRun) error {
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range 254 {
		c, err := dialRaw(ctx)
		if err != nil {
			break // the bus has had enough: that is the fault
		}
		held = append(held, c)
		if err := hello(c); err != nil {
			break
		}
	}
	run.started()
	<-ctx.Done()
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
