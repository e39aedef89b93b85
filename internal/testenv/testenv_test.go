package testenv

import (
	"strings"
	"testing"
)

func TestRequired(t *testing.T) {
	for _, test := range []struct {
		named, part string
		want        bool
		err         string
	}{
		{"", "gso", false, ""},
		{"all", "gso", true, ""},
		{"systemd,dbus-broker,gso", "gso", true, ""},
		{"systemd gso", "gso", true, ""},
		{"dbus-broker vm", "dbus", false, ""},
		{"gso,gos", "gso", false, `unknown part "gos"; want all, or some of systemd dbus `},
		{"", "gos", false, `unknown part "gos"`},
	} {
		got, err := required(test.named, test.part)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q, %s: %v, %v", test.named, test.part, got, err)
		}
	}
}

// outcome is a test that ends as its runtime would end it, by a panic here.
type outcome struct {
	testing.TB
}

func (o *outcome) Helper()                     {}
func (o *outcome) Fatal(args ...any)           { panic("failed") }
func (o *outcome) Fatalf(string, ...any)       { panic("failed") }
func (o *outcome) Skipf(_ string, args ...any) { panic("skipped") }

func TestSkip(t *testing.T) {
	for named, want := range map[string]string{"": "skipped", "vm": "skipped", "ipv6": "failed", "all": "failed", "x": "failed"} {
		t.Setenv(variable, named)
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("%q: %v, want %s", named, got, want)
				}
			}()
			Skip(&outcome{}, "ipv6", "for the test")
		}()
	}
}
