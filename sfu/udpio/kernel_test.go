package udpio

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/internal/testenv"
)

// TestTrainsRefusedByKernel: trains need checksums (EINVAL).
func TestTrainsRefusedByKernel(t *testing.T) {
	if err := (&Prober{}).HaveSegment(); errors.Is(err, errors.ErrUnsupported) {
		testenv.Skip(t, "gso", err)
	}
	c := listen(t, Config{Rung: "gso"})
	if err := unix.SetsockoptInt(c.socket.fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
	loaded(t, c)
	if s := c.Stats(); s.Demotions == 0 || s.Trains != 0 || s.Rung != "gso" {
		t.Errorf("%+v", s)
	}
}

// child runs the calling test again in a process of its own, made with attr,
// and reports whether this is that process.
func child(t *testing.T, name string, attr *syscall.SysProcAttr) bool {
	t.Helper()
	const variable = "UDPIO_TEST_CHILD"
	if os.Getenv(variable) == name {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+name, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		if attr != nil {
			testenv.Skip(t, "netns", err)
		}
		t.Fatal(err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v: %s", err, out)
	}
	return false
}

// TestSmallMTU: trains of datagrams longer than the MTU are refused (EMSGSIZE),
// shorter ones are not.
func TestSmallMTU(t *testing.T) {
	if err := (&Prober{}).HaveSegment(); errors.Is(err, errors.ErrUnsupported) {
		testenv.Skip(t, "gso", err)
	}
	if !child(t, "mtu", ownNetwork()) {
		return
	}
	up(t, "lo", 1300)
	for _, place := range places {
		c := listen(t, Config{Addr: netip.MustParseAddrPort(place.listen), Rung: "gso"})
		const each, rows = 600, 20
		s := newSink(t, place.reach)
		for number := range uint64(each) {
			length := 1100
			if number/rows%2 == 1 {
				length = 1290 // with headers beyond the MTU
			}
			c.WriteToAddrPort(datagram(number, length), s.addr())
		}
		if err := s.receive(each); err != nil || s.lost > 0 {
			t.Errorf("%s: lost %d, %v", place.name, s.lost, err)
		}
		c.Close()
		if s := c.Stats(); s.Demotions != 1 || s.Trains < each/2/rows || s.TrainPackets > each/2 {
			t.Errorf("%s: %+v", place.name, s)
		}
	}
}

// refuse has calls of this process answered with an errno.
func refuse(t *testing.T, answer unix.Errno, calls ...uint32) {
	t.Helper()
	filter(t, unix.SECCOMP_RET_ERRNO|uint32(answer), unix.SECCOMP_FILTER_FLAG_TSYNC, calls...)
}

// filter installs a seccomp filter that does as action says on calls. It returns
// what seccomp(2) does.
func filter(t *testing.T, action uint32, flags uintptr, calls ...uint32) (fd int) {
	t.Helper()
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	program := []unix.SockFilter{{Code: load}} // the number of the system call
	for _, call := range calls {
		program = append(program, unix.SockFilter{Code: equal, K: call, Jf: 1}, unix.SockFilter{Code: ret, K: action})
	}
	program = append(program, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags,
		uintptr(unsafe.Pointer(&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})))
	if errno != 0 {
		t.Fatal(errno)
	}
	return int(r)
}

func TestSeccompBeforeListen(t *testing.T) {
	for name, answer := range map[string]unix.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS} {
		t.Run(name, func(t *testing.T) {
			if !child(t, t.Name(), nil) {
				return
			}
			refuse(t, answer, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG)
			if _, err := Listen(t.Context(), Config{Addr: loopbackAny, Rung: "mmsg"}); !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, answer) {
				t.Errorf("Listen on mmsg: %v", err)
			}
			c := listen(t, Config{})
			loaded(t, c)
			echo(t, c)
			s := c.Stats()
			if s.Rung != "sendmsg-gso" || !strings.Contains(s.Why, "sendmmsg: unsupported operation: "+answer.Error()) || s.Demotions != 0 {
				t.Errorf("%+v", s)
			}
			for _, found := range new(Prober).Probe(t.Context()) {
				if want := strings.HasSuffix(found.Name, "mmsg"); (found.Verdict == No) != want {
					t.Errorf("%+v", found)
				}
			}
		})
	}
}

func TestSeccompAfterListen(t *testing.T) {
	for name, answer := range map[string]unix.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS} {
		t.Run(name, func(t *testing.T) {
			if !child(t, t.Name(), nil) {
				return
			}
			c := listen(t, Config{})
			loaded(t, c)
			echo(t, c)
			refuse(t, answer, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG)
			loaded(t, c)
			echo(t, c)
			if s := c.Stats(); s.Rung != "sendmsg-gso" || s.Demotions != 2 || s.Drops["refused"] != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// echo has the Conn send to itself.
func echo(t *testing.T, c *Conn) {
	t.Helper()
	buf := make([]byte, 100)
	for range 50 {
		if _, err := c.WriteTo([]byte("hello"), c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if n, _, err := c.ReadFrom(buf); err != nil || string(buf[:n]) != "hello" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
}

func TestProbe(t *testing.T) {
	for _, c := range new(Prober).Probe(t.Context()) {
		if c.Name == "" || c.Tried == "" || (c.Verdict == Yes) != (c.Cause == "") || (c.Verdict == Yes) != (c.Remedy == "") {
			t.Errorf("%+v", c)
		}
		t.Logf("%+v", c)
	}
}
