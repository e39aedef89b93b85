package systemd1

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
)

func TestCPUMask(t *testing.T) {
	for list, want := range map[string][]byte{
		"":            {},
		"0":           {1},
		"0-1,3":       {0b1011},
		"8":           {0, 1},
		"7-8,15":      {0x80, 0x81},
		"8191":        append(make([]byte, 1023), 0x80),
		"3-1":         nil,
		"8192":        nil,
		"0-70000":     nil,
		"1,":          nil,
		"a":           nil,
		"-1":          nil,
		"0 - 1":       nil,
		"0-1-2":       nil,
		"99999999999": nil,
	} {
		got, err := cpuMask(list)
		if (err == nil) != (want != nil) || !bytes.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", list, got, err, want)
		}
	}
}

func FuzzCPUMask(f *testing.F) {
	for _, list := range []string{"", "0", "0-1,3", "8191", "3-1", ",", "-"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if mask, err := cpuMask(list); err == nil && len(mask) > (maxCPU+8)/8 {
			t.Errorf("%d bytes", len(mask))
		}
	})
}

func TestUnifiedPath(t *testing.T) {
	for data, want := range map[string]string{
		"0::/a.slice/b.scope\n": "/a.slice/b.scope",
		"0::/a.slice/b.scope":   "/a.slice/b.scope",
		"12:pids:/x\n1:name=systemd:/y.scope\n0::/sfu.slice/z.scope\n": "/sfu.slice/z.scope",
		"0::/a.slice/b.scope (deleted)\n":                              "",
		"12:pids:/x\n":                                                 "",
		"0::/\n":                                                       "/",
		"":                                                             "",
	} {
		if got := unifiedPath([]byte(data)); got != want {
			t.Errorf("%q: got %q, want %q", data, got, want)
		}
	}
}

func FuzzUnifiedPath(f *testing.F) {
	f.Add([]byte("12:pids:/x\n0::/sfu.slice/z.scope\n"))
	f.Add([]byte("0::/a (deleted)\n"))
	f.Add([]byte("0::"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if path := unifiedPath(data); strings.Contains(path, "\n") {
			t.Errorf("path %q", path)
		}
	})
}

func TestS19_UnitNames(t *testing.T) {
	for name, want := range map[string]bool{
		"sfu-a-0-1b2c3d4e.scope": true,
		`a\x2db.scope`:           true,
		"a_b:c.d.scope":          true,
		strings.Repeat("a", 255-len(".scope")) + ".scope": true,
		strings.Repeat("a", 256-len(".scope")) + ".scope": false,
		".scope":       false,
		"a.service":    false,
		"a":            false,
		"":             false,
		"a/b.scope":    false,
		"a b.scope":    false,
		"a*.scope":     false,
		"ä.scope":      false,
		"a\x00.scope":  false,
		"a@b.scope":    false, // scopes have no instances
		"a.scope\n":    false,
		"..scope":      true,
		"a.scope/x":    false,
		"a.scope.slic": false,
	} {
		if got := validScope(name); got != want {
			t.Errorf("%q: got %t", name, got)
		}
	}
}

