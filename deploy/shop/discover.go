package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// accountDir is where Kubernetes puts the service account's token into a pod.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

const sidecarStatsPort = "15090"

// discover tells Prometheus, by its HTTP service discovery, which pods to read. Debian's Prometheus is built without
// the discovery by the API server.
func discover(args []string) error {
	flags := flag.NewFlagSet("shop discover", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9101", "where the list is served, as /targets")
	namespace := flags.String("namespace", "", "whose pods are listed; without it those of the whole cluster")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pods, err := podSource(*namespace)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /targets", func(w http.ResponseWriter, r *http.Request) {
		list, err := pods(r.Context())
		if err != nil {
			slog.Warn("pods cannot be listed", "error", err.Error())
			http.Error(w, err.Error(), http.StatusBadGateway) // Prometheus keeps the list that it has
			return
		}
		respond(w, http.StatusOK, targets(list))
	})
	terminated, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer release()
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(terminated, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pod is what of a Pod matters here.
type pod struct {
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Status struct {
		Phase string `json:"phase"`
		IP    string `json:"podIP"`
	} `json:"status"`
}

type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// targets are the sidecars of running pods, and the pods that ask to be read by the annotations prometheus.io/scrape,
// prometheus.io/port and prometheus.io/path.
func targets(pods []pod) []targetGroup {
	groups := []targetGroup{}
	for _, p := range pods {
		if p.Status.Phase != "Running" || p.Status.IP == "" {
			continue
		}
		add := func(job, port, path string) {
			groups = append(groups, targetGroup{[]string{net.JoinHostPort(p.Status.IP, port)}, map[string]string{
				"job": job, "__metrics_path__": path, "namespace": p.Metadata.Namespace, "pod": p.Metadata.Name,
				"app": p.Metadata.Labels["app"], "revision": p.Metadata.Labels["pod-template-hash"],
			}})
		}
		notes := p.Metadata.Annotations
		if _, injected := notes["serinus.dev/injected"]; injected {
			add("sidecars", sidecarStatsPort, "/stats/prometheus")
		}
		if notes["prometheus.io/scrape"] == "true" && notes["prometheus.io/port"] != "" {
			path := notes["prometheus.io/path"]
			if path == "" {
				path = "/metrics"
			}
			add("pods", notes["prometheus.io/port"], path)
		}
	}
	return groups
}

// podSource returns a function that lists the pods of a namespace, or of the cluster, with the service account of this
// pod.
func podSource(namespace string) (func(context.Context) ([]pod, error), error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	authority, err := os.ReadFile(filepath.Join(accountDir, "ca.crt"))
	if err != nil || host == "" {
		return nil, fmt.Errorf("discover runs in a pod, with a service account that may list pods: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	client := http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	path := "/api/v1/pods"
	if namespace != "" {
		path = "/api/v1/namespaces/" + url.PathEscape(namespace) + "/pods"
	}
	address := "https://" + net.JoinHostPort(host, port) + path + "?resourceVersion=0"
	return func(ctx context.Context) ([]pod, error) {
		token, err := os.ReadFile(filepath.Join(accountDir, "token"))
		if err != nil {
			return nil, err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Authorization", "Bearer "+string(token))
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(io.LimitReader(response.Body, 300))
			return nil, fmt.Errorf("%s: %d %s", address, response.StatusCode, text)
		}
		var list struct {
			Items []pod `json:"items"`
		}
		err = json.NewDecoder(response.Body).Decode(&list)
		return list.Items, err
	}, nil
}
