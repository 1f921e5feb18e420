package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": "kernel/net/netfilter/xt_bpf.ko.xz: kernel/net/netfilter/x_tables.ko.xz\n" +
			"kernel/net/netfilter/x_tables.ko.xz:\n" +
			"kernel/drivers/net/veth.ko.xz: kernel/lib/pool.ko.xz\nkernel/lib/pool.ko.xz:\n" +
			"kernel/net/wireless/cfg80211.ko.xz: kernel/net/rfkill/rfkill.ko.xz\nkernel/net/rfkill/rfkill.ko.xz:\n" +
			"kernel/net/netfilter/nf-odd.ko.xz:\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := readModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel/drivers/net/veth.ko.xz", "kernel/lib/pool.ko.xz", "kernel/net/netfilter/nf-odd.ko.xz",
		"kernel/net/netfilter/x_tables.ko.xz", "kernel/net/netfilter/xt_bpf.ko.xz",
	}
	if diff := cmp.Diff(want, m.wanted()); diff != "" {
		t.Errorf("what the guest gets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"tun", "bpf"}, m.lacks([]string{"xt_bpf", "ext4", "tun", "nf_odd", "nf-odd", "bpf"})); diff != "" {
		t.Errorf("what the kernel lacks (-want +got):\n%s", diff)
	}
}

func TestAgentModules(t *testing.T) {
	names, err := readModuleNames("../../" + agentModules)
	if err != nil || len(names) < 10 {
		t.Errorf("got %q, %v", names, err)
	}
}
