package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

func testService(t *testing.T, name, upstream, address string, b behaviour) string {
	t.Helper()
	s := &service{name: name, version: "v1", pod: name + "-0", upstream: upstream, started: time.Now()}
	s.behaviour.Store(&b)
	if upstream != "" {
		s.caller = testCaller(t, address, callerOptions{timeout: time.Second, keepAlive: true})
	}
	server := httptest.NewUnstartedServer(s.routes())
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

func testCaller(t *testing.T, address string, o callerOptions) caller {
	t.Helper()
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return newCaller(base, o)
}

func TestThreeServicesAnswerAsOneChain(t *testing.T) {
	stock := testService(t, "stock", "", "", defaultBehaviour())
	cart := testService(t, "cart", "stock", stock, defaultBehaviour())
	front := testService(t, "front", "cart", cart, defaultBehaviour())
	for _, http2 := range []bool{false, true} {
		a := testCaller(t, front, callerOptions{timeout: time.Second, http2: http2, keepAlive: true}).call("GET", "/a", nil, nil)
		if a.err != nil || a.status != 200 || a.header.Get(headerChain) != "front=v1, cart=v1, stock=v1" {
			t.Fatalf("http2 %v: %v %d %v", http2, a.err, a.status, a.header)
		}
		var body page
		if err := json.Unmarshal(a.body, &body); err != nil || body.Path != "/a" || len(body.Upstream) == 0 {
			t.Errorf("body %s", a.body)
		}
	}
}

func TestAnErrorBehindIsToldFromALostCall(t *testing.T) {
	broken := defaultBehaviour()
	broken.errorRate = 1
	cart := testService(t, "cart", "", "", broken)
	front := testService(t, "front", "cart", cart, defaultBehaviour())
	a := testCaller(t, front, callerOptions{timeout: time.Second}).call("GET", "/", nil, nil)
	if s := judge(a, "cart"); s.class != bad || s.version != "v1" {
		t.Errorf("an error of cart: %+v", s)
	}
	front = testService(t, "front", "cart", "http://127.0.0.1:1", defaultBehaviour())
	a = testCaller(t, front, callerOptions{timeout: time.Second}).call("GET", "/", nil, nil)
	if s := judge(a, "cart"); s.class != failed || a.status != 502 {
		t.Errorf("nobody behind: %d %+v", a.status, s)
	}
}

func TestTheGRPCStatusIsInTheTrailers(t *testing.T) {
	b := defaultBehaviour()
	b.grpcStatusRate = 1
	address := testService(t, "stock", "", "", b)
	c := testCaller(t, address, callerOptions{timeout: time.Second, http2: true, keepAlive: true})
	a := c.call("POST", "/grpc.test/Status", http.Header{"Content-Type": {"application/grpc"}}, make([]byte, 5))
	if a.err != nil || a.status != 200 || a.trailer.Get("Grpc-Status") != "14" {
		t.Errorf("%v %d %v %v", a.err, a.status, a.header, a.trailer)
	}
}

func TestACutConnectionIsSeenAndTheRequestNotRepeated(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan struct{}, 10)
	go func() {
		for n := 0; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- struct{}{}
			buffer := make([]byte, 4096)
			conn.Read(buffer)
			conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
			conn.Read(buffer)
			conn.Close()
		}
	}()
	c := testCaller(t, "http://"+listener.Addr().String(), callerOptions{timeout: time.Second, keepAlive: true})
	if a := c.call("GET", "/", nil, nil); a.err != nil {
		t.Fatal(a.err)
	}
	a := c.call("GET", "/", nil, nil)
	if a.err == nil || kindOf(a.err) != "closed" && kindOf(a.err) != "reset" {
		t.Errorf("error %v", a.err)
	}
	if len(accepted) != 1 {
		t.Errorf("%d connections: the request was sent again", len(accepted))
	}
}

func TestAClosedIdleConnectionIsNoFailure(t *testing.T) {
	address := testService(t, "stock", "", "", defaultBehaviour())
	c := testCaller(t, address, callerOptions{timeout: time.Second, keepAlive: true}).(*h1Caller)
	if a := c.call("GET", "/", nil, nil); a.err != nil {
		t.Fatal(a.err)
	}
	c.idle[0].Conn.(*net.TCPConn).CloseRead()
	if a := c.call("GET", "/", nil, nil); a.err != nil || a.status != 200 {
		t.Errorf("%v %d", a.err, a.status)
	}
}

func TestErrorsHaveOneWord(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for want, address := range map[string]string{
		"refused": "http://127.0.0.1:1", "timeout": "http://" + silent.Addr().String(),
	} {
		a := testCaller(t, address, callerOptions{timeout: 50 * time.Millisecond}).call("GET", "/", nil, nil)
		if a.err == nil || kindOf(a.err) != want {
			t.Errorf("%v is %q, want %q", a.err, kindOf(a.err), want)
		}
	}
}

