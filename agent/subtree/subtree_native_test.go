//go:build native

package subtree_test

import (
	"testing"

	"github.com/sfu-agent/sfu-agent/agent/agenttest"
)

func TestConformance(t *testing.T) { agenttest.Conformance(t, subject) }

// Workers are part of the agent's unit and end with it.
func TestS21AgentUnitStopped(t *testing.T) { agenttest.AgentUnit(t, subject, false) }

func TestC02NotDelegated(t *testing.T) { agenttest.AgentUnitFails(t, subject, "Delegate=yes") }
