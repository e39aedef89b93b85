package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// TestBadInput gives the program all that may go wrong and wants words for it,
// and nothing left behind.
func TestBadInput(t *testing.T) {
	program := build(t)
	for name, test := range map[string]func(*testing.T, string){
		"arguments": testArguments, "resources taken": testResourcesTaken, "state directory in use": testStateDirInUse,
		"requests": testRequests, "two publishers": testTwoPublishers, "half a request": testHalfRequest,
		"client gone before ICE":            func(t *testing.T, p string) { testClientGone(t, p, false) },
		"client gone between ICE and DTLS":  func(t *testing.T, p string) { testClientGone(t, p, true) },
		"program out of the worker's reach": testProgramOutOfReach,
		"stopped with sessions":             testStopWithSessions, "killed worker": testKilledWorker, "hung worker": testHungWorker,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, program) })
	}
}

// build makes the program, where the users of workers can reach it.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(publicDir(t), "sfu-agent")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// publicDir is a directory that any user can enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sfu-agent-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// refused runs the program, which has to end by itself with status 1 and with
// want among its words.
func refused(t *testing.T, cmd *exec.Cmd, want string) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 15 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(15*time.Second, func() { cmd.Process.Kill() })
	defer limit.Stop()
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v: %v, want status 1", cmd.Args[1:], cmd.ProcessState)
	}
	if !strings.HasPrefix(out.String(), "sfu-agent: ") || !strings.Contains(out.String(), want) {
		t.Errorf("%v: said %q, want %q", cmd.Args[1:], out.String(), want)
	}
}

func testArguments(t *testing.T, program string) {
	dir := t.TempDir()
	config, file := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "file")
	for path, text := range map[string]string{config: "workers: 1\nwrokers: 2\n", file: ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := filepath.Join(dir, "state")
	run := func(args ...string) []string {
		return append([]string{"run", "--state-dir", state, "--http", "127.0.0.1:0", "--workers", "1", "--udp-port", strconv.Itoa(freeUDPPort(t))}, args...)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"unknown flag: --nonsense (see 'sfu-agent run --help')", run("--nonsense")},
		{`unknown command "nonsense"`, []string{"nonsense"}},
		{`unknown command "nonsense"`, run("nonsense")},
		{`--placer "nonsense": want auto, scope, subtree or process`, run("--placer", "nonsense")},
		{config + `:2: unknown key "wrokers" (known: advertise, `, run("--config", config)},
		{"--workers 0: want 1 to 512", run("--workers", "0")},
		{"--http 192.0.2.1:80: anyone who reaches it could publish and watch", run("--http", "192.0.2.1:80")},
		{"choose another with --state-dir", run("--placer", "process", "--state-dir", filepath.Join(file, "below"))},
		{"--control PATH", []string{"worker"}},
		{"is the agent running?", []string{"status", "--url", "http://127.0.0.1:1"}},
	} {
		refused(t, exec.Command(program, c.args...), c.want)
	}
	refused(t, withoutBus(program, dirOfAnyone(t), run()), "--placer scope: ")
	leavesNothing(t, state)
}

