package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// confined is what a program is started under: a seccomp filter, limits, a user.
// The test binary confines itself and then becomes the program.
type confined struct {
	Calls   []uintptr // system calls that the filter is about
	Answer  uint32    // what it answers: SECCOMP_RET_... of seccomp(2)
	Memlock uint64    // RLIMIT_MEMLOCK in bytes; 0: as it is
	Nofile  uint64    // RLIMIT_NOFILE; 0: as it is
	UID     int       // and GID, where this user is root; 0: as it is
}

const confinedEnv = "SFU_TEST_CONFINED"

// listenerFD is where a confined process finds the socket to send the listener
// of its filter to (SECCOMP_FILTER_FLAG_NEW_LISTENER).
const listenerFD = 3

func TestMain(m *testing.M) {
	if text := os.Getenv(confinedEnv); text != "" {
		fmt.Fprintln(os.Stderr, "confined start:", confine(text, os.Args[1:]))
		os.Exit(125)
	}
	os.Exit(m.Run())
}

// command is program with args, confined.
func (c confined) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{program}, args...)...)
	cmd.Env = append(os.Environ(), confinedEnv+"="+string(text))
	return cmd
}

// confine returns only if it cannot be done.
func confine(text string, args []string) error {
	runtime.LockOSThread() // the filter and no_new_privs are of the thread that calls execve(2)
	var c confined
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	if c.UID != 0 && os.Geteuid() == 0 {
		if err := errors.Join(unix.Setgroups(nil), unix.Setgid(c.UID), unix.Setuid(c.UID)); err != nil {
			return err
		}
	}
	for limit, value := range map[int]uint64{unix.RLIMIT_MEMLOCK: c.Memlock, unix.RLIMIT_NOFILE: c.Nofile} {
		if value == 0 {
			continue
		}
		if err := unix.Setrlimit(limit, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return err
		}
	}
	if len(c.Calls) > 0 {
		if err := c.filter(); err != nil {
			return err
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return len(v) > len(confinedEnv) && v[:len(confinedEnv)] == confinedEnv })
	return unix.Exec(args[0], args, env)
}

// filter installs the seccomp filter, which the program inherits.
func (c confined) filter() error {
	program, err := c.assemble()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	var flags uintptr
	if c.Answer == unix.SECCOMP_RET_USER_NOTIF {
		flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	if flags == 0 {
		return nil
	}
	err = unix.Sendmsg(listenerFD, []byte{0}, unix.UnixRights(int(fd)), nil, 0)
	return errors.Join(err, unix.Close(listenerFD), unix.Close(int(fd)))
}

// assemble compares the number, at the head of struct seccomp_data, with each of
// the calls. Other architectures' numbers are not used by what is started here.
func (c confined) assemble() ([]unix.SockFilter, error) {
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}}
	for i, call := range c.Calls {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(call), SkipTrue: uint8(len(c.Calls) - i)})
	}
	raw, err := bpf.Assemble(append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}, bpf.RetConstant{Val: c.Answer}))
	if err != nil {
		return nil, err
	}
	var filter []unix.SockFilter
	for _, r := range raw {
		filter = append(filter, unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K})
	}
	return filter, nil
}

// seccompNotif is struct seccomp_notif, seccompAnswer struct seccomp_notif_resp
// (seccomp_unotify(2)).
type (
	seccompNotif struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	seccompAnswer struct {
		id    uint64
		val   int64
		error int32
		flags uint32
	}
)

// overseer lets the calls of a confined process go on, until it is told not to.
type overseer struct {
	before  []func(seccompNotif) error
	answers chan unix.Errno // what to answer from now on
	refused chan struct{}   // closed when a call was first answered so
	stop    chan struct{}
	done    sync.WaitGroup
}

// startOverseen starts a command whose filter answers SECCOMP_RET_USER_NOTIF.
// What is to be done before a call goes on is done to the caller's ring.
func startOverseen(t *testing.T, cmd *exec.Cmd, before ...func(call seccompNotif) error) *overseer {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := pair[0], os.NewFile(uintptr(pair[1]), "listener")
	defer unix.Close(ours)
	cmd.ExtraFiles = []*os.File{theirs} // listenerFD
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := receiveFD(ours)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("no listener from the confined process: %v", err)
	}
	o := &overseer{before: before, answers: make(chan unix.Errno, 1), refused: make(chan struct{}), stop: make(chan struct{})}
	o.done.Go(func() { defer unix.Close(listener); o.oversee(t, listener) })
	t.Cleanup(func() { close(o.stop); o.done.Wait() })
	return o
}

func receiveFD(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("%d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// refuse has all further calls answered with errno, and waits for the first one.
func (o *overseer) refuse(t *testing.T, errno unix.Errno) {
	t.Helper()
	o.answers <- errno
	select {
	case <-o.refused:
	case <-time.After(10 * time.Second):
		t.Fatal("the confined process made no such call within 10 s")
	}
}

func (o *overseer) oversee(t *testing.T, listener int) {
	var answer unix.Errno
	for {
		select {
		case <-o.stop:
			return
		case answer = <-o.answers:
		default:
		}
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 20); n == 0 || err != nil {
			continue
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return // nobody is under the filter any more
		}
		var call seccompNotif
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&call))); errno != 0 {
			continue // it was interrupted, and comes again
		}
		for _, do := range o.before {
			if err := do(call); err != nil {
				t.Errorf("before a call goes on: %v", err)
			}
		}
		reply := seccompAnswer{id: call.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if answer != 0 {
			reply.flags, reply.error = 0, -int32(answer)
		}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&reply)))
		if answer != 0 && errno == 0 {
			select {
			case <-o.refused:
			default:
				close(o.refused)
			}
		}
	}
}

// withoutSendmsg has the kernel find an unknown opcode in place of each
// IORING_OP_SENDMSG that the caller of io_uring_enter(2) has in its ring.
func withoutSendmsg(call seccompNotif) error {
	const (
		offSQEs   = 0x10000000 // IORING_OFF_SQES of io_uring.h
		sqeBytes  = 64         // struct io_uring_sqe, which begins with the opcode
		sqes      = 64         // of a worker's ring
		opSendmsg = 9
		opUnknown = 0xfe
	)
	if int32(call.args[0]) < 0 {
		return nil // a question whether there is such a call
	}
	process, err := threadGroup(call.pid)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(process, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	ring, err := unix.PidfdGetfd(pidfd, int(call.args[0]), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_getfd", err)
	}
	defer unix.Close(ring)
	entries, err := unix.Mmap(ring, offSQEs, sqes*sqeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	for at := 0; at < len(entries); at += sqeBytes {
		if entries[at] == opSendmsg {
			entries[at] = opUnknown
		}
	}
	return os.NewSyscallError("munmap", unix.Munmap(entries))
}

// threadGroup is the process of a thread.
func threadGroup(thread uint32) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "\nTgid:")
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.Atoi(strings.TrimSpace(line))
}

// confinedPath is a path that a process of any user can make a socket at.
func confinedPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(dirOfAnyone(t), "control-"+strconv.Itoa(os.Getpid()))
}
