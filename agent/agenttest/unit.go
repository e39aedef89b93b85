package agenttest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent"
)

// AgentUnit tests what becomes of workers when the systemd unit of their agent
// is stopped: they go on if survive is set, else they are all gone. The
// package's TestMain must be Main.
func AgentUnit(t *testing.T, subject Subject, survive bool) {
	b := newBench(t, subject)
	unit := "sfu-agenttest-" + b.prefix + ".service"
	out := filepath.Join(t.TempDir(), "records")
	_, err := b.runUnit(t, unit, "--property=Delegate=yes", "--property=KillMode=mixed", "--property=StandardOutput=file:"+out)
	if err != nil {
		t.Fatal(err)
	}
	records := readRecords(t, out)
	stop := exec.CommandContext(b.context(t), "systemctl", "stop", unit)
	if text, err := stop.CombinedOutput(); err != nil {
		t.Fatalf("stop %s: %v\n%s", unit, err, text)
	}
	for _, rec := range records {
		adopted, err := b.placer.Adopt(b.context(t), rec)
		switch {
		case survive && err != nil:
			t.Error(err)
		case survive:
			b.info(t, adopted)
			b.end(t, adopted)
		case err == nil:
			t.Errorf("worker %s is left", rec.Name)
			b.end(t, adopted)
		}
		os.Remove(rec.Socket)
	}
}

// AgentUnitFails tests that an agent cannot work in a unit without delegation,
// and says why.
func AgentUnitFails(t *testing.T, subject Subject, want string) {
	b := newBench(t, subject)
	text, err := b.runUnit(t, "sfu-agenttest-"+b.prefix+".service", "--wait", "--pipe")
	if err == nil || !strings.Contains(text, want) {
		t.Errorf("agent: %v, says %q, want %q", err, text, want)
	}
}

// runUnit runs this test binary as an agent in a unit of its own.
func (b *bench) runUnit(t *testing.T, unit string, options ...string) (output string, err error) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--quiet", "--collect", "--unit=" + unit, "--setenv=" + roleEnv + "=" + roleAgent}, options...)
	cmd := exec.CommandContext(b.context(t), "systemd-run", append(args, exe, b.prefix, b.dir, "3")...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("run %s: %w", unit, err)
	}
	return string(text), err
}

// readRecords waits for an agent's records in a file.
func readRecords(t *testing.T, path string) (records []agent.Record) {
	t.Helper()
	eventually(t, "the agent has placed its workers", func() bool {
		data, err := os.ReadFile(path)
		return err == nil && json.Unmarshal(data, &records) == nil
	})
	return records
}
