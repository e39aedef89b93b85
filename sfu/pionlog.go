package sfu

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// pionLog gives pion's packages the Server's log, at level debug: what pion
// calls an error is mostly a client that went away.
type pionLog struct{ log *slog.Logger }

// NewLogger implements logging.LoggerFactory.
func (p pionLog) NewLogger(scope string) logging.LeveledLogger {
	return pionScope{log: p.log, scope: scope}
}

type pionScope struct {
	log   *slog.Logger
	scope string
}

func (p pionScope) write(level, msg string) {
	p.log.Debug(msg, "pion", p.scope, "pion_level", level)
}

func (p pionScope) writef(level, format string, args []any) {
	if p.log.Enabled(context.Background(), slog.LevelDebug) {
		p.write(level, fmt.Sprintf(format, args...))
	}
}

func (p pionScope) Trace(string)                      {}
func (p pionScope) Tracef(string, ...any)             {}
func (p pionScope) Debug(string)                      {}
func (p pionScope) Debugf(string, ...any)             {}
func (p pionScope) Info(msg string)                   { p.write("info", msg) }
func (p pionScope) Infof(format string, args ...any)  { p.writef("info", format, args) }
func (p pionScope) Warn(msg string)                   { p.write("warn", msg) }
func (p pionScope) Warnf(format string, args ...any)  { p.writef("warn", format, args) }
func (p pionScope) Error(msg string)                  { p.write("error", msg) }
func (p pionScope) Errorf(format string, args ...any) { p.writef("error", format, args) }
