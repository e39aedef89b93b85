// Package fanout measures what an SFU's forwarding costs: publishers and viewers
// in processes of their own, the CPU time of the SFU's process, and beside it,
// in the same run, that of a loop which does nothing but seal and send.
package fanout
