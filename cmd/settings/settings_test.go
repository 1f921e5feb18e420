package settings_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/nameward/nameward/cmd/settings"
)

type config struct {
	DataDir, Listen, LogLevel string
	Insecure                  bool
	Max                       int
	Servers                   []string
	Labels                    map[string]string
}

// complete runs Complete with a command line, an environment and a file.
func complete(t *testing.T, arguments []string, env map[string]string, file string) (config, error) {
	t.Helper()
	var c config
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.StringVar(&c.DataDir, "data-dir", "/default", "")
	flags.StringVar(&c.Listen, "listen", "", "")
	flags.StringVar(&c.LogLevel, "log-level", "info", "")
	flags.BoolVar(&c.Insecure, "insecure", false, "")
	flags.IntVar(&c.Max, "max", 1, "")
	flags.StringSliceVar(&c.Servers, "server", nil, "")
	flags.StringToStringVar(&c.Labels, "label", nil, "")
	flags.String(settings.ConfigFlag, "", "")
	if err := flags.Parse(arguments); err != nil {
		t.Fatal(err)
	}
	return c, settings.Complete(flags, settings.Source{
		LookupEnv: func(name string) (string, bool) { text, ok := env[name]; return text, ok },
		ReadFile: func(path string) ([]byte, error) {
			if path != "nameward.yaml" {
				return nil, fs.ErrNotExist
			}
			return []byte(file), nil
		},
	})
}

func TestCommandLineGoesBeforeEnvironmentBeforeFile(t *testing.T) {
	file := "data-dir: /file\nlog-level: warn\nlisten: c\ninsecure: true\nmax: 500000000\nserver: [a, b]\nlabel: {role: web, rack: 7}\n"
	env := map[string]string{"NAMEWARD_CONFIG": "nameward.yaml", "NAMEWARD_LOG_LEVEL": "debug", "NAMEWARD_LISTEN": "b", "NAMEWARD_DATA_DIR": ""}
	got, err := complete(t, []string{"--listen", "a"}, env, file)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		DataDir: "/file", Listen: "a", LogLevel: "debug", Insecure: true, Max: 500_000_000,
		Servers: []string{"a", "b"}, Labels: map[string]string{"role": "web", "rack": "7"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestFaultsAreNamedAllAtOnce(t *testing.T) {
	_, err := complete(t, []string{"--config", "nameward.yaml"}, map[string]string{"NAMEWARD_INSECURE": "perhaps"}, "lisen: x\nconfig: y\nmax: [1, 2]\n")
	for _, name := range []string{"NAMEWARD_INSECURE", "lisen: unknown key", "config: unknown key", "max: takes one value"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
	if _, err := complete(t, []string{"--config", "other.yaml"}, nil, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
