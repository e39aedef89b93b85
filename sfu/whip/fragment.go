package whip

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sfu-agent/sfu-agent/sfu"
)

var errFragment = errors.New("malformed SDP fragment")

// parseFragment reads what a client says about its side of ICE (RFC 8840,
// section 4.4). With BUNDLE all m-sections share one transport; credentials may
// stand at either level.
func parseFragment(text string) (sfu.ICE, error) {
	var ice sfu.ICE
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		if len(line) < 2 || line[1] != '=' || line[0] != 'a' && line[0] != 'm' && line[0] != 'c' {
			return sfu.ICE{}, fmt.Errorf("%w: %.80q", errFragment, line)
		}
		if line[0] != 'a' {
			continue
		}
		key, value, _ := strings.Cut(line[2:], ":")
		switch key {
		case "ice-ufrag":
			ice.Ufrag = value
		case "ice-pwd":
			ice.Pwd = value
		case "candidate":
			ice.Candidates = append(ice.Candidates, value)
		}
	}
	if (ice.Ufrag == "") != (ice.Pwd == "") {
		return sfu.ICE{}, fmt.Errorf("%w: a=ice-ufrag and a=ice-pwd go together", errFragment)
	}
	return ice, nil
}

// formatFragment writes the server's new side after a restart.
func formatFragment(ice sfu.ICE) string {
	var b strings.Builder
	b.WriteString("a=ice-lite\r\na=ice-options:trickle\r\n")
	fmt.Fprintf(&b, "a=ice-ufrag:%s\r\na=ice-pwd:%s\r\n", ice.Ufrag, ice.Pwd)
	fmt.Fprintf(&b, "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:%s\r\n", ice.Mid)
	for _, c := range ice.Candidates {
		fmt.Fprintf(&b, "a=candidate:%s\r\n", c)
	}
	b.WriteString("a=end-of-candidates\r\n")
	return b.String()
}
