package fanout

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// The parts of a run that are processes of their own.
const (
	publisherPart = "publisher"
	viewerPart    = "viewer"
	ceilingPart   = "ceiling"
)

// A part is a process that does what it is asked on its standard input, and
// answers on its standard output: one JSON line each. It ends with its input.
type part struct {
	role string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

type order struct {
	Do   string          `json:"do"`
	Args json.RawMessage `json:"args,omitempty"`
}

type reply struct {
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

func startPart(cmd *exec.Cmd, role string) (*part, error) {
	p := &part{role: role, cmd: cmd}
	cmd.Stderr = os.Stderr
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return p, nil
}

func (p *part) pid() int { return p.cmd.Process.Pid }

// call gives an order and waits for the answer. A part that has not answered
// when ctx ends is killed.
func (p *part) call(ctx context.Context, do string, args, result any) error {
	defer context.AfterFunc(ctx, func() { p.cmd.Process.Kill() })()
	if err := p.exchange(do, args, result); err != nil {
		return fmt.Errorf("%s, %s: %w", p.role, do, errors.Join(err, ctx.Err()))
	}
	return nil
}

func (p *part) exchange(do string, args, result any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(p.in).Encode(order{do, raw}); err != nil {
		return err
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return err
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(r.Result, result)
}

// close ends the part.
func (p *part) close(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { p.cmd.Process.Kill() })()
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", p.role, err)
	}
	return nil
}

// handlers are what a part can do.
type handlers map[string]func(ctx context.Context, args json.RawMessage) (any, error)

// handle is a handler for orders with arguments of type A.
func handle[A any](do func(context.Context, A) (any, error)) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, err
		}
		return do(ctx, args)
	}
}

// Part is the life of the process with that role, until in ends.
func Part(ctx context.Context, role string, in io.Reader, out io.Writer) (err error) {
	parts := map[string]func() (handlers, func(context.Context) error, error){
		publisherPart: newPublishers, viewerPart: newViewers, ceilingPart: newCeiling,
	}
	start := parts[role]
	if start == nil {
		return fmt.Errorf("no part %q", role)
	}
	does, stop, err := start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(ctx)) }()
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		if err := answers.Encode(does.do(ctx, o)); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func (h handlers) do(ctx context.Context, o order) reply {
	f := h[o.Do]
	if f == nil {
		return reply{Error: "unknown order"}
	}
	result, err := f(ctx, o.Args)
	if err != nil {
		return reply{Error: err.Error()}
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return reply{Error: err.Error()}
	}
	return reply{Result: raw}
}
