package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nameward/nameward/cmd/settings"
)

// TestDeployedSettings: the settings of the package, uncommented, and those for Kubernetes are settings that the server
// has, with values that it takes; so are the variables.
func TestDeployedSettings(t *testing.T) {
	const deployments = "../../deployments/"
	comment := regexp.MustCompile(`(?m)^#([a-z-]+:)`)
	for _, path := range []string{"config/server.yaml", "kubernetes/server/settings.yaml", "kubernetes/server-ha/settings.yaml"} {
		text, err := os.ReadFile(deployments + path)
		if err != nil {
			t.Fatal(err)
		}
		uncommented := comment.ReplaceAllString(string(text), "$1")
		if !strings.Contains(uncommented, "\nlisten:") {
			t.Errorf("%s says not where to listen", path)
		}
		if err := settings.Complete(command().Flags(), settings.Source{
			LookupEnv: func(name string) (string, bool) { return "server.yaml", name == "NAMEWARD_CONFIG" },
			ReadFile:  func(string) ([]byte, error) { return []byte(uncommented), nil },
		}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	manifests, err := filepath.Glob(deployments + "kubernetes/*/server.yaml")
	if err != nil || len(manifests) < 3 {
		t.Fatalf("manifests: %v, %v", manifests, err)
	}
	for _, path := range append(manifests, deployments+"kubernetes/components/spire/server.yaml") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, variable := range regexp.MustCompile(`\bNAMEWARD_[A-Z_]+`).FindAllString(string(text), -1) {
			name := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(variable, "NAMEWARD_")), "_", "-")
			if command().Flags().Lookup(name) == nil {
				t.Errorf("%s: there is no --%s", path, name)
			}
		}
	}
}
