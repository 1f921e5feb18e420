package controlplane_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/nameward/nameward/api/authority/authoritytest"
	"github.com/nameward/nameward/api/identity"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/controlplane"
)

// logs is everything that was logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Whatever is logged, at any level, of a server that starts, serves, refuses, denies and stops, has nothing of a key.
func TestNoSecretInTheLog(t *testing.T) {
	files, out := authoritytest.New(t), &logs{}
	own, viewer, foreign := files.Issue(identity.Server, "127.0.0.1"), files.Issue(identity.Viewer, "v"), authoritytest.New(t).Issue(identity.Admin, "a")
	cfg := controlplane.DefaultConfig()
	cfg.Listen, cfg.MetricsListen, cfg.DataDir, cfg.TLS = "127.0.0.1:0", "", t.TempDir(), own
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addresses := &addresses{of: map[string]chan string{"listening": make(chan string, 1)}}
	done := make(chan error, 1)
	log := slog.New(both{addresses, slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})})
	go func() { done <- controlplane.Run(ctx, cfg, log) }()
	address := addresses.wait(t, "listening", done)
	for _, who := range []transport.Config{viewer, foreign} {
		source := transport.NewClientSource(who, log)
		if err := source.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(transport.NewClientCredentials(source, transport.NewRefusals(log))))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := namewardv1.NewPolicyServiceClient(connection).DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: "policies/a"}); err == nil {
			t.Error("it was allowed")
		}
		if err := connection.Close(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	text := out.String()
	if !strings.Contains(text, "call denied") || !strings.Contains(text, "connection refused") {
		t.Errorf("the log lacks what was to be looked at:\n%s", text)
	}
	for _, path := range []string{own.KeyFile, viewer.KeyFile, foreign.KeyFile} {
		for _, form := range secretsOf(t, path) {
			if strings.Contains(text, form) {
				t.Errorf("the log has a part of %s", path)
			}
		}
	}
}

// secretsOf returns what of a key would show in a text: parts of each form that it may be written in.
func secretsOf(t *testing.T, path string) (forms []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is no key", path)
	}
	forms = []string{"PRIVATE KEY", string(block.Bytes[len(block.Bytes)-16:])}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "-----") {
			forms = append(forms, strings.TrimSpace(line))
		}
	}
	return append(forms, base64.StdEncoding.EncodeToString(block.Bytes)[:32])
}

// both hands records to two handlers.
type both struct {
	*addresses
	text slog.Handler
}

func (b both) Handle(ctx context.Context, record slog.Record) error {
	_ = b.addresses.Handle(ctx, record)
	return b.text.Handle(ctx, record)
}

func (b both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{b.addresses, b.text.WithAttrs(attrs)}
}

func (b both) WithGroup(name string) slog.Handler { return both{b.addresses, b.text.WithGroup(name)} }
