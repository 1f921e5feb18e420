package bpf_test

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
)

const cacheLine = 64

// TestLines keeps what a packet needs of a table in as few lines of the cache as it fits into: elsewhere the kernel
// begins the first element wherever the fields of the map end.
func TestLines(t *testing.T) {
	spec, err := bpf.LoadDatapath()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		bpf.DatapathMapSettings, bpf.DatapathMapGenerations, bpf.DatapathMapNameIndex, bpf.DatapathMapNameCells,
		bpf.DatapathMapCommonSets, bpf.DatapathMapQuestions, bpf.DatapathMapAnswers, bpf.DatapathMapMappings,
		bpf.DatapathMapScratch,
	} {
		if spec.Maps[name].Flags&unix.BPF_F_MMAPABLE == 0 {
			t.Errorf("elements of %s begin anywhere in a line", name)
		}
	}
	for _, name := range []string{
		bpf.DatapathMapNameIndex, bpf.DatapathMapNameCells, bpf.DatapathMapCommonSets, bpf.DatapathMapQuestions, bpf.DatapathMapAnswers, bpf.DatapathMapMappings,
		bpf.DatapathMapScratch,
	} {
		if size := spec.Maps[name].ValueSize; size%cacheLine != 0 {
			t.Errorf("elements of %s have %d bytes: not all of them begin at a line", name, size)
		}
	}
	var settings bpf.DatapathSettings
	if begin, end := unsafe.Offsetof(settings.Resolvers), unsafe.Offsetof(settings.NextMatchSet); end > 2*cacheLine || begin > cacheLine {
		t.Errorf("what else programs need of the settings is at bytes %d to %d", begin, end)
	}
	if end := unsafe.Offsetof(settings.QueryTimeoutNs) + unsafe.Sizeof(settings.QueryTimeoutNs); end > cacheLine {
		t.Errorf("what a question needs of the settings ends at byte %d", end)
	}
	if size := spec.Maps[bpf.DatapathMapGenerations].ValueSize; cacheLine%size != 0 {
		t.Errorf("a generation has %d bytes: one of them may be in two lines", size)
	}
}
