package dataplane

import "runtime/debug"

// Version returns the version that this program was built as.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
