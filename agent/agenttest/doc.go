// Package agenttest tests what places workers: a conformance suite for every
// Placer, with real processes, and a Placer scripted to fail.
package agenttest
