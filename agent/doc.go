// Package agent keeps the wished-for number of SFU workers running on a host.
//
// It is the control plane: it never sees a media packet, and workers in scopes
// go on without it. Placers (agent/scope, agent/subtree) put a worker's process
// somewhere; this package decides when, watches, replaces, drains and adopts.
package agent
