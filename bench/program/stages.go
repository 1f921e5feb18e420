package program

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
)

// A Stage is one part of the way through a program, in words.
type Stage struct {
	Name  string
	Lines string // of the cache, that it touches of maps and of working memory, by reading
	last  stagesStage
}

// Stages of a program, in order: the last is all of it.
var (
	ResponseStages = []Stage{
		{"called", "–", stagesStageSTAGE_NOTHING},
		{"packet copied", "working memory 3", stagesStageSTAGE_MESSAGE},
		{"clock read", "settings 1, state 1, working memory 1", stagesStageSTAGE_CLOCK},
		{"asker hashed, its bucket fetched", "working memory 1, questions 1", stagesStageSTAGE_ASKER},
		{"name read", "working memory 3", stagesStageSTAGE_NAME},
		{"names, what was told, mapping fetched", "index 1 to 2, cells 1 to 2, answers 1, mapping 1", stagesStageSTAGE_AHEAD},
		{"question found", "questions 1", stagesStageSTAGE_QUESTION},
		{"match sets of the name", "generations 1, working memory 3", stagesStageSTAGE_MATCH},
		{"record read", "working memory 1", stagesStageSTAGE_RECORDS},
		{"question used up", "–", stagesStageSTAGE_TAKEN},
		{"mapping prolonged", "settings 1", stagesStageSTAGE_MAPPINGS},
		{"told or not, counted", "counters 2", stagesStageSTAGE_ALL},
	}
	QueryStages = []Stage{
		{"called", "–", stagesStageSTAGE_NOTHING},
		{"packet copied", "working memory 2 to 3", stagesStageSTAGE_MESSAGE},
		{"resolver is trusted", "settings 2", stagesStageSTAGE_TRUSTED},
		{"clock read", "working memory 1", stagesStageSTAGE_CLOCK},
		{"asker hashed, its bucket fetched", "working memory 1, questions 1", stagesStageSTAGE_ASKER},
		{"name read", "working memory 3", stagesStageSTAGE_NAME},
		{"rules refuse nothing", "state 1, generations 1", stagesStageSTAGE_RULES},
		{"place found", "working memory 1", stagesStageSTAGE_QUESTION},
		{"place taken, counted", "questions 1, counters 2", stagesStageSTAGE_ALL},
	}
	EgressStages = []Stage{
		{"called", "–", stagesStageSTAGE_NOTHING},
		{"rules in force", "state 1, generations 1", stagesStageSTAGE_GENERATION},
		{"header of IP", "packet", stagesStageSTAGE_HEADERS},
		{"workload", "cell 1 for each length of CIDRs", stagesStageSTAGE_WORKLOAD},
		{"header of the transport", "packet", stagesStageSTAGE_TRANSPORT},
		{"mapping looked up", "settings 1, cell 1", stagesStageSTAGE_MAPPINGS},
		{"rules asked, counted", "cell 1, counter 2", stagesStageSTAGE_ALL},
	}
)

// Staged are our programs upon the maps of others, ending after a stage.
type Staged struct{ objects stagesObjects }

// NewStaged loads them upon the maps that a pinned program has, and those of further ones.
func NewStaged(pins ...string) (*Staged, error) {
	spec, err := loadStages()
	if err != nil {
		return nil, fmt.Errorf("read staged programs: %w", err)
	}
	shared := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range shared {
			_ = m.Close() // the programs hold them
		}
	}()
	for _, pin := range pins {
		if err := mapsOf(pin, shared); err != nil {
			return nil, fmt.Errorf("open maps of %s: %w", pin, err)
		}
	}
	for name, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
		if with := shared[name]; with != nil {
			m.MaxEntries = with.MaxEntries()
		}
	}
	for name, m := range shared {
		if spec.Maps[name] == nil {
			delete(shared, name)
			_ = m.Close() // of no program here
		}
	}
	s := &Staged{}
	if err := spec.LoadAndAssign(&s.objects, &ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		return nil, fmt.Errorf("load staged programs: %w", err)
	}
	return s, nil
}

// mapsOf opens the maps of a pinned program, by name.
func mapsOf(pin string, maps map[string]*ebpf.Map) error {
	program, err := ebpf.LoadPinnedProgram(pin, nil)
	if err != nil {
		return err
	}
	defer program.Close() //nolint:errcheck // the pin keeps it
	info, err := program.Info()
	if err != nil {
		return err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return err
		}
		info, err := m.Info()
		if err != nil {
			return errors.Join(err, m.Close())
		}
		if maps[info.Name] != nil {
			_ = m.Close() // there already
			continue
		}
		maps[info.Name] = m
	}
	return nil
}

// Close unloads the programs that no pin keeps.
func (s *Staged) Close() error { return s.objects.Close() }

// Pin pins one of the programs.
func (s *Staged) Pin(name, path string) error {
	program := map[string]*ebpf.Program{
		bpf.DatapathProgDnsResponse:       s.objects.DnsResponse,
		bpf.DatapathProgDnsQueryForwarded: s.objects.DnsQueryForwarded,
		bpf.DatapathProgEgressForwarded:   s.objects.EgressForwarded,
	}[name]
	if err := program.Pin(path); err != nil {
		return fmt.Errorf("pin staged program %s: %w", name, err)
	}
	return nil
}

// EndAfter has each program end after a stage that it has. Questions that were not answered, since the stage before
// ended there, are forgotten: in the product few wait.
func (s *Staged) EndAfter(stage Stage) error {
	if err := s.forgetQuestions(); err != nil {
		return fmt.Errorf("forget questions: %w", err)
	}
	if err := s.objects.LastStage.Set(stage.last); err != nil {
		return fmt.Errorf("set the last stage: %w", err)
	}
	return nil
}

// forgetQuestions empties the near buckets: of others nobody knows without their notes.
func (s *Staged) forgetQuestions() error {
	var settings bpf.DatapathSettings
	if err := s.objects.Settings.Lookup(uint32(0), &settings); err != nil {
		return err
	}
	buckets := make([]uint32, settings.NearBuckets)
	for i := range buckets {
		buckets[i] = uint32(i) //nolint:gosec // one of them
	}
	_, err := s.objects.Questions.BatchUpdate(buckets, make([]bpf.DatapathQuestionBucket, len(buckets)), nil)
	return err
}
