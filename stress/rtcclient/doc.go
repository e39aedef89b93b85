// Package rtcclient has small WHIP publishers and WHEP viewers that measure
// what reaches them.
package rtcclient
