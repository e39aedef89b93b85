//go:build vm

package scope_test

import (
	"testing"

	"github.com/sfu-agent/sfu-agent/agent/agenttest"
)

func TestLimits(t *testing.T) { agenttest.Limits(t, subject) }
