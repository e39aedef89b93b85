package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"
)

// loadConfig sets every flag that the YAML file names and the command line does
// not. The keys are the flags' names. Errors carry the file and the line.
func loadConfig(path string, flags *pflag.FlagSet) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var given []string
	flags.Visit(func(f *pflag.Flag) { given = append(given, f.Name) })
	seen := map[string]int{}
	for _, doc := range file.Docs {
		pairs, err := pairsOf(doc.Body)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, pair := range pairs {
			key, line := pair.Key.String(), pair.Key.GetToken().Position.Line
			if first, ok := seen[key]; ok {
				return fmt.Errorf("%s:%d: %s is already set in line %d", path, line, key, first)
			}
			seen[key] = line
			if err := setFlag(flags, key, pair.Value, slices.Contains(given, key)); err != nil {
				return fmt.Errorf("%s:%d: %w", path, line, err)
			}
		}
	}
	return nil
}

func pairsOf(body ast.Node) ([]*ast.MappingValueNode, error) {
	switch n := body.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return nil, nil
	case *ast.MappingNode:
		return n.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, nil
	}
	return nil, fmt.Errorf("line %d: want \"key: value\" lines", body.GetToken().Position.Line)
}

func setFlag(flags *pflag.FlagSet, key string, value ast.Node, given bool) error {
	flag := flags.Lookup(key)
	if flag == nil || key == "config" || key == "help" {
		return fmt.Errorf("unknown key %q (known: %s)", key, strings.Join(keys(flags), ", "))
	}
	text, err := scalar(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if given {
		return nil
	}
	if err := flag.Value.Set(text); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func keys(flags *pflag.FlagSet) (names []string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			names = append(names, f.Name)
		}
	})
	return names
}

// scalar is a node as it would stand on the command line.
func scalar(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.SequenceNode:
		var parts []string
		for _, v := range n.Values {
			part, err := scalar(v)
			if err != nil {
				return "", err
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, ","), nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", errors.New("has no value")
	}
	return "", errors.New("want a single value or a list")
}

// size is a number of bytes as systemd writes it: 512M, 2G (powers of 1024).
type size uint64

func (s *size) String() string {
	n := uint64(*s)
	for _, suffix := range []string{"", "K", "M", "G"} {
		if n%1024 != 0 || n == 0 {
			return strconv.FormatUint(n, 10) + suffix
		}
		n /= 1024
	}
	return strconv.FormatUint(n, 10) + "T"
}

func (s *size) Set(text string) error {
	shift := 0
	number := text
	if i := strings.IndexByte("KMGT", lastByte(text)); i >= 0 {
		shift, number = 10*(i+1), text[:len(text)-1]
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n<<shift>>shift != n {
		return fmt.Errorf("%q is no size: want bytes, or a number with K, M, G or T", text)
	}
	*s = size(n << shift)
	return nil
}

func (*size) Type() string { return "size" }

// percent is CPU time as systemd writes it: 150% is one and a half cores.
type percent uint64

func (p *percent) String() string { return strconv.FormatUint(uint64(*p), 10) + "%" }

func (p *percent) Set(text string) error {
	n, err := strconv.ParseUint(strings.TrimSuffix(text, "%"), 10, 32)
	if err != nil {
		return fmt.Errorf("%q is no percentage: want for example 150%%, one and a half cores", text)
	}
	*p = percent(n)
	return nil
}

func (*percent) Type() string { return "percent" }

func lastByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}
