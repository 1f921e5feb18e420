package controlplane_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// link forwards connections to a server until it is cut: from then on it is silent, and nobody is told.
type link struct {
	listener net.Listener
	cut      atomic.Bool
	running  sync.WaitGroup
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener}
	l.running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				t.Error(err)
				return
			}
			l.running.Go(func() { l.forward(near, far) })
			l.running.Go(func() { l.forward(far, near) })
		}
	})
	t.Cleanup(l.running.Wait)
	return l
}

func (l *link) forward(from, to net.Conn) {
	defer to.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if l.cut.Load() {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil && !errors.Is(err, io.EOF) {
			return
		}
	}
}

// Another agent gets the node when the first was cut off without a word, and not before.
func TestSilentAgentLosesItsNode(t *testing.T) {
	s := start(t, t.TempDir())
	link := newLink(t, s.connection.Target())
	connection, err := grpc.NewClient(link.listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	first := newAgent(t, "n", nil)
	first.connect(connection)
	first.complete()
	second := newAgent(t, "n", nil)
	second.instance = "another"
	second.connect(s.connection)
	if code := second.end(); code != codes.AlreadyExists {
		t.Errorf("while the first lives the second got %v", code)
	}
	began := time.Now()
	link.cut.Store(true)
	s.status("n", func(st *namewardv1.NodeStatus) bool { return !st.GetConnected() })
	if silent := time.Since(began); silent > 25*time.Second {
		t.Errorf("the cut was found out after %v", silent)
	}
	second.connect(s.connection)
	second.complete()
	second.leave()
	if err := connection.Close(); err != nil {
		t.Error(err)
	}
	first.end()
	if err := link.listener.Close(); err != nil {
		t.Error(err)
	}
}
