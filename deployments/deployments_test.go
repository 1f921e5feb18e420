// Package deployments_test holds what is deployed to what can be said of it without a cluster, an engine or a
// Prometheus: images, alerts and the dashboard. Units, packages and settings are tested where they run.
package deployments_test

import (
	"os"
	"path/filepath"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
