package front

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

type schema struct {
	Properties map[string]json.RawMessage
	Required   []string
	AllOf      []schema
}

type document struct {
	OpenAPI    string
	Paths      map[string]map[string]json.RawMessage
	Components struct {
		Parameters, Responses map[string]json.RawMessage
		Schemas               map[string]schema
	}
}

func readDocument(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenAPIDescribesExactlyTheRoutes(t *testing.T) {
	f, err := New(Config{Host: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	routes, err := f.routes(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var served, described []string
	for _, r := range routes {
		for m := range r.methods {
			served = append(served, m+" "+strings.TrimSuffix(r.pattern, "{$}"))
		}
	}
	for path, item := range readDocument(t).Paths {
		for m := range item {
			if m != "parameters" {
				described = append(described, strings.ToUpper(m)+" "+path)
			}
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("served    %v\ndescribed %v", served, described)
	}
}

type nobody struct{ Host }

func TestOpenAPISchemasAreTheTypes(t *testing.T) {
	schemas := readDocument(t).Components.Schemas
	for name, v := range map[string]any{
		"Worker": agent.Worker{}, "Limits": cgroups.Limits{}, "LastExit": agent.LastExit{},
		"Status": control.Status{}, "UDP": control.UDP{}, "RoomStatus": control.Room{}, "Track": control.Track{},
		"Counters": control.Counters{}, "Histogram": control.Histogram{}, "Readiness": readiness{}, "Problem": problem{},
	} {
		s := schemas[name]
		all, always := fields(reflect.TypeOf(v))
		if got := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(got, all) {
			t.Errorf("%s has %v, the type %v", name, got, all)
		}
		slices.Sort(s.Required)
		if !slices.Equal(s.Required, always) {
			t.Errorf("%s requires %v, the type always has %v", name, s.Required, always)
		}
	}
	if room := schemas["Room"].AllOf; len(room) != 2 || room[1].Properties["worker"] == nil {
		t.Errorf("Room is %+v", room)
	}
}

// fields are the JSON names of a struct, and those that are never left out.
func fields(t reflect.Type) (all, always []string) {
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, option, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous && tag == "":
			a, b := fields(f.Type)
			all, always = append(all, a...), append(always, b...)
		case name != "" && name != "-":
			all = append(all, name)
			if option != "omitempty" {
				always = append(always, name)
			}
		}
	}
	slices.Sort(all)
	slices.Sort(always)
	return all, always
}

func TestOpenAPIReferencesLeadSomewhere(t *testing.T) {
	d := readDocument(t)
	var whole any
	if err := json.Unmarshal(openAPI, &whole); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" {
		t.Errorf("openapi %q", d.OpenAPI)
	}
	used := make(map[string]bool)
	walk(whole, func(ref string) { used[ref] = true })
	known := make(map[string]bool)
	for kind, names := range map[string][]string{
		"schemas":    slices.Collect(maps.Keys(d.Components.Schemas)),
		"responses":  slices.Collect(maps.Keys(d.Components.Responses)),
		"parameters": slices.Collect(maps.Keys(d.Components.Parameters)),
	} {
		for _, n := range names {
			known["#/components/"+kind+"/"+n] = true
		}
	}
	if !maps.Equal(used, known) {
		t.Errorf("used  %v\nknown %v", slices.Sorted(maps.Keys(used)), slices.Sorted(maps.Keys(known)))
	}
}

func walk(v any, ref func(string)) {
	switch v := v.(type) {
	case map[string]any:
		if r, ok := v["$ref"].(string); ok {
			ref(r)
		}
		for _, x := range v {
			walk(x, ref)
		}
	case []any:
		for _, x := range v {
			walk(x, ref)
		}
	}
}

func TestEveryLimitCanBeChanged(t *testing.T) {
	all, _ := fields(reflect.TypeFor[cgroups.Limits]())
	if got := slices.Sorted(maps.Keys(limitFields(&cgroups.Limits{}))); !slices.Equal(got, all) {
		t.Errorf("%v, want %v", got, all)
	}
}