func TestBehaviourIsWhatTheSettingsSay(t *testing.T) {
	draw := func() float64 { return 0.5 }
	for name, c := range map[string]struct {
		set  func(*behaviour)
		path string
		age  time.Duration
		want effect
	}{
		"nothing set":          {func(*behaviour) {}, "/", 0, effect{}},
		"drawn below the rate": {func(b *behaviour) { b.errorRate = 0.51 }, "/", 0, effect{fails: true}},
		"drawn above the rate": {func(b *behaviour) { b.errorRate = 0.5 }, "/", 0, effect{}},
		"base and jitter":      {func(b *behaviour) { b.latency, b.latencyJitter = 4, 2 }, "/", 0, effect{delay: 5}},
		"slow ones":            {func(b *behaviour) { b.slowRate, b.slowBy = 0.6, 9 }, "/", 0, effect{delay: 9}},
		"before it fails":      {func(b *behaviour) { b.failAfter = 10 }, "/", 9, effect{}},
		"after it failed":      {func(b *behaviour) { b.failAfter = 10 }, "/", 10, effect{fails: true}},
		"while it warms up":    {func(b *behaviour) { b.warmUp, b.warmUpLatency = 10, 3 }, "/", 9, effect{delay: 3}},
		"after it warmed up":   {func(b *behaviour) { b.warmUp, b.warmUpLatency = 10, 3 }, "/", 10, effect{}},
		"a path that fails":    {func(b *behaviour) { b.errorOnPath = "/pay" }, "/pay/1", 0, effect{fails: true}},
		"a path that does not": {func(b *behaviour) { b.errorOnPath = "/pay" }, "/", 0, effect{}},
	} {
		t.Run(name, func(t *testing.T) {
			b := defaultBehaviour()
			c.set(&b)
			if got := b.effect(c.path, c.age, draw); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestReadinessFollowsItsSettings(t *testing.T) {
	b := defaultBehaviour()
	b.readyAfter = time.Second
	if b.ready(0) || !b.ready(time.Second) {
		t.Error("ready-after is not kept")
	}
	b.neverReady = true
	if b.ready(time.Hour) {
		t.Error("never-ready is not kept")
	}
}

func TestSettingsComeFromTheEnvironmentAndFlagsWin(t *testing.T) {
	env := map[string]string{"VERSION": "v2", "ERROR_RATE": "0.3", "LATENCY": "5ms", "EXIT_ON_TERM": "now"}
	lookup := func(name string) (string, bool) { value, found := env[name]; return value, found }
	s, b, err := parseSettings([]string{"--role", "cart", "--error-rate", "0.1"}, lookup)
	if err != nil || s.version != "v2" || b.errorRate != 0.1 || b.latency != 5*time.Millisecond || s.exitOnTerm != "now" {
		t.Errorf("%v %+v %+v", err, s, b)
	}
	env["ERROR_RATE"] = "3"
	if _, _, err := parseSettings([]string{"--role", "cart"}, lookup); err == nil {
		t.Error("an error rate of 3 was taken")
	}
	if _, _, err := parseSettings([]string{"--role", "till"}, lookup); err == nil {
		t.Error("an unknown role was taken")
	}
}

func TestBehaviourCanBeChangedWhileItRuns(t *testing.T) {
	address := testService(t, "stock", "", "", defaultBehaviour())
	c := testCaller(t, address, callerOptions{timeout: time.Second})
	if a := c.call("POST", "/behaviour?error-rate=1&ERROR_STATUS=503", nil, nil); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := c.call("GET", "/", nil, nil); a.status != 503 || a.header.Get(headerVersion) != "v1" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := c.call("POST", "/behaviour?error-rate=7", nil, nil); a.status != 400 {
		t.Errorf("an error rate of 7: %d", a.status)
	}
	if a := c.call("GET", "/healthz", nil, nil); a.status != 200 {
		t.Errorf("/healthz: %d", a.status)
	}
}

func TestTheGeneratorStopsAtItsCountAndAtItsDuration(t *testing.T) {
	address := testService(t, "stock", "", "", defaultBehaviour())
	for name, c := range map[string]struct {
		args        []string
		least, most int64
	}{
		"count":    {[]string{"--count", "30", "--duration", "5s"}, 30, 30},
		"duration": {[]string{"--duration", "200ms"}, 1, 100},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := parsePlan(append(c.args, "--url", address, "--rate", "500", "--listen", ""))
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(context.Background(), p.duration)
			defer stop()
			g := &generator{plan: p, report: &report{}, caller: newCaller(p.target, p.caller), changed: make(chan struct{}, 1), stop: stop}
			g.run(ctx)
			got := g.state(time.Time{}, time.Time{})
			if got.Requests < c.least || got.Requests > c.most || got.Good != got.Requests || got.Running {
				t.Errorf("%d requests, %d good, running %v", got.Requests, got.Good, got.Running)
			}
		})
	}
}

func TestALoadWithoutBoundsIsRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"no rate":     {"--url", "http://x/", "--duration", "1s"},
		"no duration": {"--url", "http://x/", "--rate", "1"},
		"too fast":    {"--url", "http://x/", "--rate", "2001", "--duration", "1s"},
		"too long":    {"--url", "http://x/", "--rate", "1", "--duration", "61m"},
		"no address":  {"--rate", "1", "--duration", "1s"},
		"not plain":   {"--url", "https://x/", "--rate", "1", "--duration", "1s"},
	} {
		if _, err := parsePlan(args); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestAServiceWithAFallbackDoesWithoutTheNextOneAndOneWithRetriesCallsAgain(t *testing.T) {
	broken := defaultBehaviour()
	broken.errorRate, broken.errorStatus = 1, 503
	stock := testService(t, "stock", "", "", broken)
	for name, c := range map[string]struct {
		change string
		status int
	}{"plain": {"", 503}, "fallback": {"fallback=true", 200}, "retries": {"call-retries=2", 503}} {
		t.Run(name, func(t *testing.T) {
			cart := testService(t, "cart", "stock", stock, defaultBehaviour())
			caller := testCaller(t, cart, callerOptions{timeout: time.Second})
			if a := caller.call("POST", "/behaviour?"+c.change, nil, nil); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if a := caller.call("GET", "/", nil, nil); a.status != c.status || a.header.Get(headerVersion) != "v1" {
				t.Errorf("%d %v", a.status, a.header)
			}
		})
	}
}
