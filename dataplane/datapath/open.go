package datapath

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/nameward/nameward/bpf"
)

// ErrLayoutMismatch is wrapped by Open when pins are there that this build cannot adopt.
var ErrLayoutMismatch = errors.New("what is pinned is not what this build can adopt (`nameward-agent cleanup` removes it)")

// maxLinks is how many network interfaces can have a class.
const maxLinks = 16384

// A CPU tells of a denied or audited connection every flowInterval, and of flowBurst at once: enough
// for a person to see what is wrong, and at worst a hundredth of a CPU's time here.
const (
	flowInterval = 5 * time.Millisecond
	flowBurst    = 1000
)

// kernel is the programs and maps, opened.
type kernel struct {
	bpf.DatapathMaps
	programs map[string]*ebpf.Program
}

// openKernel adopts what is pinned and makes what is not. Nothing is pinned before the kernel has taken all
// of it. Maps come before programs, and the settings say at their first use whether they were written:
// whatever a crash leaves, the next start completes.
func openKernel(cfg Config) (*kernel, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit of locked memory: %w", err)
	}
	spec, err := bpf.LoadDatapath()
	if err != nil {
		return nil, fmt.Errorf("read compiled programs: %w", err)
	}
	unpinned, err := size(spec, cfg)
	if err != nil {
		return nil, err
	}
	if !cfg.Accepts {
		delete(spec.Programs, bpf.DatapathProgAcceptForwarded)
		delete(spec.Programs, bpf.DatapathProgAcceptLocal)
	}
	k := &kernel{programs: map[string]*ebpf.Program{}}
	if err := k.load(spec, unpinned, cfg); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

// size gives the maps their capacities: those that are pinned keep theirs. It returns those that are to be
// pinned and are not.
func size(spec *ebpf.CollectionSpec, cfg Config) (unpinned []string, err error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	spec.Maps[bpf.DatapathMapScratch].MaxEntries = uint32(cpus) * uint32(bpf.DatapathScratchLimitSCRATCH_LEVELS) //nolint:gosec // a number of CPUs
	spec.Maps[bpf.DatapathMapMappings].MaxEntries = bpf.MappingCells(cfg.MaxMappings)
	spec.Maps[bpf.DatapathMapAnswers].MaxEntries = answerBuckets(cfg.MaxMappings)
	spec.Maps[bpf.DatapathMapQuestions].MaxEntries = nearBuckets + farBuckets(cfg.MaxQueries)
	spec.Maps[bpf.DatapathMapInterfaces].MaxEntries = maxLinks
	spec.Maps[bpf.DatapathMapNameCells].MaxEntries = nameCells(cfg.MaxPatterns)
	spec.Maps[bpf.DatapathMapNameIndex].MaxEntries = indexBuckets(cfg.MaxPatterns)
	for name, m := range spec.Maps {
		if m.Pinning != ebpf.PinByName {
			continue
		}
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(cfg.mapDir(), name), nil)
		if errors.Is(err, os.ErrNotExist) {
			m.Pinning = ebpf.PinNone
			unpinned = append(unpinned, name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open pinned map %s: %w", name, err)
		}
		if name == bpf.DatapathMapCounters && pinned.MaxEntries() < m.MaxEntries {
			// Of a build that counted less. What it counted is given up: nothing rests on it.
			if err := pinned.Close(); err != nil {
				return nil, fmt.Errorf("replace map %s: %w", name, err)
			}
			m.Pinning = ebpf.PinNone
			unpinned = append(unpinned, name)
			continue
		}
		m.MaxEntries = pinned.MaxEntries()
		mismatch := m.Compatible(pinned)
		if err := errors.Join(mismatch, pinned.Close()); err != nil {
			return nil, fmt.Errorf("adopt map %s: %w: %w", name, ErrLayoutMismatch, err)
		}
	}
	return unpinned, nil
}

// nameCells makes a quarter more cells than names: for long names, and for those of two rule sets at once.
func nameCells(patterns uint32) uint32 { return min(patterns+patterns/4+64, slotCellMask) }

