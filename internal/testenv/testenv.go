// Package testenv knows which parts of a machine the tests may count on.
//
// SFU_TEST_REQUIRE names parts of parts.txt, with spaces or commas between, or
// "all". Without a part that is not named tests are skipped, without one that
// is they fail.
package testenv

import (
	_ "embed"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const variable = "SFU_TEST_REQUIRE"

// partsText has a line for each part: its name, and what it is.
//
//go:embed parts.txt
var partsText string

// Skip skips a test that lacks a part of the machine, or fails it where that
// part is required. The reason says how the part was found missing.
func Skip(t testing.TB, part string, reason any) {
	t.Helper()
	must, err := required(os.Getenv(variable), part)
	switch {
	case err != nil:
		t.Fatal(err)
	case must:
		t.Fatalf("%s requires %s: %v", variable, part, reason)
	}
	t.Skipf("no %s: %v", part, reason)
}

// required says whether named, the variable's value, names a part.
func required(named, part string) (bool, error) {
	var parts []string
	for line := range strings.Lines(partsText) {
		parts = append(parts, strings.Fields(line)[0])
	}
	names := strings.FieldsFunc(named, func(r rune) bool { return r == ' ' || r == ',' })
	for _, name := range append(names, part) {
		if name != "all" && !slices.Contains(parts, name) {
			return false, fmt.Errorf("%s: unknown part %q; want all, or some of %s", variable, name, strings.Join(parts, " "))
		}
	}
	return slices.Contains(names, "all") || slices.Contains(names, part), nil
}
