package settings_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/nameward/nameward/cmd/settings"
)

type config struct {
	DataDir  string
	Insecure bool
	Max      uint32
	Wait     time.Duration
	Servers  []string
	Labels   map[string]string
}

func defaults() config { return config{DataDir: "/default", Max: 1, Wait: time.Second} }

// source is what a case completes the flags from. The file is nameward.yaml.
type source struct {
	arguments []string
	env       map[string]string
	file      string
	silent    []string
}

func (s source) complete(t *testing.T) (config, error) {
	t.Helper()
	c := defaults()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.StringVar(&c.DataDir, "data-dir", c.DataDir, "")
	flags.BoolVar(&c.Insecure, "insecure", false, "")
	flags.Uint32Var(&c.Max, "max", c.Max, "")
	flags.DurationVar(&c.Wait, "wait", c.Wait, "")
	flags.StringSliceVar(&c.Servers, "server", nil, "")
	flags.StringToStringVar(&c.Labels, "label", nil, "")
	flags.Bool("version", false, "")
	flags.String(settings.ConfigFlag, "", "")
	if err := flags.Parse(s.arguments); err != nil {
		t.Fatal(err)
	}
	err := settings.Complete(flags, settings.Source{
		LookupEnv: func(name string) (string, bool) { text, ok := s.env[name]; return text, ok },
		ReadFile: func(path string) ([]byte, error) {
			if path != "nameward.yaml" {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(s.file), nil
		},
		Silent: s.silent,
	})
	return c, err
}

func TestValues(t *testing.T) {
	file := []string{"--config", "nameward.yaml"}
	with := func(set func(*config)) config { c := defaults(); set(&c); return c }
	tests := []struct {
		name string
		from source
		want config
	}{
		{"nothing", source{}, defaults()},
		{
			"variable",
			source{env: map[string]string{"NAMEWARD_DATA_DIR": "/env"}},
			with(func(c *config) { c.DataDir = "/env" }),
		},
		{
			"command line before variable and file",
			source{append(slices.Clone(file), "--data-dir", "/flag"), map[string]string{"NAMEWARD_DATA_DIR": "/env"}, "data-dir: /file", nil},
			with(func(c *config) { c.DataDir = "/flag" }),
		},
		{
			"variable before file",
			source{file, map[string]string{"NAMEWARD_DATA_DIR": "/env"}, "data-dir: /file", nil},
			with(func(c *config) { c.DataDir = "/env" }),
		},
		{
			"empty variable is none",
			source{file, map[string]string{"NAMEWARD_DATA_DIR": ""}, "data-dir: /file", nil},
			with(func(c *config) { c.DataDir = "/file" }),
		},
		{"key without a value is none", source{file, nil, "data-dir:\nserver:\n", nil}, defaults()},
		{"empty text is a value", source{file, nil, `data-dir: ""`, nil}, with(func(c *config) { c.DataDir = "" })},
		{"empty file", source{file, nil, "", nil}, defaults()},
		{
			"file named by variable",
			source{nil, map[string]string{"NAMEWARD_CONFIG": "nameward.yaml"}, "insecure: true", nil},
			with(func(c *config) { c.Insecure = true }),
		},
		{
			"file of the command line before that of the variable",
			source{file, map[string]string{"NAMEWARD_CONFIG": "other.yaml"}, "wait: 5s", nil},
			with(func(c *config) { c.Wait = 5 * time.Second }),
		},
		{"number in all its digits", source{file, nil, "max: 4000000001", nil}, with(func(c *config) { c.Max = 4_000_000_001 })},
		{"hexadecimal number", source{file, nil, "max: 0x20000000", nil}, with(func(c *config) { c.Max = 0x20000000 })},
		{"list", source{file, nil, "server: [a, b]", nil}, with(func(c *config) { c.Servers = []string{"a", "b"} })},
		{"repeatable flag with one value", source{file, nil, "server: a", nil}, with(func(c *config) { c.Servers = []string{"a"} })},
		{
			"variable replaces the whole list",
			source{file, map[string]string{"NAMEWARD_SERVER": "c,d"}, "server: [a, b]", nil},
			with(func(c *config) { c.Servers = []string{"c", "d"} }),
		},
		{
			"mapping",
			source{file, nil, "label: {role: web, rack: 7, spare: true}", nil},
			with(func(c *config) { c.Labels = map[string]string{"role": "web", "rack": "7", "spare": "true"} }),
		},
		{
			"list of pairs",
			source{file, nil, "label: [role=web, rack=7]", nil},
			with(func(c *config) { c.Labels = map[string]string{"role": "web", "rack": "7"} }),
		},
		{
			"silent",
			source{file, map[string]string{"NAMEWARD_DATA_DIR": "/env", "NAMEWARD_WAIT": "2s"}, "data-dir: [1]\noutput: json", []string{"data-dir", "output"}},
			with(func(c *config) { c.Wait = 2 * time.Second }),
		},
		{"version is a request", source{env: map[string]string{"NAMEWARD_VERSION": "0.1.0"}}, defaults()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.from.complete(t)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unknown key", "lisen: x", "nameward.yaml: lisen: unknown key"},
		{"slip of the keyboard", "servr: x", `nameward.yaml: servr: unknown key (did you mean "server"?)`},
		{"the file names no file", "config: x", "nameward.yaml: config: unknown key"},
		{"the file makes no request", "version: true", "nameward.yaml: version: unknown key"},
		{"value of another type", "wait: soon", `nameward.yaml: wait: "soon": `},
		{"list for a scalar", "max: [1]", "nameward.yaml: max: takes one value, not a list"},
		{"mapping for a scalar", "data-dir: {a: b}", "nameward.yaml: data-dir: takes no mapping"},
		{"mapping for a list", "server: {a: b}", "nameward.yaml: server: takes no mapping"},
		{"list in a list", "server: [[a]]", "nameward.yaml: server: takes plain values only"},
		{"nothing in a list", "server: [a, ]\nlabel: [~]", "nameward.yaml: label: takes plain values only"},
		{"mapping in a mapping", "label: {role: {a: b}}", "nameward.yaml: label: role: takes plain values only"},
		{"no pair", "label: [role]", `nameward.yaml: label: "role": `},
		{"key twice", "max: 1\nmax: 2", "read configuration nameward.yaml: "},
		{"no mapping", "- a", "read configuration nameward.yaml: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := source{arguments: []string{"--config", "nameward.yaml"}, file: test.file}.complete(t)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			got.Servers, got.Labels = nil, nil
			if diff := cmp.Diff(defaults(), got); diff != "" {
				t.Errorf("a refused value changed the flag (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFaultsComeAllAtOnce(t *testing.T) {
	env := map[string]string{"NAMEWARD_INSECURE": "perhaps", "NAMEWARD_MAX": "many"}
	_, err := source{[]string{"--config", "nameward.yaml"}, env, "lisen: x\nwait: soon\n", nil}.complete(t)
	for _, name := range []string{`NAMEWARD_INSECURE: "perhaps"`, `NAMEWARD_MAX: "many"`, "lisen: unknown key", `wait: "soon"`} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
	// A file that cannot be read hides nothing of the environment.
	_, err = source{[]string{"--config", "other.yaml"}, env, "", nil}.complete(t)
	for _, name := range []string{"NAMEWARD_INSECURE", "NAMEWARD_MAX", "read configuration: open other.yaml"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}
