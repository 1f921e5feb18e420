package e2e_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// The history of what clients asked of policies, and what they heard, is held against one register for each policy.
// Its values are unique texts; "" is no policy.

type operationKind int

const (
	opRead operationKind = iota
	opPut
	opSwap
	opDelete
)

type operationInput struct {
	kind   operationKind
	key    string
	expect string // opSwap: the value that the etag is of
	value  string
}

type operationOutput struct {
	// unknown says that the call may have been done, at any time from its beginning on.
	unknown bool
	refused bool
	value   string // opRead
}

func registerModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, op := range history {
				key := op.Input.(operationInput).key
				byKey[key] = append(byKey[key], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			now, in, out := state.(string), input.(operationInput), output.(operationOutput)
			switch in.kind {
			case opPut:
				return true, in.value
			case opSwap:
				switch {
				case out.refused:
					return now != in.expect, now
				case now == in.expect:
					return true, in.value
				}
				return out.unknown, now
			case opDelete:
				if out.refused {
					return now == "", now
				}
				return out.unknown || now != "", ""
			}
			return now == out.value, now
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
}

// history is what clients did.
type history struct {
	began time.Time
	mu    sync.Mutex // guards all below
	ops   []porcupine.Operation
	// epochs give each register a new name after a while: each has few operations whose outcome is not known.
	epochs  map[int]*epoch
	counts  map[string]int
	slowest time.Duration
}

type epoch struct{ number, operations, unknown int }

const (
	registers       = 5
	epochOperations = 200
	epochUnknown    = 3
)

func newHistory() *history {
	h := &history{began: time.Now(), epochs: map[int]*epoch{}, counts: map[string]int{}}
	for i := range registers {
		h.epochs[i] = &epoch{}
	}
	return h
}

// key returns the name of a register as it is now.
func (h *history) key(register int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.epochs[register]
	if e.operations >= epochOperations || e.unknown >= epochUnknown {
		*e = epoch{number: e.number + 1}
	}
	e.operations++
	return fmt.Sprintf("policies/k%d-%d", register, e.number)
}

func (h *history) add(client, register int, in operationInput, out operationOutput, called, returned time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	op := porcupine.Operation{ClientId: client, Input: in, Output: out, Call: called.Sub(h.began).Nanoseconds(), Return: returned.Sub(h.began).Nanoseconds()}
	if out.unknown {
		op.Return = math.MaxInt64
		h.epochs[register].unknown++
		h.counts["unknown"]++
	} else {
		h.counts[[]string{"reads", "writes", "swaps", "deletions"}[in.kind]]++
		h.slowest = max(h.slowest, returned.Sub(called))
	}
	h.ops = append(h.ops, op)
}

func (h *history) count(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[what]++
}

var values atomic.Int64

// work does random operations at random servers until ctx ends.
func (h *history) work(ctx context.Context, client int, seed uint64, servers []*grpc.ClientConn) {
	random := rand.New(rand.NewPCG(seed, uint64(client)+100))
	type known struct{ value, etag string }
	seen := map[string]known{}
	for ctx.Err() == nil {
		register := random.IntN(registers)
		in := operationInput{kind: operationKind(random.IntN(4)), key: h.key(register)}
		if in.kind == opDelete && random.IntN(2) == 0 {
			in.kind = opPut
		}
		before, has := seen[in.key]
		if in.kind == opSwap && !has {
			in.kind = opRead
		}
		if in.kind == opPut || in.kind == opSwap {
			in.value = fmt.Sprintf("v%d", values.Add(1))
		}
		in.expect = before.value
		call := policyCall{in: in, etag: before.etag, role: fmt.Sprintf("r%d", register)}
		called := time.Now()
		out, etag, done := call.do(ctx, namewardv1.NewPolicyServiceClient(servers[random.IntN(len(servers))]))
		if !done {
			h.count("not done")
		} else {
			h.add(client, register, in, out, called, time.Now())
			delete(seen, in.key)
			switch {
			case out.unknown || out.refused:
			case in.kind == opRead && out.value != "":
				seen[in.key] = known{out.value, etag}
			case in.kind == opPut || in.kind == opSwap:
				seen[in.key] = known{in.value, etag}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(random.IntN(100)) * time.Millisecond):
		}
	}
}

// policyCall is an operation as a call.
type policyCall struct {
	in         operationInput
	etag, role string
}

// do returns what became of a call; done is false when it certainly changed nothing and told nothing.
func (c policyCall) do(ctx context.Context, client namewardv1.PolicyServiceClient) (out operationOutput, etag string, done bool) {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.WithoutCancel(ctx), "nameward-fresh", "1"), 12*time.Second)
	defer cancel()
	p := &namewardv1.Policy{
		Name: c.in.key, Description: c.in.value, NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": c.role}},
		Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{c.in.value + ".example.com"}}},
	}
	var err error
	var made *namewardv1.Policy
	switch c.in.kind {
	case opRead:
		made, err = client.GetPolicy(ctx, &namewardv1.GetPolicyRequest{Name: c.in.key})
		switch status.Code(err) {
		case codes.OK:
			return operationOutput{value: made.GetDescription()}, made.GetEtag(), true
		case codes.NotFound:
			return operationOutput{}, "", true
		}
		return out, "", false
	case opPut:
		made, err = client.UpdatePolicy(ctx, &namewardv1.UpdatePolicyRequest{Policy: p, AllowMissing: true})
	case opSwap:
		p.Etag = c.etag
		made, err = client.UpdatePolicy(ctx, &namewardv1.UpdatePolicyRequest{Policy: p})
	case opDelete:
		_, err = client.DeletePolicy(ctx, &namewardv1.DeletePolicyRequest{Name: c.in.key})
	}
	switch code := status.Code(err); {
	case err == nil:
		return out, made.GetEtag(), true
	case c.in.kind != opPut && (code == codes.Aborted || code == codes.NotFound):
		return operationOutput{refused: true}, "", true
	case reasonOf(err) == "STORAGE_UNAVAILABLE" || strings.Contains(err.Error(), "error while dialing"):
		return out, "", false
	}
	return operationOutput{unknown: true}, "", true
}

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// readAll reads every register at every server, as part of the history.
func (h *history) readAll(t *testing.T, servers []*grpc.ClientConn) {
	t.Helper()
	keys := map[string]bool{}
	for _, op := range h.ops {
		keys[op.Input.(operationInput).key] = true
	}
	for i, server := range servers {
		for key := range keys {
			call := policyCall{in: operationInput{kind: opRead, key: key}}
			called := time.Now()
			out, _, done := call.do(t.Context(), namewardv1.NewPolicyServiceClient(server))
			if !done {
				t.Fatalf("%s is not read at server %d", key, i)
			}
			h.add(1000+i, 0, call.in, out, called, time.Now())
		}
	}
}

// check holds the history against the model.
func (h *history) check(t *testing.T) {
	t.Helper()
	model := registerModel()
	switch result, info := porcupine.CheckOperationsVerbose(model, h.ops, 5*time.Minute); result {
	case porcupine.Illegal:
		path := t.TempDir() + "/history.html"
		if err := porcupine.VisualizePath(model, info, path); err != nil {
			t.Error(err)
		}
		for _, part := range model.Partition(h.ops) {
			if !porcupine.CheckOperations(model, part) {
				for _, op := range part {
					t.Logf("%12d %12d client %d %s", op.Call/1000, op.Return/1000, op.ClientId, model.DescribeOperation(op.Input, op.Output))
				}
				break
			}
		}
		t.Error("the history of the policies has no order")
	case porcupine.Unknown:
		t.Error("the history of the policies is not judged in time")
	}
}