// withoutBus has no root as its user: for root the agent would go on to
// systemd's own socket, wherever D-Bus is.
func withoutBus(program, state string, args []string) *exec.Cmd {
	cmd := exec.Command(program, append(args, "--placer", "scope", "--state-dir", state)...)
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent/bus")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

// dirOfAnyone is a directory that any user can write in.
func dirOfAnyone(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sfu-agent-state-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { leavesNothing(t, dir); os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testResourcesTaken(t *testing.T, program string) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	taken := strconv.Itoa(udp.LocalAddr().(*net.UDPAddr).Port)
	state := filepath.Join(t.TempDir(), "state")
	run := []string{"run", "--placer", "process", "--workers", "1", "--state-dir", state}
	refused(t, exec.Command(program, append(run, "--http", tcp.Addr().String(), "--udp-port", strconv.Itoa(freeUDPPort(t)))...),
		"--http "+tcp.Addr().String()+": listen tcp "+tcp.Addr().String()+": bind: address already in use")
	refused(t, exec.Command(program, append(run, "--http", "127.0.0.1:0", "--udp-port", taken)...), "UDP port of worker 0: listen udp 127.0.0.1:"+taken)
	leavesNothing(t, state)
}

func testStateDirInUse(t *testing.T, program string) {
	h := start(t, program)
	refused(t, exec.Command(program, "run", "--placer", "process", "--workers", "1", "--http", "127.0.0.1:0",
		"--udp-port", strconv.Itoa(freeUDPPort(t)), "--state-dir", h.state),
		fmt.Sprintf("state directory %s is in use by another sfu-agent (PID %d)", h.state, h.cmd.Process.Pid))
	if w := h.worker(t); w.State != agent.StateReady || w.Restarts != 0 {
		t.Errorf("the first agent's worker: %+v", w)
	}
}

func testRequests(t *testing.T, program string) {
	h := start(t, program)
	sdp := offer(t, false).LocalDescription().SDP
	for _, c := range []struct {
		method, path, contentType, body string
		status                          int
		detail                          string
	}{
		{"POST", "/whip/lobby", "application/sdp", "nonsense", 400, "malformed SDP"},
		{"POST", "/whip/lobby", "application/sdp", "", 400, "malformed SDP"},
		{"POST", "/whip/lobby", "application/sdp", sdp[:len(sdp)/2], 400, ""},
		{"POST", "/whip/lobby", "application/json", sdp, 415, "application/sdp"},
		{"POST", "/whip/lobby", "application/sdp", sdp + strings.Repeat("a", 64<<10), 413, "65536 bytes"},
		{"POST", "/whip/a%20b", "application/sdp", sdp, 400, "A room's name"},
		{"POST", "/whep/nobody", "application/sdp", strings.ReplaceAll(sdp, "a=sendonly", "a=recvonly"), 409, "nobody publishes"},
		{"DELETE", "/whip/lobby/0-none", "", "", 404, "no such session"},
		{"DELETE", "/whip/lobby/7-none", "", "", 404, "No such session"},
		{"PATCH", "/whip/lobby/0-none", "application/trickle-ice-sdpfrag", "a=x", 404, "no such session"},
		{"PUT", "/whip/lobby", "application/sdp", sdp, 405, "POST"},
		{"DELETE", "/api/v1/workers/9", "", "", 404, "No such worker"},
		{"PATCH", "/api/v1/workers/0", "application/json", `{"limits":{"memory":1}}`, 400, "limits.memory"},
		{"PATCH", "/api/v1/workers/0", "application/json", `{"limits":{"memory_max":1073741824}}`, 409, "a plain process has no cgroup"},
	} {
		status, detail := h.ask(t, c.method, c.path, c.contentType, c.body)
		if status != c.status || !strings.Contains(detail, c.detail) {
			t.Errorf("%s %s %.20q: %d %q, want %d %q", c.method, c.path, c.body, status, detail, c.status, c.detail)
		}
	}
	h.quiet(t)
}

func testTwoPublishers(t *testing.T, program string) {
	h := start(t, program)
	first := h.publish(t)
	second, err := rtcclient.Publish(t.Context(), h.client("/whip/lobby"))
	if err == nil {
		second.Close(t.Context())
	}
	if refusal := (*rtcclient.ErrStatus)(nil); !errors.As(err, &refusal) || refusal.Code != 409 || refusal.RetryAfter == "" || !strings.Contains(refusal.Body, "has a publisher") {
		t.Errorf("second publisher: %v", err)
	}
	sent := first.Stats().Packets
	eventually(t, 5*time.Second, "the first publisher goes on", func() bool { return first.Stats().Packets > sent })
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	h.quiet(t)
}

// A client that stops in the middle costs its connection and nothing else.
func testHalfRequest(t *testing.T, program string) {
	h := start(t, program)
	var all sync.WaitGroup
	for half, want := range map[string]string{
		"": "",
		"POST /whip/lobby HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-":                                                         "",
		"POST /whip/lobby HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/sdp\r\nContent-Length: 1000\r\n\r\nv=0": "HTTP/1.1 408 ",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer conn.Close()
			io.WriteString(conn, half)
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), want) {
				t.Errorf("%q: answered %q, %v; want %q and the end", half, answer, err, want)
			}
		})
	}
	all.Wait()
	h.quiet(t)
}

