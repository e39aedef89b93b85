package process_test

import (
	"context"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent/agenttest"
	"github.com/sfu-agent/sfu-agent/agent/process"
)

var subject = agenttest.Subject{
	Name: process.Name,
	Open: func(_ context.Context, prefix string) (agenttest.ClosePlacer, error) {
		return process.New(process.Config{Prefix: prefix}), nil
	},
}

func TestMain(m *testing.M) { agenttest.Main(m, subject) }

func TestConformance(t *testing.T) { agenttest.Conformance(t, subject) }
