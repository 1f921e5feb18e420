package subscribe

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Full jitter: after each number of failures the pauses of a fleet spread evenly from nothing to the bound.
func TestBackoffSpreads(t *testing.T) {
	const nodes, parts = 10_000, 10
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable
	for failures, bound := range map[int]time.Duration{
		0: 100 * time.Millisecond, 1: 200 * time.Millisecond, 6: 6400 * time.Millisecond, 7: 10 * time.Second, 1000: 10 * time.Second,
	} {
		var counts [parts]int
		for range nodes {
			pause := backoff(failures, random.Int64N)
			if pause < 0 || pause >= bound {
				t.Fatalf("after %d failures: a pause of %v, want less than %v", failures, pause, bound)
			}
			counts[int(pause*parts/bound)]++
		}
		for part, n := range counts {
			// Five standard deviations of a binomial distribution.
			if off := math.Abs(float64(n - nodes/parts)); off > 5*math.Sqrt(nodes/parts) {
				t.Errorf("after %d failures: %d of %d nodes come in part %d of %d", failures, n, nodes, part, parts)
			}
		}
	}
}

// A fleet that loses its server at once comes back over seconds: no second has far more attempts than the
// average of the first ones.
func TestNoHerd(t *testing.T) {
	const nodes, seconds = 10_000, 60
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // repeatable
	var attempts [seconds]int
	for range nodes {
		at := time.Duration(0)
		for failures := 0; at < seconds*time.Second; failures++ {
			attempts[at/time.Second]++
			at += backoff(failures, random.Int64N)
		}
	}
	// Once the bound is reached a node comes each 5 seconds on average.
	for second := 20; second < seconds; second++ {
		if n := attempts[second]; n < nodes/5*8/10 || n > nodes/5*12/10 {
			t.Errorf("second %d: %d attempts, want about %d", second, n, nodes/5)
		}
	}
}

// A hint is heeded whole, within a bound, and those that had it at once come over a time.
func TestHintsAreHeededWithinABound(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // repeatable
	for asked, want := range map[time.Duration][2]time.Duration{
		-time.Hour: {0, 0}, 0: {0, 0},
		time.Second: {time.Second, 2 * time.Second}, 20 * time.Second: {20 * time.Second, 30 * time.Second},
		1000 * time.Hour: {time.Minute, 70 * time.Second},
	} {
		shortest, longest := time.Hour, time.Duration(0)
		for range 1000 {
			wait := holdTime(asked, random.Int64N)
			shortest, longest = min(shortest, wait), max(longest, wait)
		}
		spread := want[1] - want[0]
		if shortest < want[0] || longest > want[1] || longest-shortest < spread*9/10 {
			t.Errorf("asked for %v: from %v to %v, want all of %v to %v", asked, shortest, longest, want[0], want[1])
		}
	}
}

func TestOrderSpreadsNodes(t *testing.T) {
	servers := []string{"a:7443", "b:7443", "c:7443", "d:7443"}
	const nodes = 8000
	first, second := map[string]int{}, map[string]int{}
	for i := range nodes {
		node := fmt.Sprintf("node-%d", i)
		mine := order(node, servers)
		if again := order(node, []string{"d:7443", "b:7443", "a:7443", "c:7443"}); !slices.Equal(mine, again) {
			t.Fatalf("the order of %s depends on how the servers are listed: %v, %v", node, mine, again)
		}
		first[mine[0]]++
		if mine[0] == "a:7443" {
			second[mine[1]]++
		}
	}
	for _, server := range servers {
		if n := first[server]; n < nodes/4*9/10 || n > nodes/4*11/10 {
			t.Errorf("%d of %d nodes are of %s", n, nodes, server)
		}
		if n := second[server]; server != "a:7443" && (n < nodes/12*8/10 || n > nodes/12*12/10) {
			t.Errorf("without the first, %d of its %d nodes are of %s", n, first["a:7443"], server)
		}
	}
	if second["a:7443"] != 0 {
		t.Error("a server is twice in an order")
	}
}
