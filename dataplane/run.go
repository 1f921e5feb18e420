package dataplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/dataplane/conntrack"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/localserver"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/observe"
	"github.com/nameward/nameward/dataplane/preflight"
	"github.com/nameward/nameward/dataplane/report"
	"github.com/nameward/nameward/dataplane/statefile"
	"github.com/nameward/nameward/dataplane/subscribe"
)

// Run runs the agent of a valid configuration until ctx ends. What is in force then stays in force.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	return run(ctx, cfg, realKernel(), log)
}

func run(ctx context.Context, cfg Config, kernel kernel, log *slog.Logger) (err error) {
	keepSmall()
	requirements := kernel.probe(ctx, cfg)
	if !AllMet(requirements) {
		return &RequirementsError{requirements}
	}
	for _, r := range requirements {
		if r.Level == preflight.Warning {
			log.Warn("this machine lacks something", "requirement", r.Name, "detail", r.Detail, "remedy", r.Remedy)
		}
	}
	_, statErr := os.Stat(cfg.StateDir)
	if mended, err := statefile.Secure(cfg.StateDir); err != nil {
		return err //nolint:wrapcheck // it says what
	} else if mended != "" {
		log.Warn("state directory was not the agent's own, and is again: what lay in it may be anybody's", "path", cfg.StateDir, "mended", mended)
	}
	release, err := lockBoth(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	table := observe.NewTable(int(cfg.MaxMappings), int(cfg.MaxAddressesPerName))
	settings := cfg.datapath()
	settings.Log = log.With("component", "datapath")
	flows := observe.NewFlows(0)
	datapath, err := kernel.openMaps(settings, table, flows)
	if err != nil {
		// The state directory goes again if the machine lacks something: it is left as it was.
		if requirements := kernel.probeAll(ctx, cfg); !AllMet(requirements) {
			err = &RequirementsError{requirements}
			if errors.Is(statErr, os.ErrNotExist) {
				err = errors.Join(err, os.RemoveAll(cfg.StateDir))
			}
			return err
		}
		return fmt.Errorf("open datapath: %w", err)
	}
	defer func() { err = errors.Join(err, datapath.Close()) }()
	a, err := makeAgent(ctx, cfg, kernel, datapath, table, flows, log)
	if err != nil {
		return err
	}
	return a.run(ctx)
}

// lockBoth makes and locks the directories that one agent works on.
func lockBoth(cfg Config) (release func() error, err error) {
	for _, dir := range []string{cfg.StateDir, cfg.BPFDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	state, err := takeLock(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	pins, err := takeDirLock(cfg.BPFDir)
	if err != nil {
		return nil, errors.Join(err, state.release())
	}
	return func() error { return errors.Join(pins.release(), state.release()) }, nil
}

// agent is every stage, made and not running.
type agent struct {
	datapath   kernelMaps
	reconciler *enforce.Reconciler
	security   *security
	subscriber *subscribe.Subscriber
	local      *localserver.Server
	watcher    *watcher
	advice     *advice
	notifier   *notifier
	metrics    *metricsServer
	log        *slog.Logger
}

// makeAgent goes in an order in which the node is never less protected than before: what was in force
// stays, then the last rule set from disk comes back, then the rules that call it, and only then
// anything is heard from a server.
func makeAgent(ctx context.Context, cfg Config, kernel kernel, datapath kernelMaps, table *observe.Table, flows *observe.Flows, log *slog.Logger) (*agent, error) {
	id, err := node.ParseID(cfg.NodeName)
	if err != nil {
		return nil, fmt.Errorf("read node name: %w", err)
	}
	resolvers, err := cfg.resolvers()
	if err != nil {
		return nil, fmt.Errorf("read trusted resolvers: %w", err)
	}
	connections := kernel.conntrack(conntrack.Config{Names: datapath.NamesOf, Accepts: cfg.AllowedTarget == netfilter.Accept})
	addresses := &nodeAddresses{resolvers: resolvers}
	permit := func(servers []netip.AddrPort) error {
		connections.SetEndpoints(resolvers, servers)
		addresses.setServers(servers)
		return datapath.SetEndpoints(resolvers, servers)
	}
	if err := permit(literalServers(cfg.Servers)); err != nil {
		return nil, fmt.Errorf("set endpoints: %w", err)
	}
	hooksConfig := cfg.netfilter(resolvers)
	hooksConfig.Programs = netfilter.Programs(datapath.Programs())
	filter, err := kernel.openHooks(ctx, hooksConfig)
	if err != nil {
		return nil, fmt.Errorf("open packet filter: %w", err)
	}
	if !filter.IPv6() {
		log.Warn("the kernel has no IPv6: rules are for IPv4 alone")
	}
	judged, err := inherit(ctx, kernel, datapath)
	if err != nil {
		return nil, err
	}
	disk := subscribe.NewDisk(cfg.StateDir, log.With("component", "subscribe"))
	var saved enforce.Saved
	// While programs of another release judge, what is in force is theirs.
	if saved.Revision, saved.Fault = disk.Load(); saved.Revision == nil && !judged {
		saved.Revision = first(cfg, datapath, log)
	}
	if saved.Retained, err = disk.Retained(); err != nil {
		return nil, fmt.Errorf("load rule sets before: %w", err)
	}
	enforceLog := log.With("component", "enforce")
	hooks := newTakeover(filter, datapath, kernel.inUse, cfg.DNSQueryTimeout, judged, enforceLog)
	reconciler := enforce.NewReconciler(datapath, hooks, connections, disk, enforceLog)
	advice := newAdvice(kernel, cfg, filter.Backend(), log)
	security := newSecurity(cfg, id, log.With("component", "transport"))
	status := &agentStatus{
		node: id, security: security, labels: cfg.Labels, backend: filter.Backend(), started: time.Now(),
		counters: datapath.Counters, takeIn: datapath.TakeIn, table: table, flows: flows, reconciler: reconciler, fault: datapath.Fault, advice: advice, addresses: addresses, log: log.With("component", "status"),
	}
	subscriber := newSubscriber(cfg, status, permit, log)
	status.follow(subscriber)
	metrics, err := listenMetrics(ctx, cfg.MetricsListen, status, log.With("component", "metrics"))
	if err != nil {
		return nil, err
	}
	reconciler.Start(ctx, saved)
	log.Info("agent started", "node", id.String(), "iptables", filter.Backend(), "resolvers", resolvers)
	local := localserver.New(cfg.Socket, id, status, addresses, table, flows, log.With("component", "localserver"))
	notifier := &notifier{socket: cfg.NotifySocket, state: reconciler.State, log: log.With("component", "notify")}
	watcher := &watcher{hooks: filter, changed: reconciler.CheckHooks, log: enforceLog}
	return &agent{datapath, reconciler, security, subscriber, local, watcher, advice, notifier, metrics, log}, nil
}

// inherit takes over what programs of another release learned, and reports whether they judge.
func inherit(ctx context.Context, kernel kernel, datapath kernelMaps) (judged bool, err error) {
	inUse, err := kernel.inUse(ctx)
	if err != nil {
		return false, fmt.Errorf("find the programs in use: %w", err)
	}
	if judged, err = datapath.Inherit(inUse.Pins); err != nil {
		return false, fmt.Errorf("take over from another release: %w", err)
	}
	return judged, nil
}

func (a *agent) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.datapath.Run(ctx) })
	group.Go(func() error { return a.reconciler.Run(ctx) })
	group.Go(func() error { return a.security.run(ctx) })
	group.Go(func() error {
		a.security.await(ctx)
		return a.subscriber.Run(ctx)
	})
	group.Go(func() error { return a.local.Run(ctx) })
	group.Go(func() error { return a.watcher.run(ctx) })
	group.Go(func() error { return a.advice.run(ctx) })
	group.Go(func() error { return a.notifier.run(ctx) })
	group.Go(func() error { return a.metrics.run(ctx) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err //nolint:wrapcheck // each stage says what it did
	}
	a.log.Info("agent stopped, what is in force stays in force")
	return nil
}

func newSubscriber(cfg Config, status *agentStatus, permit func([]netip.AddrPort) error, log *slog.Logger) *subscribe.Subscriber {
	hello := &agentv1.Hello{
		Node: status.node.String(), Labels: cfg.Labels, AgentVersion: Version(), Kernel: kernelRelease(),
		IptablesBackend: status.backend, InstanceId: rand.Text(),
		TrustedResolvers: endpointTexts(status.addresses.Resolvers()),
	}
	reporter := report.New(status.node, status.table, status.flows, status, log.With("component", "report"))
	return subscribe.New(subscribe.Config{
		Servers: cfg.Servers, Hello: hello, Permit: permit,
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(status.security.credentials())},
	}, status.reconciler, reporter, log.With("component", "subscribe"))
}

// literalServers returns the servers that are named by address: those can be reached before any name
// is resolved.
func literalServers(servers []string) []netip.AddrPort {
	var literal []netip.AddrPort
	for _, server := range servers {
		if address, err := netip.ParseAddrPort(server); err == nil {
			literal = append(literal, netip.AddrPortFrom(address.Addr().Unmap().WithZone(""), address.Port()))
		}
	}
	return literal
}

func loopback(server string) bool {
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return false
	}
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}
