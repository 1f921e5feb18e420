package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// An archive is what a kernel unpacks as its first root: a cpio archive of the form newc. Several, one behind
// the other, are unpacked over each other.
type archive struct {
	file    *os.File
	w       *bufio.Writer
	written int64
	inode   int
	names   map[string]bool
}

const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
)

// alignment of headers and contents, by the format.
const alignment = 4

func newArchive(name string) (*archive, error) {
	file, err := os.Create(name) //nolint:gosec // in a directory of this program
	if err != nil {
		return nil, err
	}
	return &archive{file: file, w: bufio.NewWriterSize(file, 1<<20), names: map[string]bool{}}, nil
}

// has says whether there is something of that name.
func (a *archive) has(name string) bool { return a.names[name] }

// dir adds a directory, and those above it. Names have no leading slash.
func (a *archive) dir(name string) error {
	if name == "." || a.names[name] {
		return nil
	}
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, modeDir|0o755, 0, nil)
}

// link adds a symbolic link. The first of a name stays.
func (a *archive) link(name, target string) error {
	if a.names[name] {
		return nil
	}
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, modeLink|0o777, int64(len(target)), strings.NewReader(target))
}

// text adds a file with that content.
func (a *archive) text(name, content string, mode fs.FileMode) error {
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, modeFile|uint32(mode.Perm()), int64(len(content)), strings.NewReader(content))
}

// copy adds the file that is at a path of this machine, whatever links lead to it. The first of a name stays.
func (a *archive) copy(name, from string) error {
	if a.names[name] {
		return nil
	}
	file, err := os.Open(from) //nolint:gosec // this program reads what it is told to
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // read only
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", from)
	}
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, modeFile|uint32(info.Mode().Perm()), info.Size(), file)
}

// tree adds all that is below a directory of this machine.
func (a *archive) tree(name, from string) error {
	return filepath.WalkDir(from, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return a.dir(path.Join(name, below))
		}
		return a.copy(path.Join(name, below), at)
	})
}

func (a *archive) entry(name string, mode uint32, size int64, content io.Reader) error {
	a.names[name] = true
	a.inode++
	// ino, mode, uid, gid, nlink, mtime, size, device, device of a node, length of the name, check sum
	fields := []int64{int64(a.inode), int64(mode), 0, 0, 1, 0, size, 0, 0, 0, 0, int64(len(name) + 1), 0}
	header := "070701"
	for _, field := range fields {
		header += fmt.Sprintf("%08x", field)
	}
	if err := a.write(strings.NewReader(header + name + "\x00")); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	before := a.written
	if err := a.write(io.LimitReader(content, size)); err != nil {
		return err
	}
	if padded := (before + size + alignment - 1) / alignment * alignment; a.written != padded {
		return fmt.Errorf("%s became shorter while it was read", name)
	}
	return nil
}

// write writes, and zeros up to the next header or content.
func (a *archive) write(from io.Reader) error {
	n, err := io.Copy(a.w, from)
	a.written += n
	if err != nil {
		return err
	}
	padding := (alignment - a.written%alignment) % alignment
	a.written += padding
	_, err = a.w.Write(make([]byte, padding))
	return err
}

// close ends the archive.
func (a *archive) close() error {
	err := a.entry("TRAILER!!!", 0, 0, nil)
	if err == nil {
		err = a.w.Flush()
	}
	if closing := a.file.Close(); err == nil {
		err = closing
	}
	return err
}

// concatenate writes files one behind the other into a new one.
func concatenate(to string, from ...string) error {
	out, err := os.Create(to) //nolint:gosec // in a directory of this program
	if err != nil {
		return err
	}
	for _, name := range from {
		if err = appendFile(out, name); err != nil {
			break
		}
	}
	if closing := out.Close(); err == nil {
		err = closing
	}
	return err
}

func appendFile(out io.Writer, name string) error {
	in, err := os.Open(name) //nolint:gosec // in a directory of this program
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	_, err = io.Copy(out, in)
	return err
}
