//go:build native || vm

package cgroups

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes the test binary a process to be put in cgroups.
const roleEnv = "SFU_CGROUPS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role, argument, _ := strings.Cut(os.Getenv(roleEnv), "="); role {
	case "":
		if err := settle(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case "sleep":
		time.Sleep(time.Minute)
	case "fork": // a tree of processes
		count, _ := strconv.Atoi(argument)
		for range count {
			child := exec.Command("/bin/sleep", "60")
			if err := child.Start(); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		fmt.Println("ready")
		time.Sleep(time.Minute)
	case "bomb": // forks, each child too, through a count of generations
		bomb(argument)
	case "alloc":
		size, _ := strconv.Atoi(argument)
		alloc(size)
	case "alloc child": // a child that allocates, and itself
		child := exec.Command("/proc/self/exe")
		child.Env = []string{roleEnv + "=alloc=" + argument}
		if err := child.Run(); err != nil {
			fmt.Println("ready")
		}
		time.Sleep(time.Minute)
	}
	os.Exit(0)
}

func bomb(generations string) {
	left, _ := strconv.Atoi(generations)
	if left > 0 {
		for range 2 {
			child := exec.Command("/proc/self/exe")
			child.Env = []string{roleEnv + "=bomb=" + strconv.Itoa(left-1)}
			child.Stdout = os.Stdout
			child.Start()
		}
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
}

func alloc(size int) {
	data := make([]byte, size)
	for i := 0; i < len(data); i += 4096 {
		data[i] = 1
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
}

// newGroup makes a cgroup for the test, which is gone after it.
func newGroup(t testing.TB) Group {
	t.Helper()
	g, err := makeGroup()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := endGroup(g); err != nil {
			t.Error(err)
		}
	})
	return g
}

// made numbers the test's cgroups.
var made atomic.Int64

func makeGroup() (Group, error) {
	host, err := Detect()
	if err != nil {
		return Group{}, err
	}
	g := host.Own.Parent().Child(fmt.Sprintf("test-%d", made.Add(1)))
	return g, g.Create()
}

// settle moves this process one cgroup down, so that the one it leaves can have
// controllers for its children. An earlier test in the same unit may have done so.
func settle() error {
	host, err := Detect()
	if err != nil {
		return err
	}
	if host.Own.Delegated() != nil {
		return host.Own.Parent().Delegated()
	}
	own := host.Own.Child("agent")
	if err := errors.Join(own.Create(), host.Own.MoveAll(context.Background(), own)); err != nil {
		return err
	}
	controllers, err := host.Own.Controllers()
	if err != nil {
		return err
	}
	for _, controller := range controllers {
		err = errors.Join(err, host.Own.Enable(controller))
	}
	return err
}

func endGroup(g Group) error {
	return errors.Join(g.Kill(context.Background()), g.Remove(context.Background()))
}

// start starts a process in a cgroup, and waits for count of them to be ready.
func start(t testing.TB, g Group, role string, count int) *exec.Cmd {
	t.Helper()
	dir, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleEnv + "=" + role}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewReader(out)
	for range count {
		if line, err := lines.ReadString('\n'); err != nil || line != "ready\n" {
			t.Fatalf("process says %q, %v", line, err)
		}
	}
	return cmd
}

func sleepIn(g Group) (*exec.Cmd, error) {
	dir, err := g.Open()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	cmd := exec.Command("/bin/sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd, cmd.Start()
}

// burn keeps more processes busy than there are CPUs.
func burn(t *testing.T, g Group) {
	dir, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	for range 2*cpus.Count() + 1 {
		cmd := exec.Command("/bin/sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Wait() })
		t.Cleanup(func() { cmd.Process.Kill() })
	}
}
