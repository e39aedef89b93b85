//go:build native

package systemd1_test

import (
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
)

// The D faults once more, between a client and the real bus.
func TestThroughProxy(t *testing.T) {
	jobs := func(v dbustest.Verdict) func(int, *dbus.Message) dbustest.Verdict {
		return func(_ int, m *dbus.Message) dbustest.Verdict {
			if dbustest.Member(m) == "JobRemoved" {
				return v
			}
			return dbustest.Pass
		}
	}
	each := func(every int, v dbustest.Verdict) func(int, *dbus.Message) dbustest.Verdict {
		return func(n int, _ *dbus.Message) dbustest.Verdict {
			if n%every == 0 {
				return v
			}
			return dbustest.Pass
		}
	}
	for name, tt := range map[string]struct {
		proxy *dbustest.Proxy
		n     int
	}{
		"plain":                      {&dbustest.Proxy{}, 60},
		"1-byte fragments":           {&dbustest.Proxy{Write: dbustest.Fragments(1)}, 60},
		"foreign messages":           {&dbustest.Proxy{Write: dbustest.Noise(3)}, 60},
		"JobRemoved dropped":         {&dbustest.Proxy{Spoil: jobs(dbustest.Drop)}, 40},
		"JobRemoved twice":           {&dbustest.Proxy{Spoil: jobs(dbustest.Repeat)}, 60},
		"JobRemoved late":            {&dbustest.Proxy{Spoil: jobs(dbustest.Late)}, 40},
		"every message twice":        {&dbustest.Proxy{Spoil: each(1, dbustest.Repeat)}, 60},
		"cut every 22 messages":      {&dbustest.Proxy{Spoil: each(22, dbustest.Cut)}, 60},
		"one in 20 messages dropped": {&dbustest.Proxy{Spoil: each(20, dbustest.Drop)}, 20},
		"stall every 60 messages":    {&dbustest.Proxy{Spoil: each(60, dbustest.Stall)}, 40},
	} {
		t.Run(name, func(t *testing.T) {
			tt.proxy.Target = systemSocket
			t.Cleanup(tt.proxy.Close)
			c := &churn{s: connect(t, dbusx.Options{Dial: tt.proxy.Dial}), limit: 20 * time.Second}
			c.run(t, 8, c.times(tt.n))
			c.verdict(t)
		})
	}
}
