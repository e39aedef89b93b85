package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	callLimit   = 2 * time.Second // of one call, when its context has no nearer deadline
	answerLimit = 4 << 20         // bytes of one answer
	connLimit   = 8               // connections of one client
)

// ErrClosed is returned by the calls of a closed Client.
var ErrClosed = errors.New("client is closed")

// Client asks one worker over its unix socket. It trusts nothing it is told:
// every call ends within 2 s and no answer is read beyond 4 MiB.
type Client struct {
	transport *http.Transport
	life      context.Context // ends with Close
	end       context.CancelFunc
	mu        sync.Mutex // guards closed, and calls against Add after Wait
	closed    bool
	calls     sync.WaitGroup
}

// NewClient returns a Client of the worker that serves on socketPath. It
// connects with the first call.
func NewClient(socketPath string) *Client {
	t := Transport(socketPath)
	t.MaxConnsPerHost = connLimit
	t.MaxIdleConnsPerHost = 1
	life, end := context.WithCancel(context.Background())
	return &Client{transport: t, life: life, end: end}
}

// Transport reaches the HTTP server on socketPath, whatever host the request's
// URL names. The caller bounds the requests, and closes the idle connections
// when it has no more of them.
func Transport(socketPath string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketPath)
		},
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        30 * time.Second,
	}
}

// Status asks the worker for its account of itself.
func (c *Client) Status(ctx context.Context) (Status, error) {
	body, err := c.call(ctx, http.MethodGet, "/status", http.StatusOK)
	if err != nil {
		return Status{}, err
	}
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return Status{}, fmt.Errorf("GET /status: decode answer: %w", err)
	}
	return s, nil
}

// Drain tells the worker to take no new rooms. Draining a draining worker is
// no error.
func (c *Client) Drain(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, "/drain", http.StatusNoContent)
	return err
}

// Undrain tells the worker to take new rooms again.
func (c *Client) Undrain(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodDelete, "/drain", http.StatusNoContent)
	return err
}

// Close ends the calls in flight with ErrClosed, waits for them and closes the
// connections.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.calls.Wait()
	c.transport.CloseIdleConnections()
	return nil
}

// call does one exchange and returns the body of an answer with status want.
func (c *Client) call(ctx context.Context, method, path string, want int) ([]byte, error) {
	if !c.enter() {
		return nil, fmt.Errorf("%s %s: %w", method, path, ErrClosed)
	}
	defer c.calls.Done()
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()

	body, status, err := c.exchange(ctx, method, path)
	switch {
	case err != nil && c.life.Err() != nil:
		return nil, fmt.Errorf("%s %s: %w", method, path, ErrClosed)
	case err != nil:
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	case status != want:
		return nil, fmt.Errorf("%s %s: worker answered %d %s: %.200q", method, path, status, http.StatusText(status), bytes.TrimSpace(body))
	}
	return body, nil
}

func (c *Client) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.calls.Add(1)
	return true
}

func (c *Client) exchange(ctx context.Context, method, path string) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://worker"+path, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK && !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return nil, 0, fmt.Errorf("answer is %q, not JSON", resp.Header.Get("Content-Type"))
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > answerLimit {
		return nil, 0, fmt.Errorf("answer is longer than %d bytes", answerLimit)
	}
	return body, resp.StatusCode, nil
}
