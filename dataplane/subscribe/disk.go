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
)

const (
	diskFile  = "rule-set"
	diskMagic = "nameward rule set 1\n"
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
	content := bytes.Join([][]byte{[]byte(diskMagic), sum[:], payload}, nil)
	temporary := filepath.Join(d.dir, diskFile+".new")
	if err := writeSynced(temporary, content); err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(d.dir, diskFile)); err != nil {
		return fmt.Errorf("put rule set in place: %w", err)
	}
	return syncDirectory(d.dir)
}

// Load returns what was saved last, nil when there is nothing that can be read. A file that is cut
// short or altered is set aside under another name, and logged; so is one that never was finished.
func (d *Disk) Load() (*enforce.Revision, error) {
	path := filepath.Join(d.dir, diskFile)
	if err := d.setAside(path+".new", errors.New("the agent was stopped while it wrote")); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read rule set: %w", err)
	}
	revision, err := decode(content)
	if err != nil {
		return nil, d.setAside(path, err)
	}
	return revision, nil
}

// setAside renames a file that exists; the operator may want to see it, the agent never again.
func (d *Disk) setAside(path string, reason error) error {
	aside := path + ".bad"
	err := os.Rename(path, aside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set bad rule set aside: %w", err)
	}
	d.log.Error("rule set on disk cannot be used and was set aside", "path", aside, "err", reason)
	return nil
}

// RemoveDisk removes what a Disk keeps in dir, and names it.
func RemoveDisk(dir string) ([]string, error) {
	var removed []string
	var paths []string
	for _, suffix := range []string{"", ".new", ".bad", ".new.bad"} {
		paths = append(paths, filepath.Join(dir, diskFile+suffix))
	}
	retained, _ := filepath.Glob(filepath.Join(dir, retainedPrefix+"*")) // the pattern is no bad one
	for _, path := range append(paths, retained...) {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
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

func writeSynced(path string, content []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	defer func() {
		if closeErr := file.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("close file: %w", closeErr)
		}
	}()
	if _, err := file.Write(content); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync file: %w", err)
	}
	return nil
}

// syncDirectory makes a rename last.
func syncDirectory(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
