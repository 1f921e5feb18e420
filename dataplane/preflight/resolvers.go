package preflight

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// answerTime is how long a resolver may take to answer.
const answerTime = 2 * time.Second

// rootQuestion asks for the servers of the root, which every resolver knows: no name of anybody is asked.
// The id is filled in.
var rootQuestion = []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}

// Reachable asks each trusted resolver over UDP and TCP, all at once. One that does not answer is a
// warning: enforcement does not need it, and it may come later.
func Reachable(ctx context.Context, resolvers []netip.AddrPort) []Requirement {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	found := make([]Requirement, len(resolvers))
	var waiting sync.WaitGroup
	for i, resolver := range resolvers {
		waiting.Go(func() { found[i] = reach(ctx, resolver) })
	}
	waiting.Wait()
	return found
}

func reach(ctx context.Context, resolver netip.AddrPort) Requirement {
	name := "resolver " + resolver.String()
	var answering, silent []string
	var mutex sync.Mutex // guards both
	var waiting sync.WaitGroup
	for _, network := range []string{"udp", "tcp"} {
		waiting.Go(func() {
			err := ask(ctx, network, resolver)
			mutex.Lock()
			defer mutex.Unlock()
			if err == nil {
				answering = append(answering, network)
			} else {
				silent = append(silent, network+": "+err.Error())
			}
		})
	}
	waiting.Wait()
	slices.Sort(silent)
	if len(silent) == 0 {
		return Found(name, "answers over UDP and TCP")
	}
	if len(answering) > 0 {
		return Warn(name, "answers over "+strings.ToUpper(answering[0])+" alone; "+silent[0],
			"let DNS pass over both: answers that are too long for UDP are asked for again over TCP")
	}
	return Warn(name, strings.Join(silent, "\n"),
		"see that it runs, and that the node's rules and routes lead there; or trust another (--trusted-resolver): names that cannot be asked stay closed")
}

func ask(ctx context.Context, network string, resolver netip.AddrPort) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, resolver.String())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close() //nolint:errcheck // all was said
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // of a socket that is open
	}
	message := slices.Clone(rootQuestion)
	_, _ = rand.Read(message[:2]) // never fails
	id := binary.BigEndian.Uint16(message)
	if network == "tcp" {
		message = append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...) //nolint:gosec // short
	}
	if _, err := conn.Write(message); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	header := make([]byte, 4)
	if network == "tcp" {
		if _, err := io.ReadFull(conn, header[:2]); err != nil {
			return fmt.Errorf("hear answer: %w", err)
		}
	}
	if _, err := io.ReadAtLeast(conn, header, len(header)); err != nil && !errors.Is(err, io.ErrShortBuffer) {
		return fmt.Errorf("hear answer: %w", err)
	}
	const response = 0x80
	if binary.BigEndian.Uint16(header) != id || header[2]&response == 0 {
		return errors.New("what came is no answer")
	}
	return nil
}
