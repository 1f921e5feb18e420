package netfilter

import (
	"testing"

	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
)

// TestFragmentsThatStayInPieces: where nothing asks conntrack, a datagram comes as it was sent. So the probe
// can tell one from the other.
func TestFragmentsThatStayInPieces(t *testing.T) {
	for _, backend := range []string{NFT, Legacy} {
		t.Run(backend, func(t *testing.T) {
			netfiltertest.EnterNode(t)
			for _, p := range protocols() {
				tools, err := findTools(t.Context(), p, backend)
				if err != nil {
					t.Fatal(err)
				}
				if packets, err := (&family{tools: tools}).countFragments(t.Context(), ""); err != nil || packets != "2" {
					t.Errorf("%s: %s packets, %v; want 2", p, packets, err)
				}
			}
		})
	}
}
