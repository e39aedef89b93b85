package udpio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/internal/testenv"
	"github.com/sfu-agent/sfu-agent/sfu/udpio/internal/uring"
)

var uringCalls = []uint32{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// needUring skips a test where there is no rung uring to take away.
func needUring(t *testing.T) {
	t.Helper()
	p := &Prober{Child: tryUringChild}
	if err := p.HaveSegment(); errors.Is(err, errors.ErrUnsupported) {
		testenv.Skip(t, "gso", err)
	}
	if err := p.HaveUring(); errors.Is(err, errors.ErrUnsupported) {
		testenv.Skip(t, "io_uring", err)
	}
}

// withoutUring asks for the rung where it cannot be for that cause: a lower one
// serves, and says why.
func withoutUring(t *testing.T, p *Prober, cause UringCause, conclusive bool) {
	t.Helper()
	err := p.HaveUring()
	e, ok := errors.AsType[*UringError](err)
	if !ok || e.Cause != cause || e.Remedy == "" || errors.Is(err, errors.ErrUnsupported) != conclusive {
		t.Errorf("HaveUring: %+v, want %s", err, cause)
	}
	c := listen(t, Config{Rung: "uring", Prober: p})
	loaded(t, c)
	echo(t, c)
	if s := c.Stats(); s.Rung != "gso" || !strings.Contains(s.Why, string(cause)) || s.Demotions != 0 {
		t.Errorf("%+v", s)
	}
}

func TestUringExplain(t *testing.T) {
	of := func(step uring.Step, errno unix.Errno) error {
		return fmt.Errorf("try: %w", &uring.Error{Step: step, Errno: errno})
	}
	for _, test := range []struct {
		err    error
		host   uringHost
		cause  UringCause
		remedy string
	}{
		{of(uring.Enter, unix.EPERM), uringHost{disabled: "0", filtered: true}, UringSeccomp, "seccomp profile"},
		{of(uring.Enter, unix.EPERM), uringHost{}, UringSeccomp, "seccomp profile"},
		{of(uring.Enter, unix.ENOSYS), uringHost{disabled: "0", filtered: true}, UringSeccomp, "seccomp profile"},
		{of(uring.Enter, unix.ENOSYS), uringHost{disabled: "unknown"}, UringSeccomp, "seccomp profile"},
		{of(uring.Enter, unix.ENOSYS), uringHost{filtered: true}, UringKernel, "or a seccomp profile"},
		{of(uring.Enter, unix.ENOSYS), uringHost{}, UringKernel, "needs Linux"},
		{of(uring.Setup, unix.EPERM), uringHost{disabled: "0"}, UringSeccomp, "seccomp profile"},
		{of(uring.Setup, unix.EPERM), uringHost{}, UringSeccomp, "seccomp profile"},
		{of(uring.Setup, unix.EPERM), uringHost{disabled: "1"}, UringSysctl, "kernel.io_uring_group"},
		{of(uring.Setup, unix.EPERM), uringHost{disabled: "2"}, UringSysctl, "a container cannot change"},
		{of(uring.Setup, unix.ENOSYS), uringHost{}, UringSeccomp, "seccomp profile"},
		{of(uring.Setup, unix.EACCES), uringHost{disabled: "2"}, UringLSM, "SELinux"},
		{of(uring.Setup, unix.EINVAL), uringHost{}, UringKernel, "needs Linux"},
		{of(uring.Setup, unix.ENOMEM), uringHost{}, UringMemory, "LimitMEMLOCK"},
		{of(uring.Setup, unix.EMFILE), uringHost{files: 10}, UringFiles, "LimitNOFILE (now 10)"},
		{of(uring.Setup, unix.ENFILE), uringHost{files: 10}, UringFiles, "LimitNOFILE"},
		{of(uring.Features, unix.ENOSYS), uringHost{disabled: "0", filtered: true}, UringKernel, "needs Linux"},
		{of(uring.Map, unix.ENOMEM), uringHost{}, UringMemory, "LimitMEMLOCK"},
		{of(uring.Map, unix.EACCES), uringHost{}, UringLSM, "SELinux"},
		{of(uring.Map, unix.EPERM), uringHost{}, UringUnknown, "not required"},
		{of(uring.Sendmsg, unix.EACCES), uringHost{}, UringOpcode, "needs Linux"},
		{of(uring.Sendmsg, unix.EINVAL), uringHost{}, UringOpcode, "needs Linux"},
		{of(uring.Sendmsg, unix.EOPNOTSUPP), uringHost{}, UringOpcode, "needs Linux"},
		{of(uring.Sendmsg, unix.ENETUNREACH), uringHost{}, UringUnknown, "not required"},
		{os.NewSyscallError("socket", unix.EMFILE), uringHost{files: 10}, UringFiles, "LimitNOFILE (now 10)"},
		{os.ErrDeadlineExceeded, uringHost{}, UringUnknown, "not required"},
	} {
		got := test.host.explain(test.err)
		if got.Cause != test.cause || !strings.Contains(got.Remedy, test.remedy) || !errors.Is(got, test.err) {
			t.Errorf("%v on %+v: %+v, want %s, %q", test.err, test.host, got, test.cause, test.remedy)
		}
		changes := test.cause == UringMemory || test.cause == UringFiles || test.cause == UringUnknown
		if errors.Is(got, errors.ErrUnsupported) == changes {
			t.Errorf("%v is conclusive: %v", got, !changes)
		}
	}
}

// TestUringFiltered: each of the calls, and all, answered with an errno.
func TestUringFiltered(t *testing.T) {
	needUring(t)
	for _, test := range []struct {
		name   string
		answer unix.Errno
		calls  []uint32
		cause  UringCause // "": it works all the same
	}{
		{"EPERM", unix.EPERM, uringCalls, UringSeccomp},
		{"ENOSYS", unix.ENOSYS, uringCalls, UringSeccomp},
		{"setup", unix.EPERM, uringCalls[:1], UringSeccomp},
		{"enter", unix.EPERM, uringCalls[1:2], UringSeccomp},
		{"register", unix.EPERM, uringCalls[2:], ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !child(t, t.Name(), nil) {
				return
			}
			refuse(t, test.answer, test.calls...)
			if test.cause != "" {
				withoutUring(t, &Prober{Child: tryUringChild}, test.cause, true)
				return
			}
			c := listen(t, Config{Rung: "uring", Prober: &Prober{Child: tryUringChild}})
			loaded(t, c)
			if s := c.Stats(); s.Rung != "uring" || s.Why != "" || s.Demotions != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestUringKills: of a filter that ends who calls, only the child dies.
func TestUringKills(t *testing.T) {
	needUring(t)
	for name, action := range map[string]uint32{
		"process": unix.SECCOMP_RET_KILL_PROCESS,
		"thread":  unix.SECCOMP_RET_KILL_THREAD,
		"trap":    unix.SECCOMP_RET_TRAP,
	} {
		t.Run(name, func(t *testing.T) {
			if !child(t, t.Name(), nil) {
				return
			}
			filter(t, action, unix.SECCOMP_FILTER_FLAG_TSYNC, uringCalls...)
			if action == unix.SECCOMP_RET_KILL_THREAD { // Go's other threads go on
				withoutUring(t, &Prober{Child: tryUringChild}, UringUnknown, false)
			} else {
				withoutUring(t, &Prober{Child: tryUringChild}, UringKill, true)
			}
			withoutUring(t, &Prober{}, UringUnknown, false)
		})
	}
}

// TestUringFilteredLater: by one that lets no child start. What was known before
// is how the calls can be tried.
func TestUringFilteredLater(t *testing.T) {
	needUring(t)
	if !child(t, t.Name(), nil) {
		return
	}
	refuse(t, unix.EPERM, unix.SYS_GETPID) // an outer one
	p := &Prober{Child: tryUringChild}
	if err := p.UringReturns(); err != nil {
		t.Fatal(err)
	}
	refuse(t, unix.EPERM, unix.SYS_EXECVE)
	withoutUring(t, &Prober{Child: tryUringChild}, UringUnknown, false)
	if err := p.HaveUring(); err != nil {
		t.Error(err)
	}
}

func TestUringChildFails(t *testing.T) {
	for name, command := range map[string][]string{
		"not there": {"/nowhere/at/all"},
		"fails":     {"false"},
		"hangs":     {"sleep", "60"},
	} {
		err := letTry(command)
		if e, ok := errors.AsType[*UringError](err); !ok || e.Cause != UringUnknown || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUringSmallMemlock: the rings themselves are no locked memory (Linux 5.12).
func TestUringSmallMemlock(t *testing.T) {
	needUring(t)
	// Root of a user namespace has no CAP_IPC_LOCK that counts.
	if !child(t, "memlock", ownNetwork()) {
		return
	}
	up(t, "lo", 65536)
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mlock(make([]byte, 128<<10)); err == nil {
		t.Fatal("RLIMIT_MEMLOCK has no effect")
	}
	if err := (&Prober{}).HaveUring(); err != nil {
		e, _ := errors.AsType[*UringError](err)
		if e.Cause != UringMemory {
			t.Error(err)
		}
		withoutUring(t, &Prober{}, UringMemory, false)
		return
	}
	c := listen(t, Config{Rung: "uring"})
	loaded(t, c)
	if s := c.Stats(); s.Rung != "uring" {
		t.Errorf("%+v", s)
	}
}

// TestUringNoFiles: none can be opened, and then as many as a Conn needs but for
// the ring.
func TestUringNoFiles(t *testing.T) {
	needUring(t)
	if !child(t, t.Name(), nil) {
		return
	}
	p := &Prober{}
	if err := errors.Join(p.HaveSegment(), p.HaveSendmmsg(), p.HaveRecvmmsg()); err != nil {
		t.Fatal(err)
	}
	_, err := limitFiles(t, 0, func() (*Conn, error) { return nil, p.HaveUring() })
	e, ok := errors.AsType[*UringError](err)
	if !ok || e.Cause != UringFiles || errors.Is(err, errors.ErrUnsupported) || !strings.Contains(e.Remedy, "LimitNOFILE") {
		t.Errorf("HaveUring: %v", err)
	}
	if err := p.HaveUring(); err != nil { // now there is
		t.Fatal(err)
	}
	for more := range 20 {
		config := quiet
		config.Rung, config.Prober = "uring", p
		c, err := limitFiles(t, more, func() (*Conn, error) { return Listen(t.Context(), config) })
		if err != nil && !errors.Is(err, unix.EMFILE) {
			t.Fatal(err)
		} else if err != nil {
			continue
		}
		defer c.Close()
		loaded(t, c)
		if s := c.Stats(); s.Rung != "gso" || s.Why != "open rung uring: io_uring_setup: too many open files" {
			t.Errorf("with %d files: %+v", more, s)
		}
		return
	}
	t.Error("no Conn with 20 files")
}

// limitFiles lets f open so many more files.
func limitFiles(t *testing.T, more int, f func() (*Conn, error)) (*Conn, error) {
	t.Helper()
	first, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) // numbers are given from below
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(first)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(first + more), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	c, got := f()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	return c, got
}

// TestUringOpcode: a ring that allows no IORING_OP_SENDMSG. It comes from a
// supervisor of io_uring_setup (seccomp_unotify(2)).
func TestUringOpcode(t *testing.T) {
	needUring(t)
	if !child(t, t.Name(), nil) {
		return
	}
	runtime.LockOSThread() // and never unlocked, since it is filtered
	listener := filter(t, unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, unix.SYS_IO_URING_SETUP)
	given := make(chan error)
	go func() { given <- giveRestricted(listener) }()
	p := &Prober{known: map[string]error{"io_uring returns": nil}}
	err := p.HaveUring()
	if e, ok := errors.AsType[*UringError](err); !ok || e.Cause != UringOpcode || !errors.Is(err, unix.EACCES) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("HaveUring: %v", err)
	}
	if err := <-given; err != nil {
		t.Fatal(err)
	}
	unix.Close(listener)
	withoutUring(t, p, UringOpcode, true)
}

// giveRestricted answers one io_uring_setup with a ring that allows no opcode.
func giveRestricted(listener int) error {
	const disabled, registerRestrictions, registerEnable = 1 << 6, 11, 12 // of io_uring
	const addfdSend = 1 << 1
	var asked struct { // struct seccomp_notif
		id         uint64
		pid, flags uint32
		number     int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&asked))); errno != 0 {
		return os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_RECV", errno)
	}
	var params [120]byte // struct io_uring_params
	binary.NativeEndian.PutUint32(params[8:], disabled)
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(asked.args[0]), uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return os.NewSyscallError("io_uring_setup", errno)
	}
	defer unix.Close(int(ring))
	var none [16]byte // struct io_uring_restriction
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerRestrictions, uintptr(unsafe.Pointer(&none)), 1, 0, 0); errno != 0 {
		return os.NewSyscallError("io_uring_register", errno)
	}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerEnable, 0, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("io_uring_register", errno)
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	if _, err := memory.WriteAt(params[:], int64(asked.args[1])); err != nil {
		return err
	}
	answer := struct { // struct seccomp_notif_addfd
		id                          uint64
		flags, from, to, descriptor uint32
	}{asked.id, addfdSend, uint32(ring), 0, unix.O_CLOEXEC}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&answer))); errno != 0 {
		return os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_ADDFD", errno)
	}
	return nil
}
