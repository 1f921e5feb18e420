package enforcetest_test

import (
	"testing"

	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
)

func TestFakeMaps(t *testing.T) {
	enforcetest.TestMaps(t, func(*testing.T) enforcetest.MapsSubject { return enforcetest.NewMaps(1000) })
}

func TestFakeHooks(t *testing.T) {
	enforcetest.TestHooks(t, func(*testing.T) enforcetest.HooksSubject { return enforcetest.NewHooks() })
}

func TestFakeConntrack(t *testing.T) {
	enforcetest.TestConntrack(t, func(*testing.T) enforcetest.ConntrackSubject { return enforcetest.NewConntrack() })
}
