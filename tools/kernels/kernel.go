package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A kernel is one of Debian's for amd64, as an operator names it: 6.1, 6.12-cloud, 6.1-rt.
type kernel struct {
	version string // 6.1
	flavour string // empty, cloud or rt
}

// matrix is every kernel that is supported, the one that demands most of the programs first.
var matrix = []kernel{{"6.1", ""}, {"6.1", "cloud"}, {"6.1", "rt"}, {"6.12", ""}, {"6.12", "cloud"}, {"6.12", "rt"}}

var kernelName = regexp.MustCompile(`^([0-9]+\.[0-9]+)(?:-(cloud|rt))?$`)

// parseKernels reads names with spaces or commas between them. Without any it is all of the matrix.
func parseKernels(text string) ([]kernel, error) {
	var kernels []kernel
	for _, name := range words(text) {
		m := kernelName.FindStringSubmatch(name)
		if m == nil {
			return nil, fmt.Errorf("kernel %q: want a version, and -cloud or -rt behind it, as in 6.1 or 6.12-rt", name)
		}
		kernels = append(kernels, kernel{m[1], m[2]})
	}
	if len(kernels) == 0 {
		return slices.Clone(matrix), nil
	}
	return kernels, nil
}

func (k kernel) String() string { return k.version + k.suffix() }

func (k kernel) suffix() string {
	if k.flavour == "" {
		return ""
	}
	return "-" + k.flavour
}

// metapackages are those that may depend on the newest package of this kernel: of this version, where the
// distribution has several, and of the flavour.
func (k kernel) metapackages() []string {
	return []string{"linux-image-" + k.String() + "-amd64", "linux-image" + k.suffix() + "-amd64"}
}

var imageName = regexp.MustCompile(`^linux-image-([0-9]+\.[0-9]+)[^_]*?(?:-(cloud|rt))?-amd64(?:_.*\.deb)?$`)

// isImage says whether the name of a package, or of its file, is that of an image of this kernel.
func (k kernel) isImage(name string) bool {
	m := imageName.FindStringSubmatch(name)
	return m != nil && m[1] == k.version && m[2] == k.flavour && strings.ContainsAny(name[len("linux-image-"+k.version):][:1], ".-+")
}

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\t' })
}
