package main

import (
	"net/http"
	"testing"
	"time"
)

func after(offset time.Duration) time.Time { return start.Add(offset) }

func TestAReportTellsOurFailuresFromTheApplications(t *testing.T) {
	r := &report{}
	for i := range 90 {
		r.add(sample{at: after(time.Duration(i) * 10 * time.Millisecond), version: "v1", outcome: "200", latency: time.Millisecond})
	}
	r.add(sample{at: after(1 * time.Second), version: "v3", outcome: "500", class: bad, latency: time.Millisecond})
	r.add(sample{at: after(3 * time.Second), version: "v3", outcome: "500", class: bad, latency: time.Millisecond})
	r.add(sample{at: after(4 * time.Second), version: noVersion, outcome: "reset", class: failed, message: "cut"})
	got := r.summarise(time.Time{}, time.Time{})
	if got.Requests != 93 || got.Good != 90 || got.Bad != 2 || got.Failed != 1 {
		t.Errorf("%d requests, %d good, %d bad, %d failed", got.Requests, got.Good, got.Bad, got.Failed)
	}
	v3 := got.Versions["v3"]
	if v3.LastBad-v3.FirstBad != 2 || v3.Bad != 2 {
		t.Errorf("v3 was bad from %v to %v, %d times", v3.FirstBad, v3.LastBad, v3.Bad)
	}
	if len(got.Failures) != 1 || got.Failures[0] != (failure{unix(after(4 * time.Second)), "reset", "cut"}) {
		t.Errorf("failures %v", got.Failures)
	}
	if want := (total{"v1", "200", 90}); got.Totals[1] != want || len(got.Totals) != 3 {
		t.Errorf("totals %v", got.Totals)
	}
	if len(got.Series) != 4 || got.Series[0].Counts[0].Count != 90 {
		t.Errorf("series %v", got.Series)
	}
}

func TestSinceAMarkMeansExactlyWhatCameAfterIt(t *testing.T) {
	r := &report{}
	r.add(sample{at: after(100 * time.Millisecond), version: "v1", outcome: "200"})
	r.add(sample{at: after(200 * time.Millisecond), version: noVersion, outcome: "reset", class: failed})
	since := moment(r.mark(after(300 * time.Millisecond)))
	r.add(sample{at: after(400 * time.Millisecond), version: "v2", outcome: "200"})
	until := moment(r.mark(after(500 * time.Millisecond)))
	r.add(sample{at: after(1500 * time.Millisecond), version: "v2", outcome: "200"})
	if got := r.summarise(since, time.Time{}); got.Requests != 2 || got.Failed != 0 || len(got.Failures) != 0 {
		t.Errorf("since the mark: %d requests, %d failed, %v", got.Requests, got.Failed, got.Failures)
	}
	if got := r.summarise(since, until); got.Requests != 1 {
		t.Errorf("between the marks: %d requests, want 1", got.Requests)
	}
}

func TestAQuantileIsAtMostEightPercentTooHigh(t *testing.T) {
	r := &report{}
	for i := 1; i <= 1000; i++ {
		r.add(sample{at: start, version: "v1", outcome: "200", latency: time.Duration(i) * time.Millisecond})
	}
	latency := r.summarise(time.Time{}, time.Time{}).Versions["v1"].Latency
	for name, want := range map[string]float64{"p50": 500, "p90": 900, "p99": 990, "max": 1000} {
		if got := latency[name]; got < want || got > want*1.08 {
			t.Errorf("%s is %v ms, want %v to %v", name, got, want, want*1.08)
		}
	}
}

func TestTheFailureListIsBounded(t *testing.T) {
	r := &report{}
	for i := range 3000 {
		r.add(sample{at: after(time.Duration(i) * time.Millisecond), version: noVersion, outcome: "reset", class: failed})
	}
	if got := r.summarise(time.Time{}, time.Time{}); got.Failed != 3000 || len(got.Failures) != shownFailures {
		t.Errorf("%d failed, %d listed", got.Failed, len(got.Failures))
	}
}

func TestAnAnswerIsJudgedByWhoGaveIt(t *testing.T) {
	shop := func(version, chain string) http.Header {
		h := http.Header{}
		h.Set(headerVersion, version)
		h.Set(headerChain, chain)
		return h
	}
	for name, c := range map[string]struct {
		answer  answer
		of      string
		version string
		outcome string
		class   class
	}{
		"the application is well":         {answer{status: 200, header: shop("v1", "")}, "", "v1", "200", good},
		"the application fails":           {answer{status: 500, header: shop("v3", "")}, "", "v3", "500", bad},
		"the application says 503 itself": {answer{status: 503, header: shop("v3", "")}, "", "v3", "503", bad},
		"a proxy answers":                 {answer{status: 503, header: http.Header{}}, "", noVersion, "503", failed},
		"a proxy has no route":            {answer{status: 404, header: http.Header{}}, "", noVersion, "404", failed},
		"the service behind fails": {
			answer{status: 500, header: shop("v1", "front=v1, cart=v3")}, "cart", "v3", "500", bad,
		},
		"a call behind is lost": {
			answer{status: 503, header: http.Header{headerLost: {"cart: 503"}}}, "cart", noVersion, "503", failed,
		},
		"gRPC fails in the trailers": {
			answer{status: 200, header: shop("v2", ""), trailer: http.Header{"Grpc-Status": {"14"}}}, "", "v2", "grpc-14", bad,
		},
		"gRPC fails without the application": {
			answer{status: 200, header: http.Header{"Grpc-Status": {"14"}}}, "", noVersion, "200", failed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := judge(c.answer, c.of)
			if got.version != c.version || got.outcome != c.outcome || got.class != c.class {
				t.Errorf("version %q, outcome %q, class %d", got.version, got.outcome, got.class)
			}
		})
	}
}