// A client that offers, and vanishes before its connection is there.
func testClientGone(t *testing.T, program string, connectICE bool) {
	h := start(t, program)
	pc := offer(t, connectICE)
	status, answer := h.post(t, "/whip/lobby", pc.LocalDescription().SDP)
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	if connectICE {
		connected := make(chan struct{})
		pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
			if s == webrtc.ICEConnectionStateConnected {
				close(connected)
			}
		})
		if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-connected:
		case <-time.After(10 * time.Second):
			t.Fatal("no ICE within 10 s")
		}
	}
	pc.Close()
	eventually(t, 5*time.Second, "the room is shown", func() bool { return len(h.worker(t).Status.Rooms) == 1 })
	eventually(t, 25*time.Second, "the session is gone", func() bool { return len(h.worker(t).Status.Rooms) == 0 })
	if joins := h.worker(t).Status.Counters.Joins; joins["failed"] != 1 || joins["ok"] != 0 {
		t.Errorf("joins are %v, want one failed", joins)
	}
	h.quiet(t)
	h.publish(t) // the room is free again
}

func testStopWithSessions(t *testing.T, program string) {
	h := start(t, program, "--drain", "1s")
	h.publish(t)
	viewer, err := rtcclient.View(t.Context(), h.client("/whep/lobby"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { viewer.Close(context.Background()) }) // of an agent that is gone
	began := time.Now()
	h.stop(t)
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("took %v, want the drain's second and little more", took)
	}
	if conn, err := net.ListenPacket("udp", "127.0.0.1:"+h.udp); err != nil {
		t.Errorf("UDP port is not free: %v", err)
	} else {
		conn.Close()
	}
}

func testKilledWorker(t *testing.T, program string) {
	h := start(t, program)
	h.publish(t)
	before := h.worker(t)
	kill(t, before.PID, syscall.SIGKILL)
	after := h.replaced(t, before)
	if after.LastExit.Reason != agent.ReasonSignal || after.LastExit.Signal != "SIGKILL" || after.LastExit.Name != before.Name || after.LastExit.Text != "killed by SIGKILL" {
		t.Errorf("last exit %+v", after.LastExit)
	}
	h.quiet(t)
	h.publish(t)
}

func testHungWorker(t *testing.T, program string) {
	h := start(t, program)
	h.publish(t)
	before := h.worker(t)
	began := time.Now()
	kill(t, before.PID, syscall.SIGSTOP)
	after := h.replaced(t, before)
	if after.LastExit.Reason != agent.ReasonHang || after.LastExit.Name != before.Name {
		t.Errorf("last exit %+v", after.LastExit)
	}
	if found := after.LastExit.Time.Sub(began); found > 6*time.Second { // 5 s, and one for a busy machine
		t.Errorf("found after %v, want 5s", found)
	}
	h.quiet(t)
	h.publish(t)
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// running is an agent with one worker, as a plain process.
type running struct {
	url, state, udp string
	cmd             *exec.Cmd
	log             *syncBuffer
	http            *http.Client
	goroutines      int // of the agent at rest
	stopped         bool
}

var upAt = regexp.MustCompile(`msg="agent up" .*http=(http://\S+)`)

// start runs an agent until the test ends, and checks that nothing is left.
func start(t *testing.T, program string, args ...string) *running {
	t.Helper()
	return startBy(t, func(args ...string) *exec.Cmd { return exec.Command(program, args...) }, args...)
}

// startBy is start of a program that command runs.
func startBy(t *testing.T, command func(args ...string) *exec.Cmd, args ...string) *running {
	t.Helper()
	h := &running{state: filepath.Join(t.TempDir(), "state"), udp: strconv.Itoa(freeUDPPort(t)), log: &syncBuffer{},
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 15 * time.Second}}
	h.cmd = command(append([]string{"run", "--placer", "process", "--workers", "1", "--http", "127.0.0.1:0",
		"--udp-port", h.udp, "--state-dir", h.state, "--drain", "100ms"}, args...)...)
	h.cmd.Stderr = h.log
	h.cmd.WaitDelay = 15 * time.Second // a worker that stays would hold the pipe
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.stop(t)
		if t.Failed() {
			t.Logf("log:\n%s", h.log)
		}
	})
	eventually(t, 10*time.Second, "the agent is up", func() bool {
		if found := upAt.FindStringSubmatch(h.log.String()); found != nil {
			h.url = found[1]
		}
		return h.url != ""
	})
	eventually(t, 10*time.Second, "the agent is ready", func() bool { status, _ := h.ask(t, "GET", "/readyz", "", ""); return status == 200 })
	h.ask(t, "GET", "/whip/lobby/0-none", "", "") // the connection to the worker stays
	h.goroutines = h.metric(t, "go_goroutines")
	return h
}

