package controlplane_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/nameward/nameward/controlplane"
)

// collector is an OpenTelemetry collector that keeps the names of spans.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	spans chan string
}

func (c *collector) Export(_ context.Context, request *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans <- fmt.Sprint(resource.GetResource().GetAttributes()[0].GetValue().GetStringValue(), " ", span.GetName())
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func TestRequestsAreTraced(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{spans: make(chan string, 100)}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	s := startWith(t, t.TempDir(), func(cfg *controlplane.Config) {
		cfg.TraceEndpoint, cfg.TraceInsecure, cfg.Pprof = listener.Addr().String(), true, true
	})
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	a.complete()
	a.leave()
	s.put("a", "", "a.example.com")
	response, err := http.Get("http://" + s.metrics + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	profile, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(profile), "controlplane.Run") {
		t.Errorf("profile of goroutines: %v, %.100s", err, profile)
	}
	_ = response.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	s.stop() // sends what is left
	select {
	case got := <-c.spans:
		// The agent's stream, which was before it, is no request.
		if got != "nameward-server nameward.v1.PolicyService/UpdatePolicy" {
			t.Errorf("got the span %s", got)
		}
	case <-time.After(patience):
		t.Error("no span came")
	}
	server.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestObservabilityIsValidated(t *testing.T) {
	cfg := controlplane.DefaultConfig()
	cfg.Insecure, cfg.Pprof, cfg.MetricsListen, cfg.TraceEndpoint, cfg.TraceRatio = true, true, "10.0.0.1:7480", "nowhere", 2
	err := cfg.Validate()
	for _, flag := range []string{"pprof: ", "trace-endpoint: ", "trace-ratio: "} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
}