// Every property goes out in the type that systemd has for it.
func TestPropertyTypes(t *testing.T) {
	var p Properties
	p.Slice("a.slice")
	p.Description("text")
	p.PIDs(2, 3)
	p.Delegate(true)
	p.DefaultDependencies(false)
	p.CollectMode("inactive-or-failed")
	p.TimeoutStop(5 * time.Second)
	p.KillMode("mixed")
	p.SendSIGKILL(true)
	p.OOMPolicy("continue")
	p.CPUWeight(100)
	p.CPUQuota(150)
	p.AllowedCPUs("0-1")
	p.MemoryHigh(1)
	p.MemoryMax(2)
	p.MemorySwapMax(3)
	p.MemoryZSwapMax(7)
	p.TasksMax(4)
	p.IOWeight(100)
	p.Accounting(true)
	want := map[string]string{
		"Slice": `s "a.slice"`, "Description": `s "text"`, "PIDs": "au [2 3]",
		"Delegate": "b true", "DefaultDependencies": "b false",
		"CollectMode": `s "inactive-or-failed"`, "TimeoutStopUSec": "t 5000000",
		"KillMode": `s "mixed"`, "SendSIGKILL": "b true", "OOMPolicy": `s "continue"`,
		"CPUWeight": "t 100", "CPUQuotaPerSecUSec": "t 1500000", "AllowedCPUs": "ay [3]",
		"MemoryHigh": "t 1", "MemoryMax": "t 2", "MemorySwapMax": "t 3", "MemoryZSwapMax": "t 7", "TasksMax": "t 4",
		"IOWeight":      "t 100",
		"CPUAccounting": "b true", "MemoryAccounting": "b true", "TasksAccounting": "b true", "IOAccounting": "b true",
	}
	for _, v := range p.list {
		got := fmt.Sprintf("%s %v", v.Value.Signature(), v.Value.Value())
		if v.Value.Signature().String() == "s" {
			got = fmt.Sprintf("s %q", v.Value.Value())
		}
		if got != want[v.Name] {
			t.Errorf("%s: got %s, want %s", v.Name, got, want[v.Name])
		}
		delete(want, v.Name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestIOMax(t *testing.T) {
	var p Properties
	p.IOMax(IOLimits{Path: "/dev/none"})
	p.IOMax(IOLimits{"/dev/vda", 5, 6, 7, 8}, IOLimits{"/dev/vdb", 9, 10, 11, 12})
	var got []string
	for _, v := range p.list {
		got = append(got, fmt.Sprintf("%s %s %v", v.Name, v.Value.Signature(), v.Value.Value()))
	}
	want := []string{
		"IOReadBandwidthMax a(st) []", "IOReadBandwidthMax a(st) [{/dev/vda 5} {/dev/vdb 9}]",
		"IOWriteBandwidthMax a(st) []", "IOWriteBandwidthMax a(st) [{/dev/vda 6} {/dev/vdb 10}]",
		"IOReadIOPSMax a(st) []", "IOReadIOPSMax a(st) [{/dev/vda 7} {/dev/vdb 11}]",
		"IOWriteIOPSMax a(st) []", "IOWriteIOPSMax a(st) [{/dev/vda 8} {/dev/vdb 12}]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	p.IOMax()
	if len(p.list) != 4 {
		t.Errorf("left: %v", p.list)
	}
}

func TestPropertiesCopy(t *testing.T) {
	var p Properties
	p.Slice("a.slice")
	p.TasksMax(1)
	q, r := p, p
	q.Slice("b.slice")
	q.TasksMax(2)
	r.TasksMax(3)
	if got := fmt.Sprint(p.list, q.list, r.list); got != `[{Slice "a.slice"} {TasksMax @t 1}] [{Slice "b.slice"} {TasksMax @t 2}] [{Slice "a.slice"} {TasksMax @t 3}]` {
		t.Errorf("got %s", got)
	}
}

func TestPropertiesKeepTheLastValue(t *testing.T) {
	var p Properties
	p.CPUQuota(10)
	p.CPUQuota(math.MaxUint64)
	if len(p.list) != 1 || p.list[0].Value.Value() != uint64(math.MaxUint64) {
		t.Errorf("got %v", p.list)
	}
}

func TestNamedProperty(t *testing.T) {
	for text, want := range map[string]string{
		"Cannot set property OOMPolicy, or unknown property.": "OOMPolicy",
		"Cannot set property AllowedCPUs":                     "AllowedCPUs",
		"Invalid CPU weight":                                  "",
		"property ":                                           "",
		"property a b, c":                                     "",
	} {
		if got := namedProperty(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// FuzzReplies decodes the bodies of messages as replies and signals of systemd.
func FuzzReplies(f *testing.F) {
	for _, values := range [][]any{
		{uint32(7), dbus.ObjectPath("/org/freedesktop/systemd1/job/7"), "a.scope", "done"},
		{map[string]dbus.Variant{"Id": dbus.MakeVariant("a.scope"), "Job": dbus.MakeVariant([]any{})}},
		{map[string]dbus.Variant{"InvocationID": dbus.MakeVariant([]byte{1}), "TimeoutStopUSec": dbus.MakeVariant(uint64(math.MaxUint64))}},
		{[]listed{{Name: "a.scope", Path: "/", JobPath: "/"}}},
	} {
		data, err := dbustest.Encode(dbustest.Reply(1, values...), 1)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dbus.DecodeMessage(bytes.NewReader(data))
		if err != nil {
			return
		}
		s := &Systemd{changed: make(chan struct{}), jobs: make(map[string][]*jobWatch)}
		w := s.watchJobs("a.scope")
		for range cap(w.removed) + 1 {
			s.jobRemoved(&dbus.Signal{Body: m.Body})
		}
		var props map[string]dbus.Variant
		if dbus.Store(m.Body, &props) == nil {
			if u := unitOf(props); u.TimeoutStop < 0 {
				t.Errorf("TimeoutStop %v", u.TimeoutStop)
			}
		}
		var all []listed
		_ = dbus.Store(m.Body, &all)
	})
}
