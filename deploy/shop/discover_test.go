package main

import (
	"encoding/json"
	"testing"
)

func TestPrometheusReadsSidecarsAndPodsThatAskForIt(t *testing.T) {
	var pods []pod
	err := json.Unmarshal([]byte(`[
	  {"metadata": {"name": "cart-1", "namespace": "shop", "labels": {"app": "cart", "pod-template-hash": "abc"},
	    "annotations": {"serinus.dev/injected": "1", "prometheus.io/scrape": "true", "prometheus.io/port": "8080"}},
	   "status": {"phase": "Running", "podIP": "10.0.0.1"}},
	  {"metadata": {"name": "plain", "namespace": "shop"}, "status": {"phase": "Running", "podIP": "10.0.0.2"}},
	  {"metadata": {"name": "done", "namespace": "shop", "annotations": {"serinus.dev/injected": "1"}},
	   "status": {"phase": "Succeeded", "podIP": "10.0.0.3"}},
	  {"metadata": {"name": "new", "namespace": "shop", "annotations": {"serinus.dev/injected": "1"}},
	   "status": {"phase": "Running"}}]`), &pods)
	if err != nil {
		t.Fatal(err)
	}
	got := targets(pods)
	if len(got) != 2 {
		t.Fatalf("%d targets: %v", len(got), got)
	}
	if g := got[0]; g.Targets[0] != "10.0.0.1:15090" || g.Labels["__metrics_path__"] != "/stats/prometheus" ||
		g.Labels["job"] != "sidecars" || g.Labels["revision"] != "abc" || g.Labels["app"] != "cart" {
		t.Errorf("the sidecar: %v", g)
	}
	if g := got[1]; g.Targets[0] != "10.0.0.1:8080" || g.Labels["__metrics_path__"] != "/metrics" || g.Labels["job"] != "pods" {
		t.Errorf("the pod: %v", g)
	}
}
