//go:build native

package systemd1_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

const (
	systemSocket  = "/run/dbus/system_bus_socket"
	privateSocket = "/run/systemd/private"
)

func ctxOf(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestS10_Sockets(t *testing.T) {
	requireRaw(t)
	whole(t)
	hide := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Rename(path, path+".hidden"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Rename(path+".hidden", path); err != nil {
				t.Error(err)
			}
		})
	}
	start := func(t *testing.T) {
		c := &churn{s: connect(t, dbusx.Options{}), limit: 5 * time.Second}
		c.cycle(t)
		c.verdict(t)
	}
	t.Run("only the bus", func(t *testing.T) {
		hide(t, privateSocket)
		start(t)
	})
	t.Run("only systemd's", func(t *testing.T) {
		hide(t, systemSocket)
		start(t)
	})
	t.Run("neither", func(t *testing.T) {
		hide(t, systemSocket)
		hide(t, privateSocket)
		began := time.Now()
		_, err := dbusx.Open(ctxOf(t, time.Second), dbusx.Options{})
		if !errors.Is(err, dbusx.ErrNoSystemd) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Open took %v", took)
		}
	})
}

// holdBus takes connections of the bus until there are no more, or most.
func holdBus(t *testing.T, most int) int {
	t.Helper()
	for n := range most {
		conn, err := net.Dial("unix", systemSocket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		hello := "l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00m\x00\x00\x00" +
			"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00" +
			"\x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00" +
			"\x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00" +
			"\x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00"
		if _, err := fmt.Fprintf(conn, "\x00AUTH EXTERNAL 30\r\nBEGIN\r\n%s", hello); err != nil {
			return n
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		in := bufio.NewReader(conn)
		if _, err := in.ReadString('\n'); err != nil {
			return n
		}
		var kind [2]byte // byte order and type of the answer; 3 is an error
		if _, err := in.Read(kind[:1]); err != nil {
			return n
		}
		if kind[1], err = in.ReadByte(); err != nil || kind[1] == 3 {
			return n
		}
	}
	return most
}

func TestS12_ConnectionsHeldByOthers(t *testing.T) {
	requireRaw(t)
	whole(t)
	n := holdBus(t, 600)
	t.Logf("%d connections held", n)
	began := time.Now()
	c := &churn{s: connect(t, dbusx.Options{}), limit: time.Second}
	c.cycle(t)
	if took := time.Since(began); took > time.Second {
		t.Errorf("connect, start and stop took %v", took)
	}
	c.verdict(t)
}

// deaf is a process that ignores SIGTERM. It returns when it does.
func deaf(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo; exec sleep 1000`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadByte(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

const timeoutStop = 1500 * time.Millisecond

// startDeaf puts a process that ignores SIGTERM into a scope.
func startDeaf(t *testing.T, s *systemd1.Systemd, unit string) {
	t.Helper()
	cmd := deaf(t)
	t.Cleanup(func() { end(cmd) })
	p := workerProps(cmd.Process.Pid)
	p.TimeoutStop(timeoutStop)
	if err := s.StartScope(ctxOf(t, 10*time.Second), unit, p); err != nil {
		t.Fatal(err)
	}
}

func TestS13_StopPendingAtFault(t *testing.T) {
	requireRaw(t)
	faults := map[string]func() error{"reload": reload, "reexec": reexec, "restart": restartBus, "kill": killBus}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			whole(t)
			var wg sync.WaitGroup
			for _, private := range []bool{false, true} {
				s := connect(t, dbusx.Options{Private: private})
				unit := unitName()
				startDeaf(t, s, unit)
				wg.Go(func() {
					began := time.Now()
					r, err := s.Stop(ctxOf(t, 10*time.Second), unit)
					if took := time.Since(began); err != nil || took < timeoutStop-200*time.Millisecond || took > timeoutStop+3*time.Second {
						t.Errorf("private %t: stop after %v: %s, %v", private, took, r, err)
					}
					leftovers(t, s)
				})
			}
			time.Sleep(300 * time.Millisecond) // both stops are pending
			if err := fault(); err != nil {
				t.Error(err)
			}
			wg.Wait()
			whole(t)
		})
	}
}

func TestS14_ProcessGone(t *testing.T) {
	s := connect(t, dbusx.Options{})
	start := func(pid int) error { return s.StartScope(ctxOf(t, 5*time.Second), unitName(), workerProps(pid)) }
	t.Run("zombie", func(t *testing.T) {
		cmd := process(t, "true")
		defer end(cmd)
		eventually(t, 5*time.Second, func() error {
			if !zombie(cmd.Process.Pid) {
				return errors.New("not yet a zombie")
			}
			return nil
		})
		if err := start(cmd.Process.Pid); !errors.Is(err, systemd1.ErrProcessGone) {
			t.Errorf("got %v", err)
		}
		leftovers(t, s)
	})
	t.Run("reaped", func(t *testing.T) {
		cmd := process(t)
		end(cmd)
		if err := start(cmd.Process.Pid); !errors.Is(err, systemd1.ErrProcessGone) {
			t.Errorf("got %v", err)
		}
	})
	for _, pid := range []int{0, 1, -1} {
		if err := start(pid); !errors.Is(err, systemd1.ErrProperty) {
			t.Errorf("PID %d: got %v", pid, err)
		}
	}
	t.Run("dies meanwhile", func(t *testing.T) {
		var wg sync.WaitGroup
		results := make(map[string]int)
		var mu sync.Mutex
		for w := range 4 {
			wg.Go(func() {
				for i := range *cycles / 4 {
					cmd := process(t)
					kill := time.AfterFunc(time.Duration((i*4+w)%16)*100*time.Microsecond, func() { _ = cmd.Process.Kill() })
					err := start(cmd.Process.Pid)
					kill.Stop()
					end(cmd)
					mu.Lock()
					switch {
					case err == nil:
						results["started"]++
					case errors.Is(err, systemd1.ErrProcessGone):
						results["gone"]++
					default:
						t.Error(err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		t.Log(results)
		leftovers(t, s)
	})
}

// Children that a process had before stay where they are: StartScope says so.
func TestS15_ForkedEarly(t *testing.T) {
	s := connect(t, dbusx.Options{})
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo $!; read line; sleep 1001 & echo $!; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	lines := bufio.NewReader(out)
	child := func() (pid int) {
		if _, err := fmt.Fscan(lines, &pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	before := child()
	unit := unitName()
	if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	after := child()
	if inScope(before, unit) || !inScope(after, unit) {
		t.Errorf("child from before in the scope: %t, child from after: %t", inScope(before, unit), inScope(after, unit))
	}
	if _, err := s.Stop(ctxOf(t, 10*time.Second), unit); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(after, 0); err == nil && !zombie(after) {
		t.Errorf("child %d is alive after Stop", after)
	}
	leftovers(t, s)
}

func TestS16_SameName(t *testing.T) {
	s := connect(t, dbusx.Options{})
	t.Run("active", func(t *testing.T) {
		own, other := process(t), process(t)
		defer end(own)
		defer end(other)
		unit := unitName()
		for range 2 {
			if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(own.Process.Pid)); err != nil {
				t.Errorf("own: %v", err)
			}
		}
		if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(other.Process.Pid)); !errors.Is(err, systemd1.ErrExists) {
			t.Errorf("foreign: got %v", err)
		}
		if !inScope(own.Process.Pid, unit) || inScope(other.Process.Pid, unit) {
			t.Error("the unit has changed hands")
		}
		if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
			t.Error(err)
		}
		leftovers(t, s)
	})
	t.Run("failed", func(t *testing.T) {
		cmd := deaf(t)
		defer end(cmd)
		unit := unitName()
		p := workerProps(cmd.Process.Pid)
		p.CollectMode("inactive")
		p.TimeoutStop(200 * time.Millisecond)
		if err := s.StartScope(ctxOf(t, 5*time.Second), unit, p); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
			t.Fatal(err)
		}
		u, err := s.Unit(ctxOf(t, 5*time.Second), unit)
		if err != nil || u.ActiveState != "failed" || u.Result != "timeout" {
			t.Fatalf("got %+v, %v", u, err)
		}
		next := process(t)
		defer end(next)
		if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(next.Process.Pid)); err != nil {
			t.Error(err)
		}
		if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
			t.Error(err)
		}
		leftovers(t, s)
	})
	t.Run("16 at once", func(t *testing.T) {
		unit := unitName()
		var wg sync.WaitGroup
		errs := make(chan error, 16)
		for range cap(errs) {
			wg.Go(func() {
				cmd := process(t)
				err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid))
				if in := inScope(cmd.Process.Pid, unit); in != (err == nil) {
					t.Errorf("in the scope: %t, error: %v", in, err)
				}
				if err != nil {
					end(cmd)
				} else {
					t.Cleanup(func() { end(cmd) })
				}
				errs <- err
			})
		}
		wg.Wait()
		close(errs)
		winners := 0
		for err := range errs {
			if err == nil {
				winners++
			} else if !errors.Is(err, systemd1.ErrExists) {
				t.Error(err)
			}
		}
		if winners != 1 {
			t.Errorf("%d winners", winners)
		}
		if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
			t.Error(err)
		}
		leftovers(t, s)
	})
}

func TestS17_SIGTERMIgnored(t *testing.T) {
	for name, o := range map[string]dbusx.Options{"bus": {}, "private socket": {Private: true}} {
		t.Run(name, func(t *testing.T) {
			s := connect(t, o)
			unit := unitName()
			for range 2 {
				startDeaf(t, s, unit)
				if r, err := s.Stop(ctxOf(t, 10*time.Second), unit); r != systemd1.ResultKilled || err != nil {
					t.Errorf("got %s, %v", r, err)
				}
			}
			cmd := process(t)
			defer end(cmd)
			if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid)); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Stop(ctxOf(t, 10*time.Second), unit); r != systemd1.ResultClean || err != nil {
				t.Errorf("got %s, %v", r, err)
			}
			if r, err := s.Stop(ctxOf(t, 10*time.Second), unit); r != systemd1.ResultNone || err != nil {
				t.Errorf("got %s, %v", r, err)
			}
			leftovers(t, s)
		})
	}
}

func TestS18_Properties(t *testing.T) {
	s := connect(t, dbusx.Options{})
	version, err := s.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log("systemd ", version)
	cmd := process(t)
	defer end(cmd)
	for name, set := range map[string]func(*systemd1.Properties){
		"TasksMax=0":      func(p *systemd1.Properties) { p.TasksMax(0) },
		"CPUWeight=20000": func(p *systemd1.Properties) { p.CPUWeight(20000) },
		"CPUQuota=0":      func(p *systemd1.Properties) { p.CPUQuota(0) },
		"Slice=x.service": func(p *systemd1.Properties) { p.Slice("x.service") },
		"KillMode=bogus":  func(p *systemd1.Properties) { p.KillMode("bogus") },
	} {
		p := workerProps(cmd.Process.Pid)
		set(&p)
		if err := s.StartScope(ctxOf(t, 5*time.Second), unitName(), p); !errors.Is(err, systemd1.ErrProperty) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	leftovers(t, s)

	unit := unitName()
	p := workerProps(cmd.Process.Pid)
	p.MemoryZSwapMax(1 << 20) // systemd 253
	p.AllowedCPUs("0")
	p.IOWeight(200)
	p.Accounting(true)
	p.MemorySwapMax(0)
	p.SendSIGKILL(true)
	p.KillMode("control-group")
	p.Description("a worker")
	if err := s.StartScope(ctxOf(t, 5*time.Second), unit, p); err != nil {
		t.Fatal(err)
	}
	var live systemd1.Properties
	live.MemoryMax(2 << 30)
	live.TasksMax(50)
	live.CPUQuota(150)
	if err := s.SetProperties(ctxOf(t, 5*time.Second), unit, live); err != nil {
		t.Error(err)
	}
	out, err := exec.Command("systemctl", "show", unit, "-p",
		"MemoryMax,TasksMax,CPUQuotaPerSecUSec,CPUWeight,Delegate,CollectMode,TimeoutStopUSec,Slice,Description,AllowedCPUs,IOWeight").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"MemoryMax=2147483648", "TasksMax=50", "CPUQuotaPerSecUSec=1.500000s", "CPUWeight=100", "Delegate=yes",
		"CollectMode=inactive-or-failed", "TimeoutStopUSec=5s", "Slice=" + slice, "Description=a worker", "AllowedCPUs=0", "IOWeight=200"} {
		if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
			t.Errorf("%s missing in\n%s", want, out)
		}
	}
	if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
		t.Error(err)
	}
	leftovers(t, s)
}

func TestS19_NameLength(t *testing.T) {
	s := connect(t, dbusx.Options{})
	pad := func(n int) string {
		head := "sfutest-" + fmt.Sprint(unitNumber.Add(1)) + `-\x2d:_.`
		return head + strings.Repeat("a", n-len(head)-len(".scope")) + ".scope"
	}
	cmd := process(t)
	defer end(cmd)
	unit := pad(255)
	if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Unit(ctxOf(t, 5*time.Second), unit); err != nil || u.Name != unit || u.ActiveState != "active" {
		t.Errorf("got %+v, %v", u, err)
	}
	if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
		t.Error(err)
	}
	if err := s.StartScope(ctxOf(t, 5*time.Second), pad(256), workerProps(cmd.Process.Pid)); !errors.Is(err, systemd1.ErrProperty) {
		t.Errorf("got %v", err)
	}
	leftovers(t, s)
}

func TestFreezeKillAndRef(t *testing.T) {
	s := connect(t, dbusx.Options{})
	ctx := ctxOf(t, 10*time.Second)
	cmd := process(t)
	defer end(cmd)
	unit := unitName()
	if err := s.StartScope(ctx, unit, workerProps(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	frozen := func() string {
		data, _ := os.ReadFile("/sys/fs/cgroup/" + slice + "/" + unit + "/cgroup.freeze")
		return string(data)
	}
	for _, step := range []struct {
		do   func(context.Context, string) error
		want string
	}{{s.Freeze, "1\n"}, {s.Thaw, "0\n"}, {s.Ref, "0\n"}} {
		if err := step.do(ctx, unit); err != nil || frozen() != step.want {
			t.Errorf("%v, frozen %q, want %q", err, frozen(), step.want)
		}
	}
	if err := s.Kill(ctx, unit, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	eventually(t, 5*time.Second, func() error { // ended, yet not forgotten
		u, err := s.Unit(ctx, unit)
		if err != nil || u.ActiveState != "inactive" && u.ActiveState != "failed" {
			return fmt.Errorf("%+v, %v", u, err)
		}
		return nil
	})
	if err := s.Unref(ctx, unit); err != nil {
		t.Error(err)
	}
	leftovers(t, s)
}
