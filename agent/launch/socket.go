package launch

import (
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

// backlog is as much as the kernel's own limit, net.core.somaxconn, has been
// since Linux 5.4.
const backlog = 4096

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
	file, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	return file, nil
}

// bind makes the file of a socket with the mode that the socket has: no moment
// in which it is open to others.
func bind(path string) (*os.File, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), path)
	if err := syscall.Fchmod(fd, 0o600); err != nil {
		return nil, errors.Join(os.NewSyscallError("fchmod", err), file.Close())
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), file.Close())
	}
	if err := syscall.Listen(fd, backlog); err != nil {
		return nil, errors.Join(os.NewSyscallError("listen", err), file.Close(), os.Remove(path))
	}
	return file, nil
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
