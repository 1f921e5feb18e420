package controlplane_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/nameward/nameward/controlplane"
)

func TestValidateNamesEveryFault(t *testing.T) {
	cfg := controlplane.Config{Listen: "nowhere", Store: "etcd", MetricsListen: "10.0.0.1", LogLevel: "loud", LogFormat: "xml"}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	var got []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		flag, _, _ := strings.Cut(line, ":")
		got = append(got, flag)
	}
	want := []string{"listen", "insecure", "data-dir", "store", "metrics-listen", "max-mappings", "log-level", "log-format"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flags with faults (-want +got):\n%s", diff)
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

// complete runs Complete with a command line, an environment and a file.
func complete(t *testing.T, arguments []string, env map[string]string, file string) (controlplane.Config, error) {
	t.Helper()
	cfg := controlplane.DefaultConfig()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	cfg.Bind(flags)
	flags.String(controlplane.ConfigFlag, "", "")
	if err := flags.Parse(arguments); err != nil {
		t.Fatal(err)
	}
	lookup := func(name string) (string, bool) { text, ok := env[name]; return text, ok }
	read := func(path string) ([]byte, error) {
		if path != "server.yaml" {
			return nil, fs.ErrNotExist
		}
		return []byte(file), nil
	}
	return cfg, controlplane.Complete(flags, lookup, read)
}

func TestCommandLineGoesBeforeEnvironmentBeforeFile(t *testing.T) {
	file := "data-dir: /file\nlog-level: warn\nlisten: 127.0.0.1:3\ninsecure: true\nmax-mappings: 5000000\n"
	env := map[string]string{"NAMEWARD_CONFIG": "server.yaml", "NAMEWARD_LOG_LEVEL": "debug", "NAMEWARD_LISTEN": "127.0.0.1:2"}
	got, err := complete(t, []string{"--listen", "127.0.0.1:1"}, env, file)
	if err != nil {
		t.Fatal(err)
	}
	want := controlplane.DefaultConfig()
	want.Listen, want.LogLevel, want.DataDir, want.Insecure, want.MaxMappings = "127.0.0.1:1", "debug", "/file", true, 5_000_000
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestSettingsThatCannotBeAreNamed(t *testing.T) {
	_, err := complete(t, []string{"--config", "server.yaml"}, map[string]string{"NAMEWARD_INSECURE": "perhaps"}, "lisen: x\nconfig: y\nstore: [a, b]\n")
	for _, name := range []string{"NAMEWARD_INSECURE", `"lisen"`, `"config"`, "store"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
	if _, err := complete(t, []string{"--config", "other.yaml"}, nil, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