// indexBuckets makes 2.48 slots for each pattern, so that the buckets which the hash of a name may lead to are not
// full before the cells are: of 1,000 tables that were filled none was; where a hash leads to eight, one.
func indexBuckets(patterns uint32) uint32 { return max(patterns/100*31, 64) }

// nearBuckets of questions have room for a few hundred that are outstanding, which is usual, and stay in the
// caches of a processor.
const nearBuckets = 256

// farBuckets makes room for a quarter more questions than are to be outstanding: then each finds a place in
// its two far buckets.
func farBuckets(queries uint32) uint32 {
	const slots = uint64(len(bpf.DatapathQuestionBucket{}.State))
	return uint32((uint64(queries)*5/4 + slots) / slots) //nolint:gosec // less than queries
}

// answerBuckets makes as many slots as there can be mappings: most names have fewer answers than addresses.
func answerBuckets(mappings uint32) uint32 {
	return max(mappings/uint32(len(bpf.DatapathAnswerBucket{}.Slots)), 256) //nolint:gosec // a few
}

func (k *kernel) load(spec *ebpf.CollectionSpec, unpinned []string, cfg Config) error {
	if err := k.adoptPrograms(spec, cfg); err != nil {
		return err
	}
	if len(spec.Programs) == 0 {
		delete(spec.Maps, bpf.DatapathMapScratch)
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Maps: ebpf.MapOptions{PinPath: cfg.mapDir()},
	})
	if err != nil {
		return fmt.Errorf("load programs and maps: %w", err)
	}
	defer collection.Close()
	if err := tryRemap(collection); err != nil {
		return err
	}
	if err := pinMaps(collection, unpinned, cfg); err != nil {
		return err
	}
	k.takeMaps(collection)
	if err := k.initialise(cfg); err != nil {
		return err
	}
	for name := range spec.Programs {
		program := collection.DetachProgram(name)
		k.programs[name] = program
		if err := program.Pin(filepath.Join(cfg.programDir(), pinName(name))); err != nil {
			return fmt.Errorf("pin program %s: %w", name, err)
		}
	}
	return k.checkPrograms()
}

func pinMaps(collection *ebpf.Collection, names []string, cfg Config) error {
	for _, dir := range []string{cfg.mapDir(), cfg.programDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory of pins (is a bpf file system mounted there?): %w", err)
		}
	}
	for _, name := range names {
		pin := filepath.Join(cfg.mapDir(), name)
		if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) { // one that is replaced
			return fmt.Errorf("replace map %s: %w", name, err)
		}
		if err := collection.Maps[name].Pin(pin); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	return nil
}

func pinName(program string) string { return program + "-" + bpf.Build() }

// adoptPrograms opens the programs of this build that are pinned, and takes them out of what is to load.
func (k *kernel) adoptPrograms(spec *ebpf.CollectionSpec, cfg Config) error {
	for name := range spec.Programs {
		program, err := ebpf.LoadPinnedProgram(filepath.Join(cfg.programDir(), pinName(name)), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open pinned program %s: %w", name, err)
		}
		k.programs[name] = program
		delete(spec.Programs, name)
	}
	return nil
}

func (k *kernel) takeMaps(c *ebpf.Collection) {
	for name, to := range map[string]**ebpf.Map{
		bpf.DatapathMapAnswers: &k.Answers, bpf.DatapathMapCounters: &k.Counters,
		bpf.DatapathMapCgroups: &k.Cgroups, bpf.DatapathMapCgroupPairs: &k.CgroupPairs, bpf.DatapathMapCgroupTables: &k.CgroupTables,
		bpf.DatapathMapDestinations: &k.Destinations, bpf.DatapathMapEndpoints: &k.Endpoints,
		bpf.DatapathMapCommonSets: &k.CommonSets,
		bpf.DatapathMapEvents:     &k.Events, bpf.DatapathMapFlowLimits: &k.FlowLimits,
		bpf.DatapathMapGenerations: &k.Generations,
		bpf.DatapathMapInterfaces:  &k.Interfaces, bpf.DatapathMapMappings: &k.Mappings,
		bpf.DatapathMapNameCells: &k.NameCells, bpf.DatapathMapNameIndex: &k.NameIndex,
		bpf.DatapathMapPatterns: &k.Patterns, bpf.DatapathMapQuestions: &k.Questions, bpf.DatapathMapRuleSets: &k.RuleSets,
		bpf.DatapathMapSettings: &k.Settings,
		bpf.DatapathMapHosts:    &k.Hosts, bpf.DatapathMapSources: &k.Sources, bpf.DatapathMapState: &k.State,
		bpf.DatapathMapVerdicts: &k.Verdicts, bpf.DatapathMapWorkloads: &k.Workloads,
	} {
		*to = c.DetachMap(name)
	}
}

