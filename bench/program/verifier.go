package program

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bench/report"
)

// verifierLimit is how many instructions the kernel looks at before it refuses a program.
const verifierLimit = 1_000_000

// verified is what the verifier had to do for each program.
func (n *node) verified() (report.Table, error) {
	table := report.Table{
		Caption: "Programs", Columns: []string{"program", "instructions verified", "of the limit", "instructions", "bytes of machine code"},
	}
	for _, program := range n.programs {
		row, err := verified(program)
		if err != nil {
			return table, err
		}
		table.Rows = append(table.Rows, row)
	}
	slices.SortFunc(table.Rows, slices.Compare)
	return table, nil
}

func verified(program *ebpf.Program) ([]string, error) {
	info, err := program.Info()
	if err != nil {
		return nil, fmt.Errorf("inspect program: %w", err)
	}
	count, known := info.VerifiedInstructions()
	if !known {
		return nil, errors.New("this kernel does not tell how many instructions it verified (Linux 5.16 and later do)")
	}
	translated, err := info.TranslatedSize()
	if err != nil {
		return nil, fmt.Errorf("inspect program: %w", err)
	}
	code, err := info.JitedSize()
	if err != nil {
		return nil, fmt.Errorf("inspect program: %w", err)
	}
	const instructionBytes = 8
	return []string{
		info.Name, report.Thousands(float64(count)), report.Percent(float64(count) / verifierLimit),
		report.Thousands(float64(translated / instructionBytes)), report.Thousands(float64(code)),
	}, nil
}

func (n *node) mapNames() []string { return slices.Sorted(maps.Keys(n.maps)) }
