package front_test

import (
	"compress/gzip"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent/front"
)

func TestPageHeaders(t *testing.T) {
	s := open(t, front.Config{Host: &host{}, Token: "a"})
	for path, contentType := range map[string]string{
		"/": "text/html; charset=utf-8", "/assets/app.js": "text/javascript; charset=utf-8", "/assets/style.css": "text/css; charset=utf-8",
		"/assets/icon.svg": "image/svg+xml",
	} {
		r := s.ask("GET", path, "")
		if r.StatusCode != 200 || r.body == "" {
			t.Errorf("%s: %d, %d bytes", path, r.StatusCode, len(r.body))
		}
		for name, want := range map[string]string{
			"Content-Type": contentType, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
			"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", path, name, got, want)
			}
		}
		policy := r.Header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	if p := s.ask("GET", "/healthz", "").Header.Get("Content-Security-Policy"); p != "default-src 'none'; frame-ancestors 'none'" {
		t.Errorf("healthz: policy %q", p)
	}
}

func TestPageIsSentOnceAndCompressed(t *testing.T) {
	s := open(t, front.Config{Host: &host{}})
	plain := s.ask("GET", "/assets/app.js", "", "Accept-Encoding", "identity")
	packed := s.ask("GET", "/assets/app.js", "", "Accept-Encoding", "gzip, br")
	if packed.Header.Get("Content-Encoding") != "gzip" || len(packed.body) >= len(plain.body) {
		t.Fatalf("encoding %q, %d bytes of %d", packed.Header.Get("Content-Encoding"), len(packed.body), len(plain.body))
	}
	z, err := gzip.NewReader(strings.NewReader(packed.body))
	if err != nil {
		t.Fatal(err)
	}
	if unpacked, err := io.ReadAll(z); err != nil || string(unpacked) != plain.body {
		t.Errorf("unpacked it is another file: %v", err)
	}
	if plain.Header.Get("ETag") == packed.Header.Get("ETag") || packed.Header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("ETags %s and %s, Vary %q", plain.Header.Get("ETag"), packed.Header.Get("ETag"), packed.Header.Get("Vary"))
	}
	for encoding, r := range map[string]reply{"identity": plain, "gzip": packed} {
		again := s.ask("GET", "/assets/app.js", "", "Accept-Encoding", encoding, "If-None-Match", r.Header.Get("ETag"))
		if again.StatusCode != 304 || again.body != "" {
			t.Errorf("%s with its ETag: %d, %d bytes", encoding, again.StatusCode, len(again.body))
		}
	}
}

var (
	importPath = regexp.MustCompile(`from "\./([^"]+)"`)
	linked     = regexp.MustCompile(`(?:src|href)="([^"]+)"`)
	elsewhere  = regexp.MustCompile(`(?i)(?:https?:)?//[a-z0-9-]+\.[a-z]`)
	inline     = regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+=|innerHTML|insertAdjacentHTML|\beval\(`)
)

// The page has all its parts, loads nothing from elsewhere and needs nothing
// that its policy forbids.
func TestPageIsWhole(t *testing.T) {
	s := open(t, front.Config{Host: &host{}})
	files, err := os.ReadDir("web")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{"assets/index.html": true}
	for _, f := range files {
		b, err := os.ReadFile("web/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		content := strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", "")
		for _, m := range importPath.FindAllStringSubmatch(content, -1) {
			used["assets/"+m[1]] = true
		}
		for _, m := range linked.FindAllStringSubmatch(content, -1) {
			used[m[1]] = true
		}
		for _, bad := range []*regexp.Regexp{elsewhere, inline} {
			if hit := bad.FindString(content); hit != "" {
				t.Errorf("%s has %q", f.Name(), hit)
			}
		}
	}
	for _, f := range files {
		if !used["assets/"+f.Name()] {
			t.Errorf("nothing uses %s", f.Name())
		}
	}
	for name := range used {
		if r := s.ask("GET", "/"+name, ""); r.StatusCode != 200 {
			t.Errorf("%s: %d", name, r.StatusCode)
		}
	}
}
