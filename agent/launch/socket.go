package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxSocketPath is what sockaddr_un holds beside its final zero (unix(7)).
const maxSocketPath = 107

// listen makes the listening unix socket at path, mode 0600, and returns it as
// a file. A socket there that nobody listens on any more is replaced.
func listen(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("make socket %q: path is not absolute", path)
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("make socket %s: path has %d bytes, the kernel takes %d", path, len(path), maxSocketPath)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	config := net.ListenConfig{Control: restrictMode}
	listener, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	unix := listener.(*net.UnixListener)
	unix.SetUnlinkOnClose(false)
	defer unix.Close()
	file, err := unix.File()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make socket %s: %w", path, err), os.Remove(path))
	}
	return file, nil
}

// restrictMode gives the socket its mode before bind(2) makes the file, which
// takes it over: no moment in which the file is open to others.
func restrictMode(_, _ string, conn syscall.RawConn) error {
	var chmodErr error
	err := conn.Control(func(fd uintptr) { chmodErr = syscall.Fchmod(int(fd), 0o600) })
	return errors.Join(err, chmodErr)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s: %w", path, syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
