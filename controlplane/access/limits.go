package access

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nameward/nameward/api/identity"
)

// Limit is what one caller may have of a class of calls. Who calls more often waits; who has more calls running than
// anybody who waits for answers would is refused. Without TLS callers cannot be told apart, and only this machine's
// come: none of it holds then.
type Limit struct {
	// Running is how many calls run at once.
	Running int
	// PerSecond is how many may come a second, and Burst how many at once.
	PerSecond, Burst float64
}

// limitsOf are far above what an operator, a pipeline or an agent does.
func limitsOf() map[class]Limit {
	return map[class]Limit{
		reads:   {Running: 128, PerSecond: 2000, Burst: 10_000},
		watches: {Running: 64, PerSecond: 10, Burst: 100},
		changes: {Running: 128, PerSecond: 4000, Burst: 10_000},
		// A node has one stream, and for a moment the one before. Agents come back by their own back-off.
		syncs:  {Running: 4, PerSecond: 2, Burst: 20},
		probes: {Running: 16, PerSecond: 20, Burst: 100},
	}
}

// Limits returns the limit of every method that has a role.
func Limits() map[string]Limit {
	limits, of := map[string]Limit{}, limitsOf()
	for method, r := range table() {
		if limit, ok := of[r.class]; ok {
			limits[method] = limit
		}
	}
	return limits
}

// limits keeps what each caller has running and how much it has called.
type limits struct {
	of      map[class]Limit
	metrics *metrics
	now     func() time.Time

	mu    sync.Mutex
	usage map[user]*usage // guarded by mu; of callers that call, or lately did
	swept time.Time       // guarded by mu
}

type user struct {
	id    identity.ID
	class class
}

// usage is what one caller has of one class. owed is in calls.
type usage struct {
	running int
	owed    float64
	at      time.Time
}

func newLimits(m *metrics) *limits {
	return &limits{of: limitsOf(), metrics: m, now: time.Now, usage: map[user]*usage{}}
}

// enter takes a place for a call, which leave gives up.
func (l *limits) enter(caller Caller, c class) (leave func(), err error) {
	limit := l.of[c]
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.find(user{caller.ID, c})
	if u.running >= limit.Running {
		l.metrics.limited.WithLabelValues(string(c)).Inc()
		return nil, refusal(codes.ResourceExhausted,
			fmt.Sprintf("%s has %d calls of the kind %s running, and no more may", caller, limit.Running, c), "TOO_MANY_CALLS",
			map[string]string{"identity": caller.String(), "methods": string(c)}, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	}
	u.running++
	running := l.metrics.running.WithLabelValues(string(c))
	running.Inc()
	return sync.OnceFunc(func() {
		running.Dec()
		l.mu.Lock()
		defer l.mu.Unlock()
		u.running--
	}), nil
}

// pace waits until it is a call's turn.
func (l *limits) pace(ctx context.Context, caller Caller, c class) error {
	wait := l.spend(user{caller.ID, c})
	if wait <= 0 {
		return nil
	}
	l.metrics.paced.WithLabelValues(string(c)).Inc()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-timer.C:
		return nil
	}
}

// spend takes note of a call and returns how long it has to wait. Since the running calls of a caller are few, so are
// those that wait.
func (l *limits) spend(who user) time.Duration {
	limit := l.of[who.class]
	l.mu.Lock()
	defer l.mu.Unlock()
	u, now := l.find(who), l.now()
	u.owed = max(0, u.owed-now.Sub(u.at).Seconds()*limit.PerSecond) + 1
	u.at = now
	if u.owed <= limit.Burst {
		return 0
	}
	return time.Duration((u.owed - limit.Burst) / limit.PerSecond * float64(time.Second))
}

// usageTime is after how long without a call everything of a caller is forgiven.
const usageTime = time.Minute

// find returns what a caller has, under mu, and now and then forgets those who call no more.
func (l *limits) find(who user) *usage {
	now := l.now()
	if now.Sub(l.swept) > usageTime {
		l.swept = now
		for k, u := range l.usage {
			if u.running == 0 && now.Sub(u.at) > usageTime {
				delete(l.usage, k)
			}
		}
	}
	u := l.usage[who]
	if u == nil {
		u = &usage{at: now}
		l.usage[who] = u
	}
	return u
}
