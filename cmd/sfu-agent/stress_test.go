package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/stress/scopes"
)

// runOf is a run of 200 cycles; the numbers are failures, hangs, wrong answers and leftovers.
func runOf(client string, numbers ...int) *scopes.Report {
	n := append(numbers, 0, 0, 0, 0)
	return &scopes.Report{Client: client, Fault: "reload", Cycles: 200, Failures: n[0], Hangs: n[1], WrongAnswers: n[2], Leftovers: n[3]}
}

func TestStressVerdict(t *testing.T) {
	for name, test := range map[string]struct {
		runs    []*scopes.Report
		control *scopes.Report
		want    []string // in the verdict; none for a good one
	}{
		"good":                 {[]*scopes.Report{runOf("ours")}, runOf("naive", 10), nil},
		"others may fail":      {[]*scopes.Report{runOf("ours"), runOf("godbus", 1, 2, 3, 4)}, runOf("naive", 200), nil},
		"a failure":            {[]*scopes.Report{runOf("ours"), runOf("ours", 1)}, runOf("naive", 50), []string{"fault reload: 1 failures"}},
		"a hang":               {[]*scopes.Report{runOf("ours", 0, 1)}, runOf("naive", 50), []string{"1 hangs"}},
		"a wrong answer":       {[]*scopes.Report{runOf("ours", 0, 0, 1)}, runOf("naive", 50), []string{"1 wrong answers"}},
		"a leftover":           {[]*scopes.Report{runOf("ours", 0, 0, 0, 1)}, runOf("naive", 50), []string{"1 leftovers"}},
		"no cycle":             {[]*scopes.Report{{Client: "ours"}}, runOf("naive", 50), []string{"no cycle was done"}},
		"the control is fine":  {[]*scopes.Report{runOf("ours")}, runOf("naive"), []string{"fails only 0.0 %", "proves nothing"}},
		"the control is close": {[]*scopes.Report{runOf("ours")}, runOf("naive", 9), []string{"fails only 4.5 %"}},
		"the control is empty": {[]*scopes.Report{runOf("ours")}, &scopes.Report{Client: "naive"}, []string{"proves nothing"}},
		"both":                 {[]*scopes.Report{runOf("ours", 0, 2)}, runOf("naive"), []string{"2 hangs", "proves nothing"}},
		"left out":             {[]*scopes.Report{runOf("ours")}, nil, nil},
		"left out, a hang":     {[]*scopes.Report{runOf("ours", 0, 1)}, nil, []string{"1 hangs"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			report := scopesReport{Runs: test.runs, Control: test.control}
			err := report.conclude(&out, true) // an error is exit code 1
			var printed struct {
				Runs    []json.RawMessage
				Control *json.RawMessage
				Verdict string
			}
			if err := json.Unmarshal([]byte(out.String()), &printed); err != nil {
				t.Fatal(err)
			}
			if (err == nil) != (test.want == nil) || (printed.Verdict == "good") != (test.want == nil) {
				t.Fatalf("%v, printed %q, want %q", err, printed.Verdict, test.want)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) || !strings.Contains(printed.Verdict, want) {
					t.Errorf("%v, printed %q, want %q", err, printed.Verdict, want)
				}
			}
			if len(printed.Runs) != len(test.runs) || (printed.Control == nil) != (test.control == nil) {
				t.Errorf("printed %s", &out)
			}
		})
	}
}

func TestStressTable(t *testing.T) {
	var out strings.Builder
	report := scopesReport{Runs: []*scopes.Report{runOf("ours")}, Control: runOf("naive")}
	if err := report.conclude(&out, false); err == nil {
		t.Error("good, with a control that does not fail")
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var clients []string
	for _, line := range lines {
		clients = append(clients, strings.Fields(line + " .")[0])
	}
	if want := []string{"client", "ours", "naive", ".", "verdict:"}; !slices.Equal(clients, want) {
		t.Errorf("printed\n%s", &out)
	}
}

func TestStressRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"--n", "0"}, {"--parallel", "0"}, {"--parallel", "1025"}, {"--rounds", "0"}, {"--fault", "flood"}, {"--client", "other"}, {"none"},
	} {
		cmd := stressCommand()
		cmd.SetArgs(append([]string{"scopes"}, args...))
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		if err := cmd.Execute(); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}