// stop ends the agent, and wants nothing left.
func (h *running) stop(t *testing.T) {
	t.Helper()
	if h.stopped {
		return
	}
	h.stopped = true
	h.cmd.Process.Signal(syscall.SIGTERM)
	limit := time.AfterFunc(15*time.Second, func() { h.cmd.Process.Kill() })
	defer limit.Stop()
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("agent ended with %v", err)
	}
	leavesNothing(t, h.state)
}

// leavesNothing looks for what an agent that has ended had in its directory,
// and for workers that are named after it.
func leavesNothing(t *testing.T, state string) {
	t.Helper()
	left, err := os.ReadDir(state)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	left = slices.DeleteFunc(left, func(f os.DirEntry) bool { return f.Name() == "lock" })
	if len(left) > 0 {
		t.Errorf("left in the state directory: %v", left)
	}
	d, err := agent.OpenStateDir(state)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), "--name\x00"+d.Prefix()+"-") {
			t.Errorf("left: %s %q", path, line)
		}
	}
}

// quiet waits until no room is left, and the agent has no more goroutines than
// at rest.
func (h *running) quiet(t *testing.T) {
	t.Helper()
	eventually(t, 10*time.Second, "no room is left", func() bool { w := h.worker(t); return w.Status != nil && len(w.Status.Rooms) == 0 })
	last := 0
	defer func() {
		if t.Failed() {
			t.Logf("agent has %d goroutines, at rest %d", last, h.goroutines)
		}
	}()
	eventually(t, 10*time.Second, "goroutines are back at rest", func() bool {
		last = h.metric(t, "go_goroutines")
		return last <= h.goroutines
	})
}

func (h *running) metric(t *testing.T, name string) int {
	t.Helper()
	_, text := h.ask(t, "GET", "/metrics", "", "")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no metric %s in %s", name, text)
	return 0
}

func (h *running) worker(t *testing.T) agent.Worker {
	t.Helper()
	status, text := h.ask(t, "GET", "/api/v1/workers/0", "", "")
	var w agent.Worker
	if err := json.Unmarshal([]byte(text), &w); err != nil || status != 200 {
		t.Fatalf("%d %s: %v", status, text, err)
	}
	return w
}

// replaced waits for the worker that comes after one that was killed.
func (h *running) replaced(t *testing.T, before agent.Worker) (after agent.Worker) {
	t.Helper()
	eventually(t, 15*time.Second, "the worker is replaced", func() bool {
		after = h.worker(t)
		return after.State == agent.StateReady && after.Name != before.Name && after.Restarts == 1 && after.LastExit != nil
	})
	return after
}

func (h *running) client(path string) rtcclient.Config {
	return rtcclient.Config{URL: h.url + path, HTTP: h.http}
}

// publish to the lobby until the test ends.
func (h *running) publish(t *testing.T) *rtcclient.Publisher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	p, err := rtcclient.Publish(ctx, h.client("/whip/lobby"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(context.Background()) }) // its worker may be gone
	return p
}

func (h *running) post(t *testing.T, path, sdp string) (status int, answer string) {
	t.Helper()
	return h.ask(t, "POST", path, "application/sdp", sdp)
}

func (h *running) ask(t *testing.T, method, path, contentType, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequest(method, h.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := h.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" && path != "/readyz" {
		t.Errorf("%s %s: %d %s is no problem+json", method, path, resp.StatusCode, b)
	}
	return resp.StatusCode, string(b)
}

// offer makes a client that wants to publish. It comes as far as ICE, not to
// the end of DTLS.
func offer(t *testing.T, connectICE bool) *webrtc.PeerConnection {
	t.Helper()
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(connectICE)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetDTLSConnectContextMaker(func() (context.Context, func()) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx, cancel
	})
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "lobby")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
		t.Fatal(err)
	}
	o, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	<-gathered
	return pc
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// freeUDPPort is below those that the kernel gives to sockets without one, so
// that no client takes it before the worker.
func freeUDPPort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(12000)
		if conn, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			conn.Close()
			return port
		}
	}
	t.Fatal("no free UDP port")
	return 0
}

// syncBuffer is read while a process writes to it.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// testProgramOutOfReach: a clone in a directory that only its owner may enter,
// as /root is, is a place to run from.
func testProgramOutOfReach(t *testing.T, program string) {
	dir := t.TempDir()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	hidden := filepath.Join(dir, "sfu-agent")
	if err := errors.Join(os.WriteFile(hidden, text, 0o755), os.Chmod(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	h := start(t, hidden)
	h.worker(t)
	h.stop(t)
}
