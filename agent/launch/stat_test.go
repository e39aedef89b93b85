package launch

import (
	"os"
	"strings"
	"testing"
)

// rest is fields 5 to 24 of a process in group 712 that started at 4711.
const rest = " 712 712 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 9 0 4711 1 2"

func TestParseStat(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want stat
		bad  bool
	}{
		"running":         {text: "712 (sfu-agent) S 1" + rest, want: stat{'S', 1, 712, 4711}},
		"zombie":          {text: "712 (x) Z 1" + rest + "\n", want: stat{'Z', 1, 712, 4711}},
		"spaces in name":  {text: "712 (a b) R) R 1" + rest, want: stat{'R', 1, 712, 4711}},
		"newline in name": {text: "712 (a\n) D 1" + rest, want: stat{'D', 1, 712, 4711}},
		"empty name":      {text: "712 () S 1" + rest, want: stat{'S', 1, 712, 4711}},
		"empty":           {text: "", bad: true},
		"no name":         {text: "712 S 1" + rest, bad: true},
		"short":           {text: "712 (x) S 1 712", bad: true},
		"long state":      {text: "712 (x) SS 1" + rest, bad: true},
		"bad group":       {text: "712 (x) S 1 G" + rest, bad: true},
		"bad start":       {text: "712 (x) S 1" + strings.Replace(rest, "4711", "-1", 1), bad: true},
	} {
		got, err := parseStat([]byte(test.text))
		if test.bad != (err != nil) || got != test.want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestReadStatOfSelf(t *testing.T) {
	got, err := readStat(os.Getpid())
	if err != nil || got.ended() || got.start == 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := readStat(1 << 30); err != os.ErrProcessDone {
		t.Errorf("no such process: %v", err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("712 (sfu-agent) S 1" + rest))
	f.Add([]byte("1 (a) b) Z 1 1 ("))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := parseStat(data); err != nil && got != (stat{}) {
			t.Errorf("got %+v with error %v", got, err)
		}
	})
}

func TestWorkerName(t *testing.T) {
	for cmdline, want := range map[string]string{
		"sfu-worker-3f2a-0-1b2c3d4e\x00--gate-fd\x003\x00": "3f2a-0-1b2c3d4e",
		"sfu-worker-x":                           "x",
		"/usr/bin/sfu-agent\x00sfu-worker-x\x00": "",
		"":                                       "",
	} {
		if got, ok := workerName([]byte(cmdline)); ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q, %v", cmdline, got, ok)
		}
	}
}
