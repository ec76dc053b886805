package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A caller sends one request and tells exactly what came of it. Nothing is sent a second time: Go's own HTTP/1.1
// client repeats a GET whose kept connection was cut, and that would hide the failures that we are looking for.
type caller interface {
	// call sends a request for path. The answer's err is nil exactly if a whole response arrived.
	call(method, path string, header http.Header, body []byte) answer
}

// answer is what a caller saw of one request.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    []byte
	err     error
}

// longestBody is how much of a body is read; a longer one is an error.
const longestBody = 1 << 20

// callerOptions says how requests are sent.
type callerOptions struct {
	timeout   time.Duration // for the whole request, from connecting to the last byte
	http2     bool          // h2c with prior knowledge
	keepAlive bool          // whether connections are used again
}

// newCaller returns a caller for the server that base names, for example http://cart:8080.
func newCaller(base *url.URL, o callerOptions) caller {
	if o.http2 {
		return newH2Caller(base, o)
	}
	address := base.Host
	if base.Port() == "" {
		address = net.JoinHostPort(base.Hostname(), "80")
	}
	return &h1Caller{host: base.Host, address: address, options: o}
}

// h1Caller speaks HTTP/1.1, one request at a time per connection. It prefers the connection used last, so that few
// stay open.
type h1Caller struct {
	host, address string
	options       callerOptions

	mu   sync.Mutex
	idle []*h1Conn
}

type h1Conn struct {
	net.Conn
	reader *bufio.Reader
	used   time.Time
}

// longestIdle is shorter than the time after which usual servers close an idle connection.
const longestIdle = 20 * time.Second

func (c *h1Caller) call(method, path string, header http.Header, body []byte) answer {
	deadline := time.Now().Add(c.options.timeout)
	conn, err := c.take(deadline)
	if err != nil {
		return answer{err: err}
	}
	result, reusable := conn.exchange(deadline, method, c.host, path, header, body, c.options.keepAlive)
	if reusable && c.options.keepAlive {
		c.give(conn)
	} else {
		conn.Close()
	}
	return result
}

// take returns a connection that is open, as far as this side knows.
func (c *h1Caller) take(deadline time.Time) (*h1Conn, error) {
	for {
		c.mu.Lock()
		last := len(c.idle) - 1
		if last < 0 {
			c.mu.Unlock()
			break
		}
		conn := c.idle[last]
		c.idle = c.idle[:last]
		c.mu.Unlock()
		if time.Since(conn.used) < longestIdle && stillOpen(conn.Conn) {
			return conn, nil
		}
		conn.Close()
	}
	conn, err := net.DialTimeout("tcp", c.address, time.Until(deadline))
	if err != nil {
		return nil, err
	}
	return &h1Conn{Conn: conn, reader: bufio.NewReaderSize(conn, 4096)}, nil
}

func (c *h1Caller) give(conn *h1Conn) {
	conn.used = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, conn)
	if oldest := c.idle[0]; conn.used.Sub(oldest.used) > longestIdle {
		oldest.Close()
		c.idle = slices.Delete(c.idle, 0, 1)
	}
}

func (conn *h1Conn) exchange(
	deadline time.Time, method, host, path string, header http.Header, body []byte, keepAlive bool,
) (answer, bool) {
	if err := conn.SetDeadline(deadline); err != nil {
		return answer{err: err}, false
	}
	var request bytes.Buffer
	fmt.Fprintf(&request, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	if len(body) > 0 || method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		fmt.Fprintf(&request, "Content-Length: %d\r\n", len(body))
	}
	if !keepAlive {
		request.WriteString("Connection: close\r\n")
	}
	if err := header.Write(&request); err != nil {
		return answer{err: err}, false
	}
	request.WriteString("\r\n")
	request.Write(body)
	if _, err := conn.Write(request.Bytes()); err != nil {
		return answer{err: err}, false
	}
	response, err := http.ReadResponse(conn.reader, &http.Request{Method: method})
	if err != nil {
		return answer{err: err}, false
	}
	defer response.Body.Close()
	content, err := readBody(response.Body)
	result := answer{
		status: response.StatusCode, header: response.Header, trailer: response.Trailer, body: content, err: err,
	}
	return result, err == nil && !response.Close
}

// h2Caller speaks HTTP/2 without TLS. Go repeats a request only where the protocol says that it was not looked at.
type h2Caller struct {
	base   string
	client http.Client
}

func newH2Caller(base *url.URL, o callerOptions) *h2Caller {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &h2Caller{
		base: "http://" + base.Host,
		client: http.Client{
			Timeout:       o.timeout,
			Transport:     &http.Transport{Protocols: protocols, DisableKeepAlives: !o.keepAlive, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (c *h2Caller) call(method, path string, header http.Header, body []byte) answer {
	request, err := http.NewRequest(method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := c.client.Do(request)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	content, err := readBody(response.Body)
	return answer{
		status: response.StatusCode, header: response.Header, trailer: response.Trailer, body: content, err: err,
	}
}

func readBody(body io.Reader) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(body, longestBody+1))
	if err == nil && len(content) > longestBody {
		err = fmt.Errorf("the body is longer than %d bytes", longestBody)
	}
	return content, err
}

// stillOpen tells whether the other side has left a kept connection alone: neither closed it nor sent anything. A
// request on a connection that is known to be closed would fail by our own fault.
func stillOpen(conn net.Conn) bool {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && open
}

// kindOf returns one word for what went wrong below HTTP.
func kindOf(err error) string {
	var lookup *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &lookup):
		return "name"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		strings.Contains(err.Error(), "stream error"), strings.Contains(err.Error(), "GOAWAY"):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	}
	return "other"
}
