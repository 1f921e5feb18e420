package bpf_test

import (
	"testing"

	"github.com/nameward/nameward/bpf/bpftest"
)

func TestLoad(t *testing.T) {
	bpftest.Load(t, 1024)
}
