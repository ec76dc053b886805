package main

import (
	"strings"
	"testing"
	"time"
)

func TestDurationsAreCumulativeAndAllAreBelowInfinity(t *testing.T) {
	var h durations
	for _, d := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 30 * time.Millisecond, time.Minute} {
		h.observe(d)
	}
	var text strings.Builder
	h.write(&text, "d", `a="b"`)
	for _, line := range []string{
		`d_bucket{a="b",le="0.005"} 2`, `d_bucket{a="b",le="0.025"} 2`, `d_bucket{a="b",le="0.05"} 3`,
		`d_bucket{a="b",le="10"} 3`, `d_bucket{a="b",le="+Inf"} 4`, `d_count{a="b"} 4`, `d_sum{a="b"} 60.036`,
	} {
		if !strings.Contains(text.String(), line+"\n") {
			t.Errorf("%s is missing in\n%s", line, &text)
		}
	}
}
