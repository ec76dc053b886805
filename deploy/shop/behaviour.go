package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// behaviour says how well a service answers. It can be changed while the service runs: POST /behaviour?error-rate=0.5.
type behaviour struct {
	errorRate       float64
	errorStatus     int
	errorOnPath     string
	latency         time.Duration
	latencyJitter   time.Duration
	slowRate        float64
	slowBy          time.Duration
	failAfter       time.Duration
	warmUp          time.Duration
	warmUpErrorRate float64
	warmUpLatency   time.Duration
	grpcStatusRate  float64
	grpcStatus      int
	fallback        bool
	callRetries     int
	neverReady      bool
	readyAfter      time.Duration
}

func (b *behaviour) register(flags *flag.FlagSet) {
	flags.Float64Var(&b.errorRate, "error-rate", b.errorRate, "share of the answers that are errors, 0 to 1")
	flags.IntVar(&b.errorStatus, "error-status", b.errorStatus, "status of such an answer")
	flags.StringVar(&b.errorOnPath, "error-on-path", b.errorOnPath, "every answer to a path that begins so is an error")
	flags.DurationVar(&b.latency, "latency", b.latency, "every answer takes so long")
	flags.DurationVar(&b.latencyJitter, "latency-jitter", b.latencyJitter, "and up to so much longer, evenly spread")
	flags.Float64Var(&b.slowRate, "slow-rate", b.slowRate, "share of the answers that are slow, 0 to 1")
	flags.DurationVar(&b.slowBy, "slow-by", b.slowBy, "by how much these are slower")
	flags.DurationVar(&b.failAfter, "fail-after", b.failAfter, "from so long after the start every answer is an error; 0: never")
	flags.DurationVar(&b.warmUp, "warm-up", b.warmUp, "for so long after the start the service is not at its best")
	flags.Float64Var(&b.warmUpErrorRate, "warm-up-error-rate", b.warmUpErrorRate, "share of errors in that time")
	flags.DurationVar(&b.warmUpLatency, "warm-up-latency", b.warmUpLatency, "by how much answers are slower in that time")
	flags.Float64Var(&b.grpcStatusRate, "grpc-status-rate", b.grpcStatusRate, "share of the gRPC answers that are failures")
	flags.IntVar(&b.grpcStatus, "grpc-status", b.grpcStatus, "gRPC status of such an answer")
	flags.BoolVar(&b.fallback, "fallback", b.fallback, "do without the next service when a call of it fails")
	flags.IntVar(&b.callRetries, "call-retries", b.callRetries, "how often a failed call of it is made again, 0 to 10")
	flags.BoolVar(&b.neverReady, "never-ready", b.neverReady, "/healthz always fails")
	flags.DurationVar(&b.readyAfter, "ready-after", b.readyAfter, "/healthz fails for so long after the start")
}

func defaultBehaviour() behaviour {
	return behaviour{
		errorStatus: http.StatusInternalServerError, grpcStatus: 14, slowBy: time.Second,
		warmUpErrorRate: 0.2, warmUpLatency: 200 * time.Millisecond,
	}
}

// changed returns the behaviour with the settings that a query names.
func (b behaviour) changed(query url.Values) (behaviour, error) {
	flags := flag.NewFlagSet("behaviour", flag.ContinueOnError)
	b.register(flags)
	for name, values := range query {
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if err := flags.Set(name, values[len(values)-1]); err != nil {
			return b, fmt.Errorf("%s: %w", name, err)
		}
	}
	return b, b.check()
}

func (b behaviour) check() error {
	for name, rate := range map[string]float64{
		"error-rate": b.errorRate, "slow-rate": b.slowRate, "warm-up-error-rate": b.warmUpErrorRate,
		"grpc-status-rate": b.grpcStatusRate,
	} {
		if !(rate >= 0 && rate <= 1) {
			return fmt.Errorf("%s is %v; write a number from 0 to 1", name, rate)
		}
	}
	if b.errorStatus < 400 || b.errorStatus > 599 {
		return fmt.Errorf("error-status is %d; write a status from 400 to 599", b.errorStatus)
	}
	if b.callRetries < 0 || b.callRetries > 10 {
		return fmt.Errorf("call-retries is %d; write a number from 0 to 10", b.callRetries)
	}
	return nil
}

// effect is what one request meets.
type effect struct {
	delay time.Duration
	fails bool
}

// effect decides for one request; age is how long the service has run, draw gives numbers from 0 to below 1.
func (b behaviour) effect(path string, age time.Duration, draw func() float64) effect {
	e := effect{delay: b.latency}
	if b.latencyJitter > 0 {
		e.delay += time.Duration(draw() * float64(b.latencyJitter))
	}
	if draw() < b.slowRate {
		e.delay += b.slowBy
	}
	rate := b.errorRate
	if age < b.warmUp {
		e.delay += b.warmUpLatency
		rate = max(rate, b.warmUpErrorRate)
	}
	e.fails = draw() < rate ||
		b.errorOnPath != "" && strings.HasPrefix(path, b.errorOnPath) ||
		b.failAfter > 0 && age >= b.failAfter
	return e
}

func (b behaviour) ready(age time.Duration) bool { return !b.neverReady && age >= b.readyAfter }

func randomNumber() float64 { return rand.Float64() }
