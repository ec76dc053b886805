package main

import (
	"testing"
	"time"
)

var start = time.Unix(1_700_000_000, 0)

// drive takes what is due every step for the given time, and returns how many requests that were.
func drive(p *pace, from time.Time, length, step time.Duration) (due, late int64) {
	for now := from; !now.After(from.Add(length)); now = now.Add(step) {
		d, l := p.take(now)
		due, late = due+d, late+l
	}
	return due, late
}

func TestARateIsKeptExactlyWhateverTheSteps(t *testing.T) {
	for _, rate := range []float64{0.5, 1, 7, 200, 333, 1999} {
		for _, step := range []time.Duration{time.Millisecond, 7 * time.Millisecond, 100 * time.Millisecond} {
			p := newPace(start, rate)
			due, late := drive(p, start, 70*time.Second, step)
			if want := int64(rate * 70); due < want-1-int64(rate*step.Seconds()) || due > want || late != 0 {
				t.Errorf("%v/s in steps of %v: %d due and %d late in 70 s, want %d and 0", rate, step, due, late, want)
			}
		}
	}
}

func TestAStandstillIsNotMadeUpForByABurst(t *testing.T) {
	p := newPace(start, 100)
	due, late := p.take(start.Add(10 * time.Second))
	if due != 100 || late != 900 {
		t.Errorf("after 10 s: %d due and %d late, want 100 and 900", due, late)
	}
	if due, late := p.take(start.Add(10*time.Second + 50*time.Millisecond)); due != 5 || late != 0 {
		t.Errorf("50 ms later: %d due and %d late, want 5 and 0", due, late)
	}
}

func TestAnotherRateHoldsFromTheMomentItIsSet(t *testing.T) {
	p := newPace(start, 10)
	drive(p, start, time.Second, 10*time.Millisecond)
	change := start.Add(time.Second)
	if err := p.setRate(change, 200); err != nil {
		t.Fatal(err)
	}
	if due, _ := drive(p, change, time.Second, 10*time.Millisecond); due != 200 {
		t.Errorf("%d due in the second after the change, want 200", due)
	}
	if err := p.setRate(change, 0); err != nil {
		t.Fatal(err)
	}
	if due, _ := drive(p, change, time.Minute, time.Second); due != 0 || p.wait(change) != time.Second {
		t.Errorf("%d due at a rate of 0, and a wait of %v", due, p.wait(change))
	}
}

func TestARateBeyondTheCapIsRefused(t *testing.T) {
	p := newPace(start, 10)
	for _, rate := range []float64{-1, 2000.1} {
		if p.setRate(start, rate) == nil {
			t.Errorf("%v was taken", rate)
		}
	}
	if p.current() != 10 {
		t.Errorf("the rate is %v, want 10 as before", p.current())
	}
}

func TestTheWaitEndsWhenTheNextRequestIsDue(t *testing.T) {
	p := newPace(start, 4)
	if got := p.wait(start); got != 250*time.Millisecond {
		t.Errorf("wait %v, want 250ms", got)
	}
	if due, _ := p.take(start.Add(250 * time.Millisecond)); due != 1 {
		t.Errorf("%d due, want 1", due)
	}
	if got := p.wait(start.Add(300 * time.Millisecond)); got != 200*time.Millisecond {
		t.Errorf("wait %v, want 200ms", got)
	}
}
