package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// RemoveJournal removes what a datapath keeps in its state directory, and names it. What does not
// exist is no error.
func RemoveJournal(stateDir string) ([]string, error) {
	var removed []string
	for _, name := range []string{journalFile, journalFile + asideSuffix} {
		path := filepath.Join(stateDir, name)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// All of it: what is set aside may be a directory.
		if err := os.RemoveAll(path); err != nil {
			return removed, fmt.Errorf("remove journal: %w", err)
		}
		removed = append(removed, path)
	}
	return removed, nil
}
