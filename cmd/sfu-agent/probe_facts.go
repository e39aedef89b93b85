package main

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// hostFacts are read, not tried. They explain verdicts and decide nothing.
type hostFacts struct {
	IOUringDisabled string   `json:"io_uring_disabled"` // sysctl kernel.io_uring_disabled; "" where there is none
	IOUringGroup    string   `json:"io_uring_group"`    // sysctl kernel.io_uring_group
	Seccomp         string   `json:"seccomp"`           // of proc_pid_status(5): "0" none, "1" strict, "2" filter
	NoNewPrivs      string   `json:"no_new_privs"`      // "0" or "1"
	CapEff          string   `json:"cap_eff"`           // effective capabilities, hexadecimal
	Memlock         string   `json:"rlimit_memlock"`    // soft limit in bytes, or "unlimited"
	Nofile          string   `json:"rlimit_nofile"`     // soft limit, or "unlimited"
	Container       string   `json:"container"`         // "docker", "podman", ...; "unknown" kind; "" for none
	ContainerSigns  []string `json:"container_signs"`   // what says so
}

// initialPIDNamespace is the name of the one that the kernel starts with
// (PROC_PID_INIT_INO of include/linux/proc_ns.h).
const initialPIDNamespace = "pid:[4026531836]"

// readFacts reads a root directory. What cannot be read stays empty.
func readFacts(root fs.ReadLinkFS) hostFacts {
	read := func(path string) string {
		text, _ := fs.ReadFile(root, path)
		return strings.TrimSpace(string(text))
	}
	status, limits := parseStatus(read("proc/thread-self/status")), read("proc/self/limits")
	f := hostFacts{
		IOUringDisabled: read("proc/sys/kernel/io_uring_disabled"), IOUringGroup: read("proc/sys/kernel/io_uring_group"),
		Seccomp: status["Seccomp"], NoNewPrivs: status["NoNewPrivs"], CapEff: status["CapEff"],
		Memlock: softLimit(limits, "Max locked memory"), Nofile: softLimit(limits, "Max open files"),
	}
	var found []containerSign
	if text, err := fs.ReadFile(root, "run/.containerenv"); err == nil {
		found = append(found, containerSign{containerenvEngine(string(text)), "/run/.containerenv"})
	}
	if _, err := fs.Stat(root, ".dockerenv"); err == nil {
		found = append(found, containerSign{"docker", "/.dockerenv"})
	}
	for _, path := range []string{"run/host/container-manager", "run/systemd/container"} {
		if kind := word(read(path)); kind != "" {
			found = append(found, containerSign{kind, "/" + path})
		}
	}
	for _, path := range []string{"proc/self/cgroup", "proc/self/mountinfo"} {
		if kind := containerKind(read(path)); kind != "" {
			found = append(found, containerSign{kind, "/" + path})
		}
	}
	if ns, err := root.ReadLink("proc/self/ns/pid"); err == nil && ns != initialPIDNamespace {
		found = append(found, containerSign{"unknown", "PID namespace " + ns})
	}
	for _, sign := range found {
		if f.Container == "" || f.Container == "unknown" {
			f.Container = sign.kind
		}
		f.ContainerSigns = append(f.ContainerSigns, sign.where)
	}
	return f
}

type containerSign struct{ kind, where string }

// parseStatus reads "Key:\tvalue" lines (proc_pid_status(5)).
func parseStatus(text string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			values[key] = strings.TrimSpace(value)
		}
	}
	return values
}

// softLimit reads one line of proc_pid_limits(5).
func softLimit(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if columns := strings.Fields(rest); len(columns) > 0 {
				return columns[0]
			}
		}
	}
	return ""
}

// containerenvEngine reads the engine of podman's or buildah's file, as in
// engine="podman-4.9.3".
func containerenvEngine(text string) string {
	for line := range strings.Lines(text) {
		if engine, ok := strings.CutPrefix(strings.TrimSpace(line), "engine="); ok {
			if kind := word(strings.Trim(engine, `"`)); kind != "" {
				return kind
			}
		}
	}
	return "podman" // it leaves the file empty where it is not privileged
}

var firstWord = regexp.MustCompile(`^[a-z][a-z]*(-[a-z]+)*`)

func word(text string) string { return firstWord.FindString(text) }

// containerKind looks for names that container engines give to cgroups and to
// the layers of the root file system.
func containerKind(text string) string {
	for _, mark := range []struct{ text, kind string }{
		{"kubepods", "kubernetes"},
		{"/docker/", "docker"}, {"/docker-", "docker"},
		{"/libpod-", "podman"}, {"/libpod_", "podman"}, {"/containers/storage/", "podman"},
		{"io.containerd.snapshotter", "containerd"}, {"/nerdctl-", "containerd"},
		{"/lxc.payload", "lxc"}, {"/lxc/", "lxc"},
	} {
		if slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool { return ofOwnRoot(line) && strings.Contains(line, mark.text) }) {
			return mark.kind
		}
	}
	return ""
}

// ofOwnRoot tells whether a line of /proc/self/cgroup or mountinfo is about this
// process: a host that runs containers has the layers of these mounted too.
func ofOwnRoot(line string) bool {
	columns := strings.Fields(line)
	if len(columns) < 5 { // no line of mountinfo
		return true
	}
	return columns[4] == "/"
}

func (f hostFacts) String() string {
	var b strings.Builder
	state := map[string]string{"0": "none", "1": "strict", "2": "filter"}[f.Seccomp]
	fmt.Fprintf(&b, "seccomp %s, no-new-privileges %s, capabilities %s, RLIMIT_MEMLOCK %s, RLIMIT_NOFILE %s, ",
		or(state), map[string]string{"0": "no", "1": "yes"}[f.NoNewPrivs], or(f.CapEff), or(f.Memlock), or(f.Nofile))
	if f.IOUringDisabled == "" {
		b.WriteString("no kernel.io_uring_disabled")
	} else {
		fmt.Fprintf(&b, "kernel.io_uring_disabled %s, group %s", f.IOUringDisabled, or(f.IOUringGroup))
	}
	if f.Container == "" {
		b.WriteString("; no sign of a container")
	} else {
		fmt.Fprintf(&b, "; signs of a container: %s (%s)", f.Container, strings.Join(f.ContainerSigns, ", "))
	}
	return b.String()
}

// or is a fact that may be missing.
func or(value string) string {
	if value == "" {
		return "unknown"
	}
	return value
}
