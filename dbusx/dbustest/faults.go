package dbustest

import (
	"io"
	"sync"

	"github.com/godbus/dbus/v5"
)

// Fragments returns a Bus.Write that writes at most n bytes at a time.
func Fragments(n int) func(io.Writer, []byte) error {
	return func(w io.Writer, data []byte) error {
		for len(data) > 0 {
			k := min(n, len(data))
			if _, err := w.Write(data[:k]); err != nil {
				return err
			}
			data = data[k:]
		}
		return nil
	}
}

// Noise returns a Bus.Write that puts foreign signals and a reply nobody asked
// for before each message.
func Noise(signals int) func(io.Writer, []byte) error {
	const foreign = 0x7ffffff0
	return func(w io.Writer, data []byte) error {
		var noise []*dbus.Message
		for range signals {
			noise = append(noise, Signal(":1.99", "/foreign", "com.example.Foreign.Noise", "noise"))
		}
		noise = append(noise, Reply(foreign, "foreign"))
		for _, m := range noise {
			b, err := Encode(m, foreign)
			if err != nil {
				return err
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		_, err := w.Write(data)
		return err
	}
}

// Together returns a Bus.Write that holds every message back until the next
// one and writes the two at once, n times; after that it writes at once.
func Together(n int) func(io.Writer, []byte) error {
	var mu sync.Mutex
	var held []byte
	return func(w io.Writer, data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if n > 0 && held == nil {
			held = data
			return nil
		}
		_, err := w.Write(append(held, data...))
		held = nil
		n--
		return err
	}
}
