package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// service is one of the shop's three services.
type service struct {
	name, version, pod string
	upstream           string // name of the service that it calls; empty for the last one
	caller             caller
	started            time.Time
	behaviour          atomic.Pointer[behaviour]
	draining           atomic.Bool
	answers, errors    atomic.Int64
	durations          durations
}

// calls tells who calls whom, and which variable holds the address.
var calls = map[string]struct{ upstream, variable string }{
	"front": {"cart", "CART_URL"},
	"cart":  {"stock", "STOCK_URL"},
	"stock": {},
}

// settings of a service that cannot change while it runs.
type settings struct {
	role, version, pod, listen string
	upstreamHTTP2              bool
	callTimeout                time.Duration
	crashAfter                 time.Duration
	exitOnTerm                 string
	drainTimeout               time.Duration
}

func parseSettings(args []string, environment func(string) (string, bool)) (settings, behaviour, error) {
	s, b := settings{}, defaultBehaviour()
	flags := flag.NewFlagSet("shop serve", flag.ContinueOnError)
	flags.StringVar(&s.role, "role", "", "front, cart or stock (needed)")
	flags.StringVar(&s.version, "version", build, "what the service says that it is")
	flags.StringVar(&s.pod, "pod-name", "", "name of the pod, for the answers; else the host's name")
	flags.StringVar(&s.listen, "listen", ":8080", "where it serves")
	flags.BoolVar(&s.upstreamHTTP2, "upstream-http2", false, "call the next service by h2c")
	flags.DurationVar(&s.callTimeout, "call-timeout", 3*time.Second, "for a call of the next service")
	flags.DurationVar(&s.crashAfter, "crash-after", 0, "exit with status 1 so long after the start; 0: never")
	flags.StringVar(&s.exitOnTerm, "exit-on-term", "drain", "on SIGTERM: now, or drain to finish requests first")
	flags.DurationVar(&s.drainTimeout, "drain-timeout", 20*time.Second, "longest time for that")
	b.register(flags)
	var wrong error
	flags.VisitAll(func(f *flag.Flag) {
		name := strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, found := environment(name); found && value != "" {
			if err := f.Value.Set(value); err != nil {
				wrong = fmt.Errorf("%s is %q: %w", name, value, err)
			}
		}
	})
	if err := errors.Join(wrong, flags.Parse(args)); err != nil {
		return s, b, err
	}
	if _, found := calls[s.role]; !found {
		return s, b, fmt.Errorf("--role is %q; write front, cart or stock", s.role)
	}
	if s.exitOnTerm != "now" && s.exitOnTerm != "drain" {
		return s, b, fmt.Errorf("--exit-on-term is %q; write now or drain", s.exitOnTerm)
	}
	if s.pod == "" {
		s.pod, _ = os.Hostname()
	}
	return s, b, b.check()
}

