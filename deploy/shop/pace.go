package main

import (
	"fmt"
	"math"
	"sync"
	"time"
)

const (
	fastestRate     = 2000.0 // requests per second
	longestDuration = time.Hour
	// mostArrears is for how long requests that could not be sent in time are still sent; older ones are given up, so
	// that a machine that stood still does not answer with a burst.
	mostArrears = time.Second
)

// pace says when requests are due: at a constant rate, whatever became of the ones before. It never drifts, since it
// counts from the moment at which the rate was set. It has no clock of its own.
type pace struct {
	mu     sync.Mutex
	rate   float64 // requests per second
	since  time.Time
	issued int64 // since that moment, given up ones included
}

// newPace starts at rate requests per second.
func newPace(now time.Time, rate float64) *pace { return &pace{rate: rate, since: now} }

// setRate changes the rate from now on. A rate of 0 means no requests.
func (p *pace) setRate(now time.Time, rate float64) error {
	if math.IsNaN(rate) || rate < 0 || rate > fastestRate {
		return fmt.Errorf("the rate is %v requests a second; write a number from 0 to %v", rate, fastestRate)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate, p.since, p.issued = rate, now, 0
	return nil
}

func (p *pace) current() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// take returns how many requests are due at now and were not taken before, and how many are given up as too late.
func (p *pace) take(now time.Time) (due, late int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	due = int64(p.rate*now.Sub(p.since).Seconds()+1e-6) - p.issued
	if due <= 0 {
		return 0, 0
	}
	p.issued += due
	if most := max(1, int64(p.rate*mostArrears.Seconds())); due > most {
		due, late = most, due-most
	}
	return due, late
}

// wait returns how long after now the next request is due; at most a second, so that a changed rate is seen.
func (p *pace) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return time.Second
	}
	next := p.since.Add(time.Duration(float64(p.issued+1) / p.rate * float64(time.Second)))
	return min(max(next.Sub(now), 0), time.Second)
}
