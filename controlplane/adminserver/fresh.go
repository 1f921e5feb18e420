package adminserver

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/store"
)

// FreshKey is the metadata with which a reader asks for what every server has acknowledged, and not only this one.
const FreshKey = "nameward-fresh"

// Fresh brings the server up to date before a request is judged: before each that changes something, whose etag and
// whose objects may be the work of another server; and before a reading one that asks for it.
type Fresh struct {
	store *store.Store
	log   *slog.Logger
}

// NewFresh returns the interceptors.
func NewFresh(s *store.Store, log *slog.Logger) *Fresh { return &Fresh{s, log} }

// Unary is of requests.
func (f *Fresh) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := f.sync(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream is of streams.
func (f *Fresh) Stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := f.sync(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(server, stream)
}

func (f *Fresh) sync(ctx context.Context, method string) error {
	operators := "/" + strings.TrimSuffix(namewardv1.PolicyService_ServiceDesc.ServiceName, "PolicyService")
	if !strings.HasPrefix(method, operators) {
		return nil
	}
	if reads(method) && len(metadata.ValueFromIncomingContext(ctx, FreshKey)) == 0 {
		return nil
	}
	return toStatus(f.log, f.store.Sync(ctx))
}

// reads reports whether a method changes nothing.
func reads(method string) bool {
	name := method[strings.LastIndexByte(method, '/')+1:]
	for _, verb := range []string{"Get", "List", "Watch", "Explain"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}