func serve(args []string) error {
	s, b, err := parseSettings(args, os.LookupEnv)
	if err != nil {
		return err
	}
	shop := &service{name: s.role, version: s.version, pod: s.pod, started: time.Now()}
	shop.behaviour.Store(&b)
	if next := calls[s.role]; next.upstream != "" {
		address := os.Getenv(next.variable)
		if address == "" {
			address = "http://" + next.upstream
		}
		base, err := url.Parse(address)
		if err != nil || base.Scheme != "http" || base.Host == "" {
			return fmt.Errorf("%s is %q; write an address such as http://%s", next.variable, address, next.upstream)
		}
		shop.upstream = next.upstream
		shop.caller = newCaller(base, callerOptions{timeout: s.callTimeout, http2: s.upstreamHTTP2, keepAlive: true})
	}
	if s.crashAfter > 0 {
		time.AfterFunc(s.crashAfter, func() {
			slog.Error("crash, as asked for by crash-after")
			os.Exit(1)
		})
	}
	server := &http.Server{Addr: s.listen, Handler: shop.routes(), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	server.ReadHeaderTimeout = 10 * time.Second
	finished := make(chan error, 1)
	go func() { finished <- shop.untilTerminated(server, s) }()
	slog.Info("serving", "role", s.role, "version", s.version, "listen", s.listen)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-finished
}

// untilTerminated waits for SIGTERM and then ends the server in the way that was asked for.
func (s *service) untilTerminated(server *http.Server, how settings) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	slog.Info("told to end", "signal", (<-signals).String(), "exit-on-term", how.exitOnTerm)
	if how.exitOnTerm == "now" {
		os.Exit(0)
	}
	s.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), how.drainTimeout)
	defer cancel()
	return server.Shutdown(ctx)
}

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.page)
	mux.HandleFunc("/grpc.test/", s.grpc)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() || !s.behaviour.Load().ready(time.Since(s.started)) {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("POST /behaviour", func(w http.ResponseWriter, r *http.Request) {
		next, err := s.behaviour.Load().changed(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.behaviour.Store(&next)
		slog.Info("behaviour changed", "to", r.URL.RawQuery)
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("POST /crash", func(http.ResponseWriter, *http.Request) {
		slog.Error("crash, as asked for")
		os.Exit(1)
	})
	return mux
}

// metrics are the service's own, in Prometheus' text format.
func (s *service) metrics(w http.ResponseWriter, _ *http.Request) {
	labels := fmt.Sprintf("{service=%q,version=%q}", s.name, s.version)
	fmt.Fprintf(w, "# HELP shop_answers_total Answers of this service.\n# TYPE shop_answers_total counter\n")
	fmt.Fprintf(w, "shop_answers_total%s %d\n", labels, s.answers.Load())
	fmt.Fprintf(w, "# HELP shop_failed_answers_total Answers that were errors of this service's own.\n")
	fmt.Fprintf(w, "# TYPE shop_failed_answers_total counter\nshop_failed_answers_total%s %d\n", labels, s.errors.Load())
	s.durations.write(w, "shop_answer_duration_seconds", fmt.Sprintf("service=%q,version=%q", s.name, s.version))
}

// passedOn are the headers that keep one request together across services.
var passedOn = []string{
	"Traceparent", "Tracestate", "Baggage", "X-Request-Id", "B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid",
	"X-B3-Sampled", "X-B3-Flags", "X-Ot-Span-Context", "Cookie", "X-User",
}

// page is the body of an answer.
type page struct {
	Service  string          `json:"service"`
	Version  string          `json:"version"`
	Pod      string          `json:"pod"`
	Path     string          `json:"path"`
	Method   string          `json:"method"`
	Protocol string          `json:"protocol"`
	Error    string          `json:"error,omitempty"`
	Fallback bool            `json:"fallback,omitempty"`
	Upstream json.RawMessage `json:"upstream,omitempty"`
}

func (s *service) page(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	b := s.behaviour.Load()
	e := b.effect(r.URL.Path, time.Since(s.started), randomNumber)
	if !pause(r.Context(), e.delay) {
		return
	}
	s.answers.Add(1)
	defer func() { s.durations.observe(time.Since(begun)) }()
	body := page{Service: s.name, Version: s.version, Pod: s.pod, Path: r.URL.Path, Method: r.Method, Protocol: r.Proto}
	chain, status, lost := s.name+"="+s.version, http.StatusOK, ""
	if e.fails {
		s.errors.Add(1)
		status, body.Error = b.errorStatus, s.name+" failed"
	} else if s.upstream != "" {
		var below answer
		below, lost = s.ask(r)
		for again := 0; again < b.callRetries && wentWrong(below); again++ {
			below, lost = s.ask(r)
		}
		if b.fallback && wentWrong(below) {
			lost = ""
			body.Fallback = true
		} else if below.status >= 500 {
			status, body.Error = below.status, s.upstream+" failed"
		}
		if json.Valid(below.body) {
			body.Upstream = below.body
		}
		if links := below.header.Get(headerChain); links != "" {
			chain += ", " + links
		}
	}
	if lost != "" {
		// Whoever counts must see that the application did not choose this answer.
		w.Header().Set(headerLost, lost)
		respond(w, max(status, http.StatusBadGateway), body)
		return
	}
	w.Header().Set(headerVersion, s.version)
	w.Header().Set(headerPod, s.pod)
	w.Header().Set(headerChain, chain)
	respond(w, status, body)
}

func wentWrong(below answer) bool { return below.err != nil || below.status >= 500 }

// ask calls the next service for the same path. lost says, when it was not the application that answered, what
// happened instead.
func (s *service) ask(r *http.Request) (below answer, lost string) {
	header := http.Header{}
	for _, name := range passedOn {
		if values := r.Header[name]; len(values) > 0 {
			header[name] = values
		}
	}
	below = s.caller.call(r.Method, r.URL.RequestURI(), header, nil)
	switch {
	case below.err != nil:
		lost = fmt.Sprintf("%s: %s: %v", s.upstream, kindOf(below.err), below.err)
	case below.header.Get(headerLost) != "":
		lost = below.header.Get(headerLost)
	case below.header.Get(headerFault) != "": // on purpose, so nothing is lost
	case below.header.Get(headerVersion) == "" && below.status >= 400:
		lost = fmt.Sprintf("%s: %d without a version: %.200s", s.upstream, below.status, below.body)
	}
	return below, lost
}

// grpc answers as a gRPC server would: status 200, one empty message, and the outcome in the trailers.
func (s *service) grpc(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	b := s.behaviour.Load()
	e := b.effect(r.URL.Path, time.Since(s.started), randomNumber)
	if !pause(r.Context(), e.delay) {
		return
	}
	s.answers.Add(1)
	defer func() { s.durations.observe(time.Since(begun)) }()
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	w.Header().Set(headerVersion, s.version)
	w.Header().Set(headerPod, s.pod)
	w.Header().Set(headerChain, s.name+"="+s.version)
	w.WriteHeader(http.StatusOK)
	code := 0
	if e.fails || randomNumber() < b.grpcStatusRate {
		s.errors.Add(1)
		code = b.grpcStatus
		w.Header().Set("Grpc-Message", s.name+" failed")
	} else {
		w.Write(make([]byte, 5))
	}
	w.Header().Set("Grpc-Status", strconv.Itoa(code))
}

// pause waits; it returns false when the caller has gone.
func pause(ctx context.Context, delay time.Duration) bool {
	if delay <= 0 {
		return true
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
