// Command nfpm packs Debian packages from descriptions, which name variables of the environment as $NAME. It is the
// part of nfpm that knows Debian, alone: the command of that project also builds what it needs for five other formats.
//
//	nfpm -out dist deployments/debian/nameward-agent.yaml …
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
)

func main() {
	out := flag.String("out", ".", "directory for the packages, whose paths are printed")
	flag.Parse()
	for _, description := range flag.Args() {
		path, err := pack(description, *out)
		if err != nil {
			fmt.Fprintf(os.Stderr, "nfpm: %s: %v\n", description, err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}

func pack(description, out string) (path string, err error) {
	missing := ""
	config, err := nfpm.ParseFileWithEnvMapping(description, func(name string) string {
		value, ok := os.LookupEnv(name)
		if !ok && !strings.HasPrefix(name, "NFPM_") { // passphrases, which it asks for itself
			missing = name
		}
		return value
	})
	if err != nil {
		return "", err
	}
	if missing != "" {
		return "", fmt.Errorf("$%s is not set", missing)
	}
	info, err := config.Get("deb")
	if err != nil {
		return "", err
	}
	path = filepath.Join(out, deb.Default.ConventionalFileName(info))
	// Under another name until it is whole.
	file, err := os.CreateTemp(out, ".packing-")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // gone when all went well
	if err := deb.Default.Package(info, file); err != nil {
		_ = file.Close()
		return "", err
	}
	if err := file.Chmod(0o644); err != nil {
		_ = file.Close()
		return "", err
	}
	if err := file.Close(); err != nil {
		return "", err
	}
	return path, os.Rename(file.Name(), path)
}
