// Package cgroups reads and writes the files of cgroup v2 (cgroups(7),
// Documentation/admin-guide/cgroup-v2.rst): one file here per kernel file family.
package cgroups
