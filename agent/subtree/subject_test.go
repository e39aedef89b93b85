//go:build native || vm

package subtree_test

import (
	"context"
	"path"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent/agenttest"
	"github.com/sfu-agent/sfu-agent/agent/subtree"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

var subject = agenttest.Subject{
	Name: subtree.Name,
	Open: func(ctx context.Context, prefix string) (agenttest.ClosePlacer, error) {
		return subtree.New(ctx, subtree.Config{Prefix: prefix})
	},
	Left: func(_ context.Context, prefix string) (left []string, err error) {
		host, err := cgroups.Detect()
		if err != nil {
			return nil, err
		}
		children, err := host.Own.Parent().Children() // we are in "agent"
		for _, child := range children {
			if strings.Contains(path.Base(child.Path()), prefix) {
				left = append(left, child.Path())
			}
		}
		return left, err
	},
	Contains: true,
}

func TestMain(m *testing.M) { agenttest.Main(m, subject) }
