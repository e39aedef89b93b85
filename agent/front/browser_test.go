//go:build browser

package front_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/agent/front"
)

// chromium starts a browser without a page. Exceptions of pages fail the test.
func chromium(t *testing.T) context.Context {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.NoSandbox, chromedp.WindowSize(1280, 1000))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	// It speaks of events newer than it knows; errors that matter it returns.
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(func() { chromedp.Cancel(ctx); cancel() })
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// tab is one page of a site.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func (s *site) tab(browser context.Context, path string) tab {
	s.t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	s.t.Cleanup(cancel)
	chromedp.ListenTarget(ctx, func(event any) {
		if e, ok := event.(*runtime.EventExceptionThrown); ok {
			s.t.Errorf("%s: %v", path, e.ExceptionDetails)
		}
	})
	b := tab{s.t, ctx}
	b.do(chromedp.Navigate(s.url + path))
	return b
}

func (b tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// becomes waits until the expression's value is want.
func (b tab) becomes(expression, want string) {
	b.t.Helper()
	var got string
	until(b.t, func() bool {
		b.do(chromedp.Evaluate("(() => { try { return String("+expression+") } catch (e) { return e.message } })()", &got))
		return got == want
	}, func() string { return fmt.Sprintf("%s is %q, want %q", expression, got, want) })
}

func until(t *testing.T, done func() bool, report func() string) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatal(report())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestBrowserShowsWorkersAndRooms(t *testing.T) {
	workers := twoWorkers()
	hostile := `<img src=x onerror="document.title='taken'">`
	workers[1].Status.Rooms = append(workers[1].Status.Rooms, control.Room{Name: hostile})
	p := open(t, front.Config{Host: &host{workers: workers}}).tab(chromium(t), "/")
	p.becomes(`document.querySelectorAll("#workers tbody tr").length`, "3")
	p.becomes(`document.querySelectorAll("#rooms tbody tr").length`, "4")
	p.becomes(`[...document.querySelectorAll("#workers .pill")].map((e) => e.textContent)`, "draining,ready,starting")
	p.becomes(`document.getElementById("health").textContent`, "2 of 3 up")
	p.becomes(`document.querySelector("#workers tr:nth-child(1) td[data-label=Restarts]").textContent.slice(0, 36)`, "2killed by the kernel: out of memory,"[:36])
	p.becomes(`document.querySelector("#rooms tbody th").textContent`, hostile)
	p.becomes(`document.title`, "sfu-agent")

	t.Run("and fits a phone", func(t *testing.T) {
		p.do(emulation.SetDeviceMetricsOverride(360, 740, 2, true))
		p.becomes(`document.documentElement.scrollWidth`, "360")
	})
}

func TestBrowserDrainsByKeyboard(t *testing.T) {
	h := &host{workers: twoWorkers()}
	p := open(t, front.Config{Host: h}).tab(chromium(t), "/")
	const button = `#workers button[aria-label="Drain worker 1"]`
	p.do(chromedp.WaitEnabled(button), chromedp.Focus(button), chromedp.KeyEvent(kb.Enter))
	p.becomes(`document.getElementById("drain").open`, "true")
	p.becomes(`document.activeElement.value`, "cancel")
	p.do(chromedp.KeyEvent(kb.Escape))
	p.becomes(`document.getElementById("drain").open`, "false")
	if _, asked := h.drainOf("1"); asked {
		t.Fatal("drained though it was not confirmed")
	}

	p.do(chromedp.Focus(button), chromedp.KeyEvent(kb.Enter), chromedp.SetValue("#drain-deadline", "10m"),
		chromedp.Focus(`#drain button[value="drain"]`), chromedp.KeyEvent(kb.Enter))
	p.becomes(`document.querySelector("#workers tr:nth-child(2) .pill").textContent`, "draining")
	if d, asked := h.drainOf("1"); !asked || d != 10*time.Minute {
		t.Errorf("drained %v with deadline %v, want 10 m", asked, d)
	}

	p.do(chromedp.Click(`#workers button[aria-label="Cancel the drain of worker 1"]`))
	p.becomes(`document.querySelector("#workers tr:nth-child(2) .pill").textContent`, "ready")
}

func (h *host) drainOf(id string) (deadline time.Duration, asked bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	deadline, asked = h.drained[id]
	return deadline, asked
}

func TestBrowserAsksForTheToken(t *testing.T) {
	refused := &scriptedWHEP{answers: []http.HandlerFunc{status(http.StatusConflict, "")}}
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", refused)}}, Token: "s3cret"})
	browser := chromium(t)
	p := s.tab(browser, "/?room=lobby&watch=1")
	give := func(token string) {
		p.do(chromedp.WaitVisible("#token-field"), chromedp.SendKeys("#token-field", token+kb.Enter))
	}
	give("wrong")
	p.becomes(`document.getElementById("token-error").textContent`, "The token is not this agent's.")
	give("s3cret")
	p.becomes(`document.getElementById("token").hidden`, "true")
	p.becomes(`sfu.sessions[0].state`, "waiting") // the link's wish was kept

	behind := s.tab(browser, "/#token=s3cret")
	behind.becomes(`document.getElementById("health").textContent`, "ready")
	behind.becomes(`location.hash`, "")
}

// scriptedWHEP gives its answers in turn, the last one for ever, and counts.
type scriptedWHEP struct {
	mu      sync.Mutex
	answers []http.HandlerFunc
	posts   []time.Time
	deletes int
}

func (s *scriptedWHEP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodDelete {
		s.deletes++
		return
	}
	s.posts = append(s.posts, time.Now())
	s.answers[min(len(s.posts), len(s.answers))-1](w, r)
}

func (s *scriptedWHEP) count() (posts, deletes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.posts), s.deletes
}

