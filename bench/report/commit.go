package report

import (
	"context"
	"os/exec"
	"strings"
)

// What a commit is called that is none.
const (
	modified = "-dirty" // behind the commit that was changed
	unknown  = "unknown"
)

// documentation changes nothing that is measured, and the page is part of it.
var exceptDocumentation = []string{"--", ":/", ":(top,exclude)docs", ":(top,exclude)*.md"}

// Commit is what is measured: the newest commit of the working tree that changed more than documentation, and whether
// there are changes that are in none.
func Commit(ctx context.Context) string {
	newest, err := git(ctx, "log", "-1", "--format=%h")
	if err != nil || newest == "" {
		return unknown
	}
	changes, err := git(ctx, "status", "--porcelain")
	if err != nil || changes != "" {
		return newest + modified
	}
	return newest
}

func git(ctx context.Context, args ...string) (string, error) {
	output, err := exec.CommandContext(ctx, "git", append(args, exceptDocumentation...)...).Output() //nolint:gosec // from above
	return strings.TrimSpace(string(output)), err
}

// Clean is a commit without what is in none.
func Clean(commit string) string { return strings.TrimSuffix(commit, modified) }
