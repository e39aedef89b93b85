//go:build native

package systemd1_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

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
