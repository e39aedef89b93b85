package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
)

// Main is TestMain of a package that uses this one: it runs the tests, or, in a
// re-executed test binary, a test worker or an agent with the subject's Placer.
func Main(m *testing.M, subject Subject) {
	var err error
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	case roleWorker:
		err = worker()
	case roleSleeper:
		sleeper()
	case roleAlloc:
		allocator()
	case roleAgent:
		err = runAgent(subject)
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// NewSpec describes a test worker.
func NewSpec(name, dir string) agent.Spec {
	exe, err := os.Executable()
	if err != nil {
		panic(err) // /proc is not mounted
	}
	return agent.Spec{
		Name: name, Exe: exe, Socket: dir + "/" + name,
		Env:  []string{roleEnv + "=" + roleWorker, "GORACE=exitcode=66 atexit_sleep_ms=0"},
		User: uint32(os.Getuid()), Group: uint32(os.Getgid()),
	}
}

// agentCommand runs this test binary as an agent of its own that places count
// workers and writes their records to its standard output.
func (b *bench) agentCommand(ctx context.Context, count int) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", b.prefix, b.dir, strconv.Itoa(count))
	cmd.Env = append(os.Environ(), roleEnv+"="+roleAgent)
	cmd.Stderr = os.Stderr
	return cmd
}

func runAgent(subject Subject) error {
	ctx := context.Background()
	prefix, dir := os.Args[1], os.Args[2]
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	placer, err := subject.Open(ctx, prefix)
	if err != nil {
		return err
	}
	var records []agent.Record
	for i := range count {
		placement, err := placer.Place(ctx, NewSpec(fmt.Sprintf("%s-%d-agent", prefix, i), dir))
		if err != nil {
			return err
		}
		records = append(records, placement.Record())
	}
	if err := json.NewEncoder(os.Stdout).Encode(records); err != nil {
		return err
	}
	time.Sleep(longest)
	return nil
}
