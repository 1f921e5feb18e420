package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"

	"github.com/nameward/nameward/dataplane/preflight"
)

// helper is a function of the kernel that programs of a type call.
type helper struct {
	program ebpf.ProgramType
	call    asm.BuiltinFunc
}

func (h helper) String() string { return h.call.String() }

// probeFeatures tries each feature that the compiled programs use, one by one: where they do not load, it
// says which is missing.
func probeFeatures(spec *ebpf.CollectionSpec) []preflight.Requirement {
	types, helpers := map[ebpf.ProgramType]bool{}, map[helper]bool{}
	for _, program := range spec.Programs {
		types[program.Type] = true
		for _, instruction := range program.Instructions {
			if instruction.IsBuiltinCall() {
				helpers[helper{program.Type, asm.BuiltinFunc(instruction.Constant)}] = true //nolint:gosec // its number
			}
		}
	}
	mapTypes := map[ebpf.MapType]bool{}
	for _, m := range spec.Maps {
		mapTypes[m.Type] = true
	}
	const remedy = newKernel + "; see capabilities first"
	_, btfErr := btf.LoadKernelSpec()
	return []preflight.Requirement{
		preflight.Judge("instructions", "version 3, bounded loops, more than 4,096", errors.Join(features.HaveV3ISA(), features.HaveBoundedLoops(), features.HaveLargeInstructions()), remedy),
		preflight.Judge("kernel types (BTF)", "/sys/kernel/btf/vmlinux", btfErr, "run a kernel with CONFIG_DEBUG_INFO_BTF=y, and let the agent read /sys/kernel/btf"),
		probeEach("program types", types, features.HaveProgramType, remedy),
		probeEach("map types", mapTypes, features.HaveMapType, remedy),
		probeEach("helpers", helpers, func(h helper) error { return features.HaveProgramHelper(h.program, h.call) }, remedy),
	}
}

// probeEach tries each of a kind, and names those that fail.
func probeEach[E interface {
	comparable
	fmt.Stringer
}](name string, used map[E]bool, have func(E) error, remedy string) preflight.Requirement {
	list := slices.SortedFunc(maps.Keys(used), func(a, b E) int { return cmp.Compare(a.String(), b.String()) })
	var names []string
	var errs []error
	for _, e := range list {
		if err := have(e); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e, err))
		}
		names = append(names, e.String())
	}
	return preflight.Judge(name, strings.Join(slices.Compact(names), ", "), errors.Join(errs...), remedy)
}
