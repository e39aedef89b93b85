package fanout

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// plainViewers asks for sockets without sessions, in the order of their
// destination numbers.
type plainViewers struct {
	Bind    netip.Addr `json:"bind"`
	Whole   bool       `json:"whole"` // take trains uncut
	Rooms   int        `json:"rooms"`
	Viewers int        `json:"viewers"`
}

// plain opens the sockets and returns their addresses.
func (v *viewers) plain(_ context.Context, o plainViewers) (any, error) {
	var addrs []netip.AddrPort
	for i := range o.Viewers {
		one, c := newViewer(i%o.Rooms), newCrypt(i)
		var err error
		one.tap, err = v.pump.open(o.Bind, o.Whole, func(n uint64, packet []byte, at time.Time) bool {
			if !v.sampled(n) {
				return false
			}
			payload, err := c.open(uint32((n-firstFlowNumber)>>16), packet)
			stamp, intact := rtcclient.ReadVideo(payload)
			if err != nil || !intact {
				one.corrupt++
				return false
			}
			one.check(n, stamp.Number, stamp.Sent, at, true)
			return false
		})
		if err != nil {
			return nil, err
		}
		v.all = append(v.all, one)
		addrs = append(addrs, one.tap.local.AddrPort())
	}
	return addrs, nil
}

// RTP and SRTP with AEAD_AES_128_GCM (RFC 3550, RFC 7714).
const (
	rtpHeaderSize = 12
	tagSize       = 16
	sealedSize    = rtpHeaderSize + payloadSize + tagSize
)

// A crypt seals for one destination of the ceiling, and opens there. Its session
// keys are made from the destination's number: there is no key exchange.
type crypt struct {
	aead cipher.AEAD
	salt [12]byte
	iv   [12]byte
}

func newCrypt(destination int) *crypt {
	secret := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(destination)))
	block, err := aes.NewCipher(secret[:16])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	c := &crypt{salt: [12]byte(secret[16:])}
	if c.aead, err = cipher.NewGCM(block); err != nil {
		panic(err) // AES has the block size
	}
	return c
}

// nonce is made of SSRC, rollover counter and sequence number (RFC 7714, section 8.1).
func (c *crypt) nonce(roc uint32, header []byte) []byte {
	clear(c.iv[:2])
	copy(c.iv[2:6], header[8:12])
	binary.BigEndian.PutUint32(c.iv[6:], roc)
	copy(c.iv[10:], header[2:4])
	for i := range c.iv {
		c.iv[i] ^= c.salt[i]
	}
	return c.iv[:]
}

// seal writes packet, which has its header and room for all the rest.
func (c *crypt) seal(roc uint32, packet, payload []byte) {
	header := packet[:rtpHeaderSize]
	c.aead.Seal(packet[rtpHeaderSize:rtpHeaderSize], c.nonce(roc, header), payload, header)
}

func (c *crypt) open(roc uint32, packet []byte) ([]byte, error) {
	header := packet[:rtpHeaderSize]
	return c.aead.Open(nil, c.nonce(roc, header), packet[rtpHeaderSize:], header)
}
