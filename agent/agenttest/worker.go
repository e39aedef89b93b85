package agenttest

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// roleEnv makes a re-executed test binary something else than a test.
const roleEnv = "SFU_AGENTTEST_ROLE"

const (
	roleWorker  = "worker"  // waits at its gate, then serves Ask
	roleSleeper = "sleeper" // a worker's child: ignores SIGTERM
	roleAlloc   = "alloc"   // a worker's child: uses memory
	roleAgent   = "agent"   // places workers and waits to be killed
)

// Info is what a test worker says of itself to Ask(socket, "info").
type Info struct {
	PID, Session int
	UID, GID     int
	Groups       []int
	Dir          string
	Env          []string
	Args         []string
	CgroupAtGate string // 0:: line of /proc/self/cgroup when the gate had opened
	NoNewPrivs   string // of /proc/self/status
	FDs          []string
}

// Ask sends a test worker one command and returns its answer:
//
//	info       Info as JSON
//	exit N     ends with status N
//	signal N   sends itself signal N
//	ignore     ignores SIGTERM from now on
//	fork       starts a child that ignores SIGTERM, answers its PID
//	escape     the same, in a session of the child's own
//	alloc N    writes to N bytes of memory
//	fork-alloc N  has a child do that
func Ask(ctx context.Context, socket, command string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && len(answer) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimSpace(string(answer)), err
}

// longest is how long a process of a test lives when the test forgets it.
const longest = 10 * time.Minute

// worker is the main function of a test worker.
func worker() error {
	time.AfterFunc(longest, func() { os.Exit(1) })
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	size := flags.Int("alloc", 0, "")
	gateFD := flags.Int("gate-fd", 0, "")
	controlFD := flags.Int("control-fd", 0, "")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if !passed(os.NewFile(uintptr(*gateFD), "gate")) {
		return nil
	}
	touch(*size)
	cgroup, err := unifiedLine()
	if err != nil {
		return err
	}
	control, err := net.FileListener(os.NewFile(uintptr(*controlFD), "control"))
	if err != nil {
		return err
	}
	for {
		conn, err := control.Accept()
		if err != nil {
			return err
		}
		command, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil {
			fmt.Fprintln(conn, obey(strings.Fields(command), cgroup))
		}
		conn.Close()
	}
}

// passed waits at the gate and says whether it opened.
func passed(gate *os.File) bool {
	defer gate.Close()
	var token [1]byte
	n, _ := gate.Read(token[:])
	return n == 1 && token[0] == 'g'
}

func obey(command []string, cgroup string) string {
	number := 0
	if len(command) > 1 {
		number, _ = strconv.Atoi(command[1])
	}
	switch command[0] {
	case "info":
		return describe(cgroup)
	case "exit":
		os.Exit(number)
	case "signal":
		syscall.Kill(os.Getpid(), syscall.Signal(number))
	case "ignore":
		signal.Ignore(syscall.SIGTERM)
	case "fork":
		return startChild(false, roleSleeper, "")
	case "escape":
		return startChild(true, roleSleeper, "")
	case "alloc":
		go func() { hold(touch(number)) }()
	case "fork-alloc":
		return startChild(false, roleAlloc, command[1])
	default:
		return "unknown command"
	}
	return "done"
}

func describe(cgroup string) string {
	groups, _ := os.Getgroups()
	dir, _ := os.Getwd()
	session, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	info := Info{
		PID: os.Getpid(), Session: int(session), UID: os.Getuid(), GID: os.Getgid(), Groups: groups,
		Dir: dir, Env: os.Environ(), Args: os.Args, CgroupAtGate: cgroup, NoNewPrivs: statusField("NoNewPrivs"),
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil {
			info.FDs = append(info.FDs, entry.Name()+" "+target)
		}
	}
	text, err := json.Marshal(info)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func statusField(name string) string {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// unifiedLine returns the cgroup v2 path of this process, "" where there is none.
func unifiedLine() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path), nil
		}
	}
	return "", nil
}

// startChild starts a child with a role and returns its PID when it is ready.
func startChild(session bool, role string, args ...string) string {
	child := exec.Command("/proc/self/exe", args...)
	child.Env = []string{roleEnv + "=" + role}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	ready, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		return err.Error()
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return err.Error()
	}
	return strconv.Itoa(child.Process.Pid)
}

// sleeper is a child that ignores SIGTERM.
func sleeper() {
	signal.Ignore(syscall.SIGTERM)
	fmt.Print("\n")
	time.Sleep(longest)
}

// allocator is a child that writes to as many bytes of memory as its argument says.
func allocator() {
	size, _ := strconv.Atoi(os.Args[1])
	fmt.Print("\n")
	hold(touch(size))
}

// touch writes to every page of bytes memory, in small steps so that it is used
// bit by bit.
func touch(bytes int) (memory [][]byte) {
	const step = 1 << 20
	for ; bytes > 0; bytes -= step {
		block := make([]byte, min(step, bytes))
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		memory = append(memory, block)
	}
	return memory
}

func hold(memory [][]byte) {
	time.Sleep(longest)
	runtime.KeepAlive(memory)
}
