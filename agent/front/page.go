package front

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed web
var web embed.FS

// pagePolicy lets the page load nothing but our own files and speak to no one
// but us.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is one file of the page as it is sent.
type asset struct {
	plain, gzip  []byte
	contentType  string
	etag, gzETag string
}

// page is the page's files by name.
type page map[string]asset

func loadPage() (page, error) {
	p := make(page)
	files, err := fs.ReadDir(web, "web")
	if err != nil {
		return nil, fmt.Errorf("front: read page: %w", err)
	}
	for _, file := range files {
		content, err := web.ReadFile("web/" + file.Name())
		if err != nil {
			return nil, fmt.Errorf("front: read page: %w", err)
		}
		if p[file.Name()], err = newAsset(file.Name(), content); err != nil {
			return nil, fmt.Errorf("front: compress %s: %w", file.Name(), err)
		}
	}
	return p, nil
}

func newAsset(name string, content []byte) (asset, error) {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return asset{}, err
	}
	if _, err := z.Write(content); err != nil {
		return asset{}, err
	}
	if err := z.Close(); err != nil {
		return asset{}, err
	}
	sum := sha256.Sum256(content)
	tag := hex.EncodeToString(sum[:8])
	return asset{plain: content, gzip: packed.Bytes(), contentType: contentType(name),
		etag: `"` + tag + `"`, gzETag: `"` + tag + `-gz"`}, nil
}

// contentType does not ask the host's MIME tables for what a browser must run.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/octet-stream"
}

func (p page) serveIndex(w http.ResponseWriter, r *http.Request) { p.serve(w, r, "index.html") }

func (p page) serveAsset(w http.ResponseWriter, r *http.Request) { p.serve(w, r, r.PathValue("file")) }

func (p page) serve(w http.ResponseWriter, r *http.Request, name string) {
	a, ok := p[name]
	if !ok {
		writeProblem(w, problem{Status: http.StatusNotFound, Detail: "The page has no such file."})
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Permissions-Policy", "camera=(self), microphone=(self), display-capture=(self), geolocation=()")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	body, tag := a.plain, a.etag
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		body, tag = a.gzip, a.gzETag
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}
