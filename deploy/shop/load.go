package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	headerVersion = "X-Shop-Version"
	headerPod     = "X-Shop-Pod"
	// headerChain lists who took part in an answer: "front=v1, cart=v2, stock=v1".
	headerChain = "X-Shop-Chain"
	// headerLost tells, in an answer without a version, which call of the application nobody answered.
	headerLost = "X-Shop-Lost"
	// headerFault is on an answer that was made to fail on purpose.
	headerFault = "X-Serinus-Fault"
)

// plan is what the load generator is asked to do.
type plan struct {
	target      *url.URL
	rate        float64
	duration    time.Duration
	count       int64
	method      string
	header      http.Header
	body        []byte
	concurrency int
	versionOf   string
	caller      callerOptions
	listen      string
	exit        bool
}

func parsePlan(args []string) (plan, error) {
	p := plan{header: http.Header{"User-Agent": {"shop-load"}}}
	flags := flag.NewFlagSet("shop load", flag.ContinueOnError)
	address := flags.String("url", "", "what is requested, for example http://front/ (needed)")
	flags.Float64Var(&p.rate, "rate", -1, "requests per second, at most 2000; 0 waits for POST /rate (needed)")
	flags.DurationVar(&p.duration, "duration", 0, "for how long, at most 1h (needed)")
	flags.Int64Var(&p.count, "count", 0, "most requests; 0 means what the duration allows")
	flags.StringVar(&p.method, "method", http.MethodGet, "HTTP method")
	flags.Func("header", "a header, as name=value; may be given several times", func(text string) error {
		name, value, found := strings.Cut(text, "=")
		if !found || name == "" {
			return fmt.Errorf("%q is not a header; write name=value", text)
		}
		p.header.Add(name, value)
		return nil
	})
	body := flags.String("body", "", "body of each request")
	flags.IntVar(&p.concurrency, "concurrency", 256, "most requests at one time; what comes on top is not sent, and counted")
	flags.StringVar(&p.versionOf, "version-of", "", "whose version counts: cart, say; else that of the one who answers")
	flags.DurationVar(&p.caller.timeout, "timeout", 5*time.Second, "for each request")
	flags.BoolVar(&p.caller.http2, "http2", false, "speak h2c")
	grpc := flags.Bool("grpc", false, "send gRPC requests: h2c, POST, an empty message")
	connections := flags.String("connections", "keep-alive", "keep-alive, or fresh for one connection per request")
	flags.StringVar(&p.listen, "listen", ":9100", "where the report is served; empty: nowhere")
	flags.BoolVar(&p.exit, "exit", false, "end when the duration has passed, instead of serving the report on")
	if err := flags.Parse(args); err != nil {
		return p, err
	}
	p.body = []byte(*body)
	p.caller.keepAlive = *connections == "keep-alive"
	if *grpc {
		p.caller.http2, p.method, p.body = true, http.MethodPost, make([]byte, 5)
		p.header.Set("Content-Type", "application/grpc")
		p.header.Set("Te", "trailers")
	}
	target, err := url.Parse(*address)
	p.target = target
	switch {
	case err != nil || target.Scheme != "http" || target.Host == "":
		return p, fmt.Errorf("--url is %q; write an http:// address, for example http://front/", *address)
	case p.rate < 0 || p.rate > fastestRate:
		return p, fmt.Errorf("--rate is needed: requests per second, from 0 to %v", fastestRate)
	case p.duration <= 0 || p.duration > longestDuration:
		return p, fmt.Errorf("--duration is needed: at most %v, for example 5m", longestDuration)
	case p.caller.timeout <= 0 || p.caller.timeout > time.Minute:
		return p, errors.New("--timeout is more than 0 and at most 1m")
	case p.concurrency < 1 || p.concurrency > 2000:
		return p, errors.New("--concurrency is from 1 to 2000")
	case *connections != "keep-alive" && *connections != "fresh":
		return p, fmt.Errorf("--connections is %q; write keep-alive or fresh", *connections)
	}
	if most := int64(fastestRate * p.duration.Seconds()); p.count <= 0 || p.count > most {
		p.count = most
	}
	return p, nil
}

// generator sends the load and records what came of it.
type generator struct {
	plan    plan
	pace    *pace
	report  *report
	caller  caller
	changed chan struct{} // the rate is another one
	stop    context.CancelFunc

	mu                sync.Mutex
	started, finished time.Time
	sent              int64
}

func load(args []string) error {
	p, err := parsePlan(args)
	if err != nil {
		return err
	}
	terminated, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer release()
	running, stop := context.WithTimeout(terminated, p.duration)
	defer stop()
	g := &generator{
		plan: p, report: &report{}, caller: newCaller(p.target, p.caller), changed: make(chan struct{}, 1), stop: stop,
	}
	if p.listen != "" {
		listener, err := net.Listen("tcp", p.listen)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: g.routes(), ReadHeaderTimeout: 10 * time.Second}
		go server.Serve(listener)
		defer server.Close()
	}
	slog.Info("load begins", "url", p.target.String(), "rate", p.rate, "duration", p.duration.String())
	g.run(running)
	if err := json.NewEncoder(os.Stdout).Encode(g.state(time.Time{}, time.Time{})); err != nil {
		return err
	}
	if !p.exit && p.listen != "" {
		<-terminated.Done()
	}
	return nil
}

