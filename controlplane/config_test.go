package controlplane_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/controlplane"
)

func TestValidateNamesEveryFault(t *testing.T) {
	cfg := controlplane.Config{Listen: "nowhere", Store: "paper", MetricsListen: "10.0.0.1", LogLevel: "loud", LogFormat: "xml"}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	var got []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		flag, _, _ := strings.Cut(line, ":")
		got = append(got, flag)
	}
	want := []string{"listen", "tls-cert", "data-dir", "store", "metrics-listen", "audit-file-size", "audit-files", "max-connections", "max-mappings", "max-flow-events", "drain-time", "log-level", "log-format"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flags with faults (-want +got):\n%s", diff)
	}
}

// TestEtcdIsNotPassedOver: a server that was given a cluster does not quietly keep everything in a file of its own.
func TestEtcdIsNotPassedOver(t *testing.T) {
	cfg := controlplane.DefaultConfig()
	cfg.Insecure, cfg.EtcdEndpoints, cfg.EtcdCA = true, []string{"192.0.2.1:2379"}, "ca.crt"
	err := cfg.Validate()
	for _, want := range []string{"etcd-endpoints: are 192.0.2.1:2379, and --store is bolt", `etcd-ca: is "ca.crt"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	if cfg.Store = "etcd"; cfg.Validate() != nil {
		t.Errorf("with --store etcd: %v", cfg.Validate())
	}
}

func TestInsecureIsForLoopbackOnly(t *testing.T) {
	for address, valid := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:7443": true, "localhost:7443": true, ":7443": false, "0.0.0.0:7443": false, "192.0.2.1:7443": false,
	} {
		cfg := controlplane.DefaultConfig()
		cfg.Insecure, cfg.Listen = true, address
		if err := cfg.Validate(); (err == nil) != valid {
			t.Errorf("%s: %v, want valid %t", address, err, valid)
		}
	}
}
