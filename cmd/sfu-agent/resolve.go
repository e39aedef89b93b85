package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// newLogger writes text or JSON lines.
func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}

// defaultStateDir lives as long as the workers can: until the machine restarts.
func defaultStateDir() string {
	if os.Geteuid() == 0 {
		return "/run/sfu-agent"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "sfu-agent")
	}
	return filepath.Join(os.TempDir(), "sfu-agent-"+strconv.Itoa(os.Getuid()))
}

func parseAddrs(texts []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, text := range texts {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			return nil, fmt.Errorf("%q is no IP address that a client could send to", text)
		}
		addrs = append(addrs, addr.Unmap())
	}
	return addrs, nil
}

// loopback tells whether only this machine reaches the address.
func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 16 {
		return "", fmt.Errorf("--token-file %s: want a token of 16 characters or more (try: openssl rand -hex 32)", path)
	}
	return token, nil
}

// workerUser is whom workers run as. An agent that is not root cannot choose.
func workerUser(name string) (uid, gid uint32, err error) {
	if os.Geteuid() != 0 {
		if name != "" {
			return 0, 0, errors.New("--user: only root can run workers as another user")
		}
		return uint32(os.Getuid()), uint32(os.Getgid()), nil
	}
	candidates := []string{name}
	if name == "" {
		candidates = []string{"sfu-worker", "nobody"}
	}
	for _, candidate := range candidates {
		u, lookupErr := user.Lookup(candidate)
		if lookupErr != nil {
			err = lookupErr
			continue
		}
		id, _ := strconv.ParseUint(u.Uid, 10, 32)
		group, _ := strconv.ParseUint(u.Gid, 10, 32)
		if id == 0 {
			return 0, 0, fmt.Errorf("--user %s: workers do not run as root", candidate)
		}
		return uint32(id), uint32(group), nil
	}
	return 0, 0, fmt.Errorf("--user: %w", err)
}
