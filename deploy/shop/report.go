package main

import (
	"math"
	"sort"
	"sync"
	"time"
)

// class says whose fault an answer is.
type class int

const (
	good   class = iota // the application answered, and well
	bad                 // the application answered 5xx, or a gRPC status other than 0
	failed              // nobody, or not the application, answered: the fault of what is between it and the caller
)

// sample is what came of one request.
type sample struct {
	at      time.Time // when the answer, or the error, was there
	version string    // of the service that is looked at; "none" when it is not known
	outcome string    // a status code, grpc-N, or a word for the error
	message string    // for failed ones: what went wrong
	class   class
	latency time.Duration
}

// A report counts samples in slots: one for each second, and a new one at each mark, so that a part of the time can be
// asked for exactly.
type report struct {
	mu       sync.Mutex
	slots    []*slot
	failures []failure
}

type slot struct {
	start    time.Time
	late     int64
	counts   map[outcomeKey]int64
	versions map[string]*versionCounts
}

type outcomeKey struct{ version, outcome string }

type versionCounts struct {
	requests, bad, failed          int64
	first, last, firstBad, lastBad time.Time
	latencies                      histogram
	longest                        time.Duration
}

type failure struct {
	At      float64 `json:"at"`
	Outcome string  `json:"outcome"`
	Error   string  `json:"error"`
}

const (
	keptFailures  = 1000 // the first ones of the whole time
	shownFailures = 100
)

// add counts one sample.
func (r *report) add(s sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	into := r.at(s.at)
	into.counts[outcomeKey{s.version, s.outcome}]++
	v := into.versions[s.version]
	if v == nil {
		v = &versionCounts{}
		into.versions[s.version] = v
	}
	v.requests++
	widen(&v.first, &v.last, s.at)
	switch s.class {
	case bad:
		v.bad++
		widen(&v.firstBad, &v.lastBad, s.at)
	case failed:
		v.failed++
		widen(&v.firstBad, &v.lastBad, s.at)
		if len(r.failures) < keptFailures {
			r.failures = append(r.failures, failure{unix(s.at), s.outcome, s.message})
		}
	}
	v.latencies.add(s.latency)
	v.longest = max(v.longest, s.latency)
}

// late counts n requests that were due at now and were never sent.
func (r *report) late(now time.Time, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at(now).late += n
}

// mark begins a new slot and returns the moment that "since" takes to mean: everything answered after this call.
func (r *report) mark(now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	now = time.UnixMicro(now.UnixMicro())
	r.slots = append(r.slots, newSlot(now))
	return unix(now)
}

// at returns the slot that a moment belongs to: the last one, unless a second has passed.
func (r *report) at(now time.Time) *slot {
	second := now.Truncate(time.Second)
	if last := len(r.slots) - 1; last >= 0 && !r.slots[last].start.Before(second) {
		return r.slots[last]
	}
	r.slots = append(r.slots, newSlot(second))
	return r.slots[len(r.slots)-1]
}

func newSlot(start time.Time) *slot {
	return &slot{start: start, counts: map[outcomeKey]int64{}, versions: map[string]*versionCounts{}}
}

// summary is the report as JSON. Times are seconds since 1970, latencies milliseconds, shares percent.
type summary struct {
	Requests    int64                     `json:"requests"`
	Good        int64                     `json:"good"`
	Bad         int64                     `json:"bad_answers"`
	Failed      int64                     `json:"failed_by_us"`
	Late        int64                     `json:"not_sent"`
	Totals      []total                   `json:"totals"`
	Versions    map[string]versionSummary `json:"versions"`
	Failures    []failure                 `json:"failed"`
	FirstFailed float64                   `json:"first_failed_at,omitempty"`
	LastFailed  float64                   `json:"last_failed_at,omitempty"`
	Series      []second                  `json:"series"`
}

type total struct {
	Version string `json:"version"`
	Outcome string `json:"outcome"`
	Count   int64  `json:"count"`
}

type versionSummary struct {
	Requests int64              `json:"requests"`
	SharePct float64            `json:"share_pct"`
	Bad      int64              `json:"bad_answers"`
	First    float64            `json:"first_at"`
	Last     float64            `json:"last_at"`
	FirstBad float64            `json:"first_bad_at,omitempty"`
	LastBad  float64            `json:"last_bad_at,omitempty"`
	Latency  map[string]float64 `json:"latency_ms"`
}

type second struct {
	At     float64 `json:"at"`
	Counts []total `json:"counts"`
	Late   int64   `json:"not_sent,omitempty"`
}

// noVersion stands for answers that carry no version of the application.
const noVersion = "none"

