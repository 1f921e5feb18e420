package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseKernels(t *testing.T) {
	got, err := parseKernels("6.12-rt,6.1 6.1-cloud")
	if err != nil {
		t.Fatal(err)
	}
	want := []kernel{{"6.12", "rt"}, {"6.1", ""}, {"6.1", "cloud"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(kernel{})); diff != "" {
		t.Errorf("kernels (-want +got):\n%s", diff)
	}
	if got, err := parseKernels(" "); err != nil || len(got) != len(matrix) {
		t.Errorf("no name: got %v, %v; want all of the matrix", got, err)
	}
	for _, name := range []string{"6", "6.1-", "6.1-plain", "linux-image-6.1", "6.1.5"} {
		if got, err := parseKernels(name); err == nil {
			t.Errorf("%q: got %v, want an error", name, got)
		}
	}
}

func TestImagesOfAKernel(t *testing.T) {
	names := []string{
		"linux-image-6.1.0-56-amd64", "linux-image-6.1.0-56-cloud-amd64", "linux-image-6.1.0-56-rt-amd64",
		"linux-image-6.12.117+deb12-amd64", "linux-image-6.12.117+deb12-cloud-amd64",
		"linux-image-6.12.117+deb12-rt-amd64_6.12.117-1~deb12u1_amd64.deb",
		"linux-image-amd64", "linux-image-6.1.0-56-amd64-unsigned", "linux-image-6.1.0-56-amd64-dbg",
		"linux-image-6.10.3-amd64", "linux-headers-6.1.0-56-amd64",
	}
	for text, want := range map[string][]string{
		"6.1": {names[0]}, "6.1-cloud": {names[1]}, "6.1-rt": {names[2]},
		"6.12": {names[3]}, "6.12-cloud": {names[4]}, "6.12-rt": {names[5]},
	} {
		kernels, err := parseKernels(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range names {
			if kernels[0].isImage(name) {
				got = append(got, name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("images of %s (-want +got):\n%s", text, diff)
		}
	}
}
