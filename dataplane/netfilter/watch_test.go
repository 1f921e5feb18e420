package netfilter_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
)

// TestWatch: each change is told, in whatever table of nf_tables, and once however many rules it is of.
func TestWatch(t *testing.T) {
	eachBackend(t, testWatch)
}

func testWatch(t *testing.T, backend string) {
	netfiltertest.EnterNode(t)
	n := open(t, netfilter.Config{Backend: backend})
	// Watch is of this thread, which alone is in the namespace: what changes rules is started from another.
	here := fmt.Sprintf("--net=/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	table := map[string]string{netfilter.NFT: "*nat", netfilter.Legacy: "*filter"}[backend]
	var many strings.Builder
	many.WriteString(table + "\n:MANY - [0:0]\n")
	for i := range 2000 {
		fmt.Fprintf(&many, "-A MANY -d 192.0.2.1 -p tcp --dport %d -j RETURN\n", i+1)
	}
	many.WriteString("COMMIT\n")

	ctx, cancel := context.WithCancel(t.Context())
	next, told := make(chan string), make(chan struct{}, 100)
	failed := make(chan error, 1)
	go func() {
		defer cancel()
		for script := range next {
			cmd := exec.CommandContext(ctx, "nsenter", here, "iptables-"+backend+"-restore", "--noflush")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				failed <- fmt.Errorf("%w: %s", err, out)
				return
			}
		}
	}()
	go func() {
		defer close(next)
		<-told // at first
		for _, script := range []string{"*filter\n-A INPUT -j ACCEPT\nCOMMIT\n", many.String(), "*mangle\n-A INPUT -j ACCEPT\nCOMMIT\n"} {
			next <- script
			select {
			case <-told:
			case <-ctx.Done():
				return
			}
		}
	}()
	times := 0
	if err := n.Watch(ctx, func() { times++; told <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	if times < 4 || times > 7 { // the first in a table may be a transaction of its own
		t.Errorf("told %d times of 3 changes, want once more", times)
	}
}

// TestCopiesInTheOtherBackendGo: who moves the node's rules from one backend to the other copies ours too. The
// copies go, named, and what is not ours stays.
func TestCopiesInTheOtherBackendGo(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		other := map[string]string{netfilter.NFT: netfilter.Legacy, netfilter.Legacy: netfilter.NFT}[backend]
		n := open(t, config(backend, pinPrograms(t, netfiltertest.EnterNode(t), "1")))
		for _, family := range []string{"iptables", "ip6tables"} {
			command(t, family+"-"+backend, "-t", "filter", "-A", "FORWARD", "-p", "tcp", "-j", "RETURN")
		}
		ensure(t, n)
		if mended := ensure(t, n); len(mended) > 0 {
			t.Fatalf("mended %q before there is a copy", mended)
		}
		before := rules(t, backend)
		copyRules(t, backend, other)
		mended := strings.Join(ensure(t, n), "\n")
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, want := range []string{"mangle: jump from OUTPUT", "filter: chain NAMEWARD-FORWARD"} {
				if want = fmt.Sprintf("%s (%s) %s", family, other, want); !strings.Contains(mended, want) {
					t.Errorf("mended %q, want %s", mended, want)
				}
			}
		}
		if mended := ensure(t, n); len(mended) > 0 {
			t.Errorf("mended once more: %q", mended)
		}
		if left := rules(t, other); strings.Contains(left, "NAMEWARD") || strings.Count(left, "-p tcp -j RETURN") != 2 {
			t.Errorf("in %s is left:\n%s", other, left)
		}
		if after := rules(t, backend); after != before {
			t.Errorf("rules are not as before:\n%s", after)
		}
	})
}

// copyRules does what the manual of iptables says of moving to another backend.
func copyRules(t *testing.T, from, to string) {
	t.Helper()
	for _, family := range []string{"iptables", "ip6tables"} {
		cmd := exec.Command(family+"-"+to+"-restore", "-w")
		cmd.Stdin = strings.NewReader(command(t, family+"-"+from+"-save"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("copy rules to %s: %v: %s", to, err, out)
		}
	}
}
