package front

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
)

// answerLimit is how many bytes a worker may answer with.
const answerLimit = 256 << 10

// What passes in either direction. The token stays here, and a worker that was
// taken over sets no cookie and serves no page under our name.
var (
	toWorker   = []string{"Content-Type", "Accept", "If-Match", "User-Agent"}
	fromWorker = []string{"Content-Type", "Location", "ETag", "Link", "Accept-Patch", "Accept-Post", "Allow", "Retry-After"}
)

// errAnswer is in the error of an answer that is not passed on.
var errAnswer = errors.New("answer refused")

// workerClients has a client for the present incarnation of every worker.
type workerClients struct {
	mu   sync.Mutex
	byID map[string]*workerClient
}

func newWorkerClients() *workerClients {
	return &workerClients{byID: make(map[string]*workerClient)}
}

// of returns the worker's client, and closes that of its predecessor.
func (c *workerClients) of(w agent.Worker) *workerClient {
	c.mu.Lock()
	old := c.byID[w.ID]
	if old != nil && old.name == w.Name && old.socket == w.Socket {
		c.mu.Unlock()
		return old
	}
	fresh := newWorkerClient(w)
	c.byID[w.ID] = fresh
	c.mu.Unlock()
	if old != nil {
		old.transport.CloseIdleConnections()
	}
	return fresh
}

func (c *workerClients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.byID {
		w.transport.CloseIdleConnections()
	}
}

// workerClient speaks to one incarnation of a worker.
type workerClient struct {
	id, name, socket string
	transport        *http.Transport
	limit            limiter
}

func newWorkerClient(w agent.Worker) *workerClient {
	t := control.Transport(w.Socket)
	t.MaxIdleConnsPerHost = 8
	return &workerClient{id: w.ID, name: w.Name, socket: w.Socket, transport: t, limit: newLimiter(workerLimit)}
}

// answer is all that a worker said to one request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends the client's request r with its body to the worker.
func (c *workerClient) ask(ctx context.Context, r *http.Request, body []byte) (answer, error) {
	u := url.URL{Scheme: "http", Host: "worker", Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	copyHeader(req.Header, r.Header, toWorker)
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		req.Header.Set("X-Forwarded-For", host)
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	return c.read(resp, r.Method)
}

func (c *workerClient) read(resp *http.Response, method string) (answer, error) {
	if resp.StatusCode < http.StatusOK {
		return answer{}, fmt.Errorf("%w: status %d", errAnswer, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > answerLimit {
		return answer{}, fmt.Errorf("%w: longer than %d bytes", errAnswer, answerLimit)
	}
	a := answer{status: resp.StatusCode, header: make(http.Header), body: body}
	copyHeader(a.header, resp.Header, fromWorker)
	return a, a.settleLocation(resp.Request.URL, c.id, method)
}

// settleLocation makes Location a path of ours, and makes sure that requests to
// it will be routed back to this worker.
func (a answer) settleLocation(asked *url.URL, workerID, method string) error {
	loc := a.header.Get("Location")
	if loc == "" && (a.status != http.StatusCreated || method != http.MethodPost) {
		return nil
	}
	u, err := asked.Parse(loc)
	if err != nil {
		return fmt.Errorf("%w: Location: %w", errAnswer, err)
	}
	session, ok := strings.CutPrefix(u.Path, asked.Path+"/")
	if !ok || u.Host != asked.Host || !strings.HasPrefix(session, workerID+"-") || !sessionName.MatchString(session) {
		return fmt.Errorf("%w: Location %q is no session of worker %s", errAnswer, loc, workerID)
	}
	a.header.Set("Location", u.Path)
	return nil
}

func (a answer) writeTo(w http.ResponseWriter) {
	h := w.Header()
	copyHeader(h, a.header, fromWorker)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(a.status)
	w.Write(a.body) // an error means the client is gone
}

func copyHeader(dst, src http.Header, names []string) {
	for _, name := range names {
		if v := src.Values(name); len(v) > 0 {
			dst[http.CanonicalHeaderKey(name)] = v
		}
	}
}