// summarise adds up the slots that begin at since or later and before until. Zero times mean no bound.
func (r *report) summarise(since, until time.Time) summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	outside := func(at time.Time) bool { return at.Before(since) || (!until.IsZero() && !at.Before(until)) }
	out := summary{Failures: []failure{}, Totals: []total{}, Series: []second{}, Versions: map[string]versionSummary{}}
	counts := map[outcomeKey]int64{}
	versions := map[string]*versionCounts{}
	for _, s := range r.slots {
		if outside(s.start) {
			continue
		}
		out.Late += s.late
		for key, n := range s.counts {
			counts[key] += n
		}
		for name, v := range s.versions {
			if versions[name] == nil {
				versions[name] = &versionCounts{}
			}
			versions[name].merge(v)
		}
		out.Series = append(out.Series, second{unix(s.start), totals(s.counts), s.late})
	}
	out.Totals = totals(counts)
	for _, v := range versions {
		out.Requests += v.requests
		out.Bad += v.bad
		out.Failed += v.failed
	}
	out.Good = out.Requests - out.Bad - out.Failed
	for name, v := range versions {
		out.Versions[name] = v.summary(out.Requests)
	}
	if none := versions[noVersion]; none != nil {
		out.FirstFailed, out.LastFailed = unix(none.firstBad), unix(none.lastBad)
	}
	for _, f := range r.failures {
		if !outside(moment(f.At)) && len(out.Failures) < shownFailures {
			out.Failures = append(out.Failures, f)
		}
	}
	return out
}

func totals(counts map[outcomeKey]int64) []total {
	out := make([]total, 0, len(counts))
	for key, n := range counts {
		out = append(out, total{key.version, key.outcome, n})
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Version != out[j].Version {
			return out[i].Version < out[j].Version
		}
		return out[i].Outcome < out[j].Outcome
	})
	return out
}

func (v *versionCounts) merge(other *versionCounts) {
	v.requests += other.requests
	v.bad += other.bad
	v.failed += other.failed
	widen(&v.first, &v.last, other.first)
	widen(&v.first, &v.last, other.last)
	widen(&v.firstBad, &v.lastBad, other.firstBad)
	widen(&v.firstBad, &v.lastBad, other.lastBad)
	v.latencies.merge(&other.latencies)
	v.longest = max(v.longest, other.longest)
}

func (v *versionCounts) summary(all int64) versionSummary {
	latency := map[string]float64{"max": milliseconds(v.longest)}
	for name, share := range map[string]float64{"p50": .5, "p90": .9, "p95": .95, "p99": .99, "p999": .999} {
		latency[name] = milliseconds(min(v.latencies.quantile(share), v.longest))
	}
	return versionSummary{
		Requests: v.requests, SharePct: rounded(100 * float64(v.requests) / float64(all)), Bad: v.bad,
		First: unix(v.first), Last: unix(v.last), FirstBad: unix(v.firstBad), LastBad: unix(v.lastBad), Latency: latency,
	}
}

// widen makes the span from first to last hold at. A zero moment changes nothing.
func widen(first, last *time.Time, at time.Time) {
	if at.IsZero() {
		return
	}
	if first.IsZero() || at.Before(*first) {
		*first = at
	}
	if at.After(*last) {
		*last = at
	}
}

func unix(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return float64(at.UnixMicro()) / 1e6
}

// moment is the inverse of unix, to the microsecond.
func moment(seconds float64) time.Time { return time.UnixMicro(int64(math.Round(seconds * 1e6))) }

func milliseconds(d time.Duration) float64 { return rounded(float64(d) / float64(time.Millisecond)) }

func rounded(number float64) float64 { return math.Round(number*1000) / 1000 }

// histogram counts latencies in buckets that each end 8 % above the one before, from 50 µs to two minutes.
type histogram struct{ counts [bucketCount]uint32 }

const (
	bucketCount  = 192
	firstBucket  = 50 * time.Microsecond
	bucketGrowth = 1.08
)

func (h *histogram) add(latency time.Duration) {
	index := int(math.Ceil(math.Log(float64(max(latency, firstBucket))/float64(firstBucket)) / math.Log(bucketGrowth)))
	h.counts[min(index, bucketCount-1)]++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
}

// quantile returns a latency that the given share of the requests did not exceed; at most 8 % too high.
func (h *histogram) quantile(share float64) time.Duration {
	var all uint64
	for _, n := range h.counts {
		all += uint64(n)
	}
	if all == 0 {
		return 0
	}
	wanted := uint64(math.Ceil(share * float64(all)))
	var seen uint64
	for i, n := range h.counts {
		if seen += uint64(n); seen >= wanted {
			return time.Duration(float64(firstBucket) * math.Pow(bucketGrowth, float64(i)))
		}
	}
	return 0
}