// checkPrograms makes sure that adopted programs use the maps that are pinned: somebody may have removed
// some pins and not others, and a program cannot be given other maps.
func (k *kernel) checkPrograms() error {
	want, err := mapID(k.State)
	if err != nil {
		return err
	}
	for _, name := range []string{bpf.DatapathProgEgressForwarded, bpf.DatapathProgDnsResponse} {
		info, err := k.programs[name].Info()
		if err != nil {
			return fmt.Errorf("inspect program %s: %w", name, err)
		}
		if ids, _ := info.MapIDs(); !slices.Contains(ids, want) {
			return fmt.Errorf("adopt program %s: it uses maps that are no longer pinned: %w", name, ErrLayoutMismatch)
		}
	}
	return nil
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("inspect map %s: %w", m, err)
	}
	id, _ := info.ID()
	return id, nil
}

// initialise brings the settings up to date. The hash key is made once: name_index and answers rest on it.
func (k *kernel) initialise(cfg Config) error {
	s, err := k.settings()
	if err != nil {
		return err
	}
	if s.HashKey == [4]uint64{} {
		var random [32]byte
		_, _ = rand.Read(random[:]) // never fails
		for i := range s.HashKey {
			s.HashKey[i] = binary.LittleEndian.Uint64(random[8*i:])
		}
		s.NextMatchSet = 1
	}
	s.IndexBuckets, s.AnswerBuckets = k.NameIndex.MaxEntries(), k.Answers.MaxEntries()
	s.NearBuckets, s.FarBuckets = nearBuckets, k.Questions.MaxEntries()-nearBuckets
	s.NameCells, s.MappingCells = k.NameCells.MaxEntries(), k.Mappings.MaxEntries()
	s.AddressesPerName = uint16(cfg.MaxAddressesPerName) //nolint:gosec // checked by whoever configures
	s.QueryTimeoutNs = uint64(cfg.QueryTimeout)          //nolint:gosec // checked by whoever configures
	s.MinTtlNs = uint64(cfg.MinTTL)                      //nolint:gosec // see above
	s.MaxTtlNs = uint64(cfg.MaxTTL)                      //nolint:gosec // see above
	s.TtlGraceNs = uint64(cfg.TTLGrace)                  //nolint:gosec // see above
	if err := k.putSettings(s); err != nil {
		return err
	}
	return k.limitFlows()
}

func (k *kernel) settings() (bpf.DatapathSettings, error) {
	var s bpf.DatapathSettings
	if err := k.Settings.Lookup(uint32(0), &s); err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	return s, nil
}

func (k *kernel) putSettings(s bpf.DatapathSettings) error {
	if err := k.Settings.Put(uint32(0), &s); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// limitFlows gives each CPU its share of flow events.
func (k *kernel) limitFlows() error {
	limit := bpf.DatapathFlowLimit{IntervalNs: uint64(flowInterval), BurstNs: uint64(flowBurst * flowInterval)}
	if err := k.FlowLimits.Put(uint32(0), &limit); err != nil {
		return fmt.Errorf("write limit of flow events: %w", err)
	}
	return nil
}

func (k *kernel) close() error {
	errs := []error{k.Close()}
	for _, p := range k.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
