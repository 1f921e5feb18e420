package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// tracing makes spans of requests and sends them to a collector; nil where none is set. A collector that is away costs
// spans, never requests.
type tracing struct{ provider *sdktrace.TracerProvider }

func newTracing(ctx context.Context, cfg Config) (*tracing, error) {
	if cfg.TraceEndpoint == "" {
		return nil, nil
	}
	options := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(cfg.TraceEndpoint)}
	if cfg.TraceInsecure {
		options = append(options, otlptracegrpc.WithInsecure())
	}
	exporter, err := otlptracegrpc.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("make trace exporter: %w", err)
	}
	return &tracing{sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		// A caller who traces decides for its requests.
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.TraceRatio))),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "nameward-server"))),
	)}, nil
}

// traceTimeout is what the last spans get to reach the collector.
const traceTimeout = 2 * time.Second

// stop sends what is left.
func (t *tracing) stop(ctx context.Context, log *slog.Logger) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		log.Warn("last traces not sent", "err", err)
	}
}

// options trace what operators ask. The streams of agents last for days, and are no requests.
func (t *tracing) options() []grpc.ServerOption {
	if t == nil {
		return nil
	}
	operators := "/" + strings.TrimSuffix(namewardv1.PolicyService_ServiceDesc.ServiceName, "PolicyService")
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.provider),
		otelgrpc.WithMeterProvider(noop.NewMeterProvider()),
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return strings.HasPrefix(info.FullMethodName, operators) }),
	))}
}
