package front

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard keeps out who has no token and other sites' pages.
type guard struct {
	token *[sha256.Size]byte // hash, so that comparing tells no length; nil without a token
	names map[string]bool    // lower case
	cross *http.CrossOriginProtection
}

func newGuard(token string, names []string) guard {
	g := guard{names: map[string]bool{"localhost": true}, cross: http.NewCrossOriginProtection()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		g.token = &sum
	}
	for _, n := range names {
		g.names[strings.ToLower(n)] = true
	}
	return g
}

// checkSite refuses what another site's page made the browser send.
//
// Without a token whoever can connect is trusted, and on loopback that is every
// program of this machine, its browser included. So there the names in Host
// (against DNS rebinding) and Origin must be our own.
func (g guard) checkSite(r *http.Request, a access) *problem {
	if a == health {
		return nil
	}
	if g.token == nil && overLoopback(r) {
		if !g.local(r.Host) {
			return &problem{Status: http.StatusMisdirectedRequest,
				Detail: "This agent has no token and answers on loopback only to localhost, 127.0.0.1, [::1] and the host names it was given. Use one of these, add this name to the agent's, or set a token."}
		}
		if o := r.Header.Get("Origin"); o != "" && !g.localOrigin(o) {
			return &problem{Status: http.StatusForbidden,
				Detail: "This agent has no token and on loopback serves only pages from this machine. Set a token to let other sites use it."}
		}
	}
	if a == admin && g.cross.Check(r) != nil {
		return &problem{Status: http.StatusForbidden,
			Detail: "The admin API takes no changes from pages of another origin. Use the agent's own page or a program."}
	}
	return nil
}

func (g guard) localOrigin(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && g.local(u.Host)
}

// local is whether hostport names this machine, or us.
func (g guard) local(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	if g.names[strings.ToLower(host)] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// overLoopback is whether the connection came to a loopback address.
func overLoopback(r *http.Request) bool {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// checkToken wants the bearer token where there is one (RFC 6750).
func (g guard) checkToken(r *http.Request, a access) *problem {
	if g.token == nil || a == open || a == health {
		return nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return &problem{Status: http.StatusUnauthorized, challenge: `Bearer realm="sfu-agent"`,
			Detail: "Send the agent's token in the header Authorization: Bearer TOKEN."}
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if subtle.ConstantTimeCompare(sum[:], g.token[:]) != 1 {
		return &problem{Status: http.StatusUnauthorized, challenge: `Bearer realm="sfu-agent", error="invalid_token"`,
			Detail: "The token is not this agent's."}
	}
	return nil
}

// setCORS lets pages of any site read answers of WHIP and WHEP. The token is no
// cookie: it comes with no request by itself.
func setCORS(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Location, ETag, Link, Accept-Patch, Retry-After, WWW-Authenticate")
}
