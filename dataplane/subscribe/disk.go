package subscribe

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/statefile"
)

const (
	diskFile  = "rule-set"
	diskMagic = "nameward rule set 1\n"

	asideSuffix = ".bad"
)

// Disk keeps the last good rule set in a directory: what the server would have sent, whole, behind a
// checksum. A reader finds the new one or the old one, never half of one.
type Disk struct {
	dir string
	log *slog.Logger
}

// NewDisk returns the disk at dir, which exists.
func NewDisk(dir string, log *slog.Logger) *Disk { return &Disk{dir, log} }

// Save replaces what was saved before.
func (d *Disk) Save(revision *enforce.Revision) error {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(&agentv1.SyncResponse{
		StoreId:   revision.StoreID,
		Revision:  revision.Number,
		RuleSetId: revision.ID[:],
		Reset_:    true,
		Changes:   (&ruleset.RuleSet{}).Changes(revision.Rules),
		Complete:  true,
	})
	if err != nil {
		return fmt.Errorf("encode rule set: %w", err)
	}
	sum := sha256.Sum256(payload)
	if err := statefile.Write(d.path(), bytes.Join([][]byte{[]byte(diskMagic), sum[:], payload}, nil)); err != nil {
		return fmt.Errorf("write rule set: %w", err)
	}
	return nil
}

func (d *Disk) path() string { return filepath.Join(d.dir, diskFile) }

// Load returns what was saved last, nil when there is nothing that can be used. What is cut short or
// altered, or not the agent's own, is set aside under another name, and logged; so is what was never
// finished. The error says that what was saved is lost; it is no reason not to go on.
func (d *Disk) Load() (*enforce.Revision, error) {
	if _, err := os.Lstat(statefile.Unfinished(d.path())); err == nil {
		d.setAside(statefile.Unfinished(d.path()), errors.New("the agent was stopped while it wrote"))
	}
	content, err := statefile.Read(d.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var revision *enforce.Revision
	if err == nil {
		revision, err = decode(content)
	}
	if err != nil {
		d.setAside(d.path(), err)
		return nil, fmt.Errorf("use the rule set on disk: %w", err)
	}
	return revision, nil
}

// setAside renames what lies at a path; the operator may want to see it, the agent never again.
func (d *Disk) setAside(path string, reason error) {
	aside, err := statefile.SetAside(path, asideSuffix)
	if err != nil {
		d.log.Error("rule set on disk cannot be used, nor set aside", "path", path, "err", errors.Join(reason, err))
		return
	}
	d.log.Error("rule set on disk cannot be used and was set aside", "path", aside, "err", reason)
}

// RemoveDisk removes what a Disk keeps in dir, and names it.
func RemoveDisk(dir string) ([]string, error) {
	var removed []string
	var paths []string
	unfinished := statefile.Unfinished(diskFile)
	for _, name := range []string{diskFile, unfinished, diskFile + asideSuffix, unfinished + asideSuffix} {
		paths = append(paths, filepath.Join(dir, name))
	}
	retained, _ := filepath.Glob(filepath.Join(dir, retainedPrefix+"*")) // the pattern is no bad one
	for _, path := range append(paths, retained...) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// All of it: what is set aside may be a directory.
		if err := os.RemoveAll(path); err != nil {
			return removed, fmt.Errorf("remove rule set: %w", err)
		}
		removed = append(removed, path)
	}
	return removed, nil
}

func decode(content []byte) (*enforce.Revision, error) {
	rest, ok := bytes.CutPrefix(content, []byte(diskMagic))
	if !ok || len(rest) < sha256.Size {
		return nil, errors.New("it is no rule set, or cut short")
	}
	payload := rest[sha256.Size:]
	if sum := sha256.Sum256(payload); !bytes.Equal(sum[:], rest[:sha256.Size]) {
		return nil, errors.New("its checksum is wrong")
	}
	var message agentv1.SyncResponse
	if err := proto.Unmarshal(payload, &message); err != nil {
		return nil, fmt.Errorf("decode rule set: %w", err)
	}
	rules, err := (&ruleset.RuleSet{}).With(message.GetChanges())
	if err != nil {
		return nil, err
	}
	return newRevision(message.GetStoreId(), message.GetRevision(), message.GetRuleSetId(), rules)
}

// newRevision checks that the rules are those that the id is of.
func newRevision(storeID string, number uint64, announced []byte, rules *ruleset.RuleSet) (*enforce.Revision, error) {
	want, err := ruleset.ParseID(announced)
	if err != nil {
		return nil, err
	}
	if got := rules.ID(); got != want {
		return nil, fmt.Errorf("%w: got %s, want %s", errWrongContent, got, want)
	}
	return &enforce.Revision{StoreID: storeID, Number: number, Rules: rules, ID: want}, nil
}