// run sends requests until the context ends or all are sent, and waits for the answers.
func (g *generator) run(ctx context.Context) {
	now := time.Now()
	g.mu.Lock()
	g.started = now
	g.pace = newPace(now, g.plan.rate)
	g.mu.Unlock()
	tickets := make(chan struct{}, g.plan.concurrency)
	var workers sync.WaitGroup
	for range g.plan.concurrency {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for range tickets {
				g.once()
			}
		}()
	}
	timer := time.NewTimer(0)
	for left := g.plan.count; left > 0 && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			continue
		case <-g.changed:
		case <-timer.C:
		}
		now := time.Now()
		due, late := g.pace.take(now)
		for due = min(due, left); due > 0; due-- {
			select {
			case tickets <- struct{}{}:
				left--
			default:
				late++
			}
		}
		if late > 0 {
			g.report.late(now, late)
		}
		timer.Reset(max(g.pace.wait(now), 500*time.Microsecond))
	}
	close(tickets)
	workers.Wait()
	g.mu.Lock()
	g.finished = time.Now()
	g.mu.Unlock()
}

// once sends one request and records what came of it.
func (g *generator) once() {
	sent := time.Now()
	result := g.caller.call(g.plan.method, g.plan.target.RequestURI(), g.plan.header, g.plan.body)
	s := judge(result, g.plan.versionOf)
	s.at = time.Now()
	s.latency = s.at.Sub(sent)
	g.report.add(s)
}

// judge tells whose version answered and how. An error status without a version was not sent by the application: the
// application marks every answer of its own.
func judge(a answer, versionOf string) sample {
	if a.err != nil {
		return sample{version: noVersion, outcome: kindOf(a.err), message: a.err.Error(), class: failed}
	}
	s := sample{version: a.header.Get(headerVersion), outcome: strconv.Itoa(a.status)}
	if s.version != "" && versionOf != "" {
		s.version = versionIn(a.header.Get(headerChain), versionOf)
	}
	code := a.trailer.Get("Grpc-Status")
	if code == "" {
		code = a.header.Get("Grpc-Status")
	}
	switch {
	case s.version == "" && (a.status >= 400 || code != "" && code != "0"):
		s.class, s.message = failed, reasonIn(a)
	case a.status >= 500:
		s.class = bad
	case code != "" && code != "0":
		s.class, s.outcome = bad, "grpc-"+code
	}
	if s.version == "" {
		s.version = noVersion
	}
	return s
}

// versionIn finds a service's version in "front=v1, cart=v2".
func versionIn(chain, service string) string {
	for _, link := range strings.Split(chain, ",") {
		if name, version, found := strings.Cut(strings.TrimSpace(link), "="); found && name == service {
			return version
		}
	}
	return ""
}

func reasonIn(a answer) string {
	if lost := a.header.Get(headerLost); lost != "" {
		return lost
	}
	text := strings.TrimSpace(string(a.body))
	return fmt.Sprintf("%d without a version: %.200s", a.status, text)
}

// state is what /report answers: the summary, and how the generator stands.
type state struct {
	URL      string  `json:"url"`
	Rate     float64 `json:"rate"`
	Running  bool    `json:"running"`
	Now      float64 `json:"now"`
	Started  float64 `json:"started_at"`
	Finished float64 `json:"finished_at,omitempty"`
	Since    float64 `json:"since,omitempty"`
	Until    float64 `json:"until,omitempty"`
	summary
}

func (g *generator) state(since, until time.Time) state {
	g.mu.Lock()
	started, finished, pace := g.started, g.finished, g.pace
	g.mu.Unlock()
	s := state{
		URL: g.plan.target.String(), Running: finished.IsZero(), Now: unix(time.Now()), Started: unix(started),
		Finished: unix(finished), Since: unix(since), Until: unix(until), summary: g.report.summarise(since, until),
	}
	if s.Running && pace != nil {
		s.Rate = pace.current()
	}
	return s
}

func (g *generator) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		since, err := momentIn(r, "since")
		until, err2 := momentIn(r, "until")
		if err = errors.Join(err, err2); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		respond(w, http.StatusOK, g.state(since, until))
	})
	mux.HandleFunc("POST /mark", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]float64{"since": g.report.mark(time.Now())})
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, _ *http.Request) {
		g.stop()
		respond(w, http.StatusOK, map[string]bool{"stopped": true})
	})
	mux.HandleFunc("POST /rate", g.changeRate)
	return mux
}

func (g *generator) changeRate(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	pace, finished := g.pace, !g.finished.IsZero()
	g.mu.Unlock()
	rate, err := strconv.ParseFloat(r.FormValue("value"), 64)
	switch {
	case err != nil:
		err = fmt.Errorf("value is %q; write requests per second, for example /rate?value=100", r.FormValue("value"))
	case finished || pace == nil:
		err = errors.New("the load has ended; start the generator again")
	default:
		err = pace.setRate(time.Now(), rate)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case g.changed <- struct{}{}:
	default:
	}
	respond(w, http.StatusOK, map[string]float64{"rate": rate})
}

// momentIn reads a time in seconds since 1970 from the query; the zero time when it is not there.
func momentIn(r *http.Request, name string) (time.Time, error) {
	text := r.FormValue(name)
	if text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s is %q; write seconds since 1970, as POST /mark returns them", name, text)
	}
	return moment(seconds), nil
}

func respond(w http.ResponseWriter, status int, content any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(content)
}
