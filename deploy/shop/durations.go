package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// durationEdges are the upper edges of the buckets, as Prometheus' own clients have them by default.
var durationEdges = [...]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// durations counts how long something took; its zero value is ready to use.
type durations struct {
	counts [len(durationEdges) + 1]atomic.Int64
	sum    atomic.Int64
}

func (h *durations) observe(d time.Duration) {
	at := 0
	for at < len(durationEdges) && d.Seconds() > durationEdges[at] {
		at++
	}
	h.counts[at].Add(1)
	h.sum.Add(int64(d))
}

// write writes the histogram in Prometheus' text format.
func (h *durations) write(w io.Writer, name, labels string) {
	fmt.Fprintf(w, "# HELP %s How long answers took.\n# TYPE %s histogram\n", name, name)
	below := int64(0)
	for at, edge := range durationEdges {
		below += h.counts[at].Load()
		fmt.Fprintf(w, "%s_bucket{%s,le=\"%g\"} %d\n", name, labels, edge, below)
	}
	below += h.counts[len(durationEdges)].Load()
	fmt.Fprintf(w, "%s_bucket{%s,le=\"+Inf\"} %d\n", name, labels, below)
	fmt.Fprintf(w, "%s_sum{%s} %g\n%s_count{%s} %d\n", name, labels, time.Duration(h.sum.Load()).Seconds(), name, labels, below)
}
