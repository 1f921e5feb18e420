package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDeployedSettings: the settings of the package, uncommented, and those for Kubernetes are settings that the agent
// has, with values that it takes; so are the variables.
func TestDeployedSettings(t *testing.T) {
	const deployments = "../../deployments/"
	packaged, err := os.ReadFile(deployments + "config/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	inPod, err := os.ReadFile(deployments + "kubernetes/agent/settings.yaml")
	if err != nil {
		t.Fatal(err)
	}
	uncommented := regexp.MustCompile(`(?m)^#([a-z-]+:)`).ReplaceAllString(string(packaged), "$1")
	if !strings.Contains(uncommented, "\nserver:") {
		t.Errorf("no setting is there as a comment:\n%s", packaged)
	}
	for _, file := range []string{uncommented, string(inPod)} {
		if _, err := settle(t, file, map[string]string{"NAMEWARD_CONFIG": "agent.yaml"}); err != nil {
			t.Errorf("%v\n%s", err, file)
		}
	}
	manifests, err := filepath.Glob(deployments + "kubernetes/*/agent.yaml")
	if err != nil || len(manifests) < 3 {
		t.Fatalf("manifests: %v, %v", manifests, err)
	}
	flags := (&program{}).command().PersistentFlags()
	for _, path := range append(manifests, deployments+"kubernetes/components/spire/agent.yaml") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, variable := range regexp.MustCompile(`\bNAMEWARD_[A-Z_]+`).FindAllString(string(text), -1) {
			name := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(variable, "NAMEWARD_")), "_", "-")
			if flags.Lookup(name) == nil {
				t.Errorf("%s: there is no --%s", path, name)
			}
		}
	}
}