func status(code int, retry string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retry != "" {
			w.Header().Set("Retry-After", retry)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"detail":"status %d it is"}`, code)
	}
}

func nonsense(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/sdp")
	w.Header().Set("Location", r.URL.Path+"/0-a")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, "v=nonsense")
}

func TestBrowserTriesAgainAndCleansUp(t *testing.T) {
	w := &scriptedWHEP{answers: []http.HandlerFunc{status(409, ""), status(404, ""), status(503, "2"), nonsense, nonsense, status(400, "")}}
	p := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", w)}}}).tab(chromium(t), "/?room=lobby&watch=1")
	p.becomes(`sfu.sessions[0].state`, "failed")
	p.becomes(`sfu.sessions[0].detail`, "status 400 it is")
	p.becomes(`document.querySelector(".tile .status").textContent`, "Status 400 it is.")
	if posts, deletes := w.count(); posts != 6 || deletes != 2 {
		t.Errorf("%d requests and %d deletions, want 6, and the 2 that were created deleted", posts, deletes)
	}
	if pause := w.posts[3].Sub(w.posts[2]); pause < 2*time.Second {
		t.Errorf("tried again after %v, though Retry-After said 2 s", pause)
	}
	for i, least := range []time.Duration{250, 500} {
		if pause := w.posts[i+1].Sub(w.posts[i]); pause < least*time.Millisecond {
			t.Errorf("try %d came after %v, want at least %d ms", i+2, pause, least)
		}
	}
	p.do(chromedp.Click(".tile header button:last-child"))
	p.becomes(`sfu.sessions.length`, "0")
}

// unreachable answers the page's offer with an address where nobody is.
const unreachable = `v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=ice-lite
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:0
a=sendonly
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=ice-ufrag:abcdefgh
a=ice-pwd:abcdefghijklmnopqrstuvwxyz
a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F
a=setup:passive
a=candidate:1 1 UDP 2130706431 127.0.0.1 9 typ host
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:1
a=sendonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=ice-ufrag:abcdefgh
a=ice-pwd:abcdefghijklmnopqrstuvwxyz
a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F
a=setup:passive
`

// A session that is connecting when its page goes is ended on the server.
func TestBrowserLeavesWithThePage(t *testing.T) {
	w := &scriptedWHEP{answers: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/sdp")
		w.Header().Set("Location", r.URL.Path+"/0-a")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, strings.ReplaceAll(unreachable, "\n", "\r\n"))
	}}}
	p := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", w)}}}).tab(chromium(t), "/?room=lobby&watch=1")
	until(t, func() bool { posts, _ := w.count(); return posts == 1 }, func() string { return "nobody joined" })
	p.becomes(`sfu.sessions[0].state`, "connecting")
	p.do(chromedp.Navigate("about:blank"))
	until(t, func() bool { _, deletes := w.count(); return deletes == 1 }, func() string { return "the session was not deleted" })
}

func TestBrowserPollsOnlyWhatIsSeen(t *testing.T) {
	hidden, seen := &host{workers: twoWorkers()}, &host{workers: twoWorkers()}
	browser := chromium(t)
	p := open(t, front.Config{Host: hidden}).tab(browser, "/")
	p.becomes(`document.getElementById("health").textContent`, "2 of 3 up")
	open(t, front.Config{Host: seen}).tab(browser, "/")
	p.becomes(`document.hidden`, "true")
	before, clock := hidden.snapshots(), seen.snapshots()
	until(t, func() bool { return seen.snapshots() >= clock+6 }, func() string { return "the page that is seen does not poll" })
	if n := hidden.snapshots() - before; n > 2 {
		t.Errorf("the hidden page polled %d times while the other one did 6 times", n)
	}
}

// snapshots is how often Workers was called; one poll of the page does it twice.
func (h *host) snapshots() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}
