package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/statefile"
)

// bbolt trusts its pages once the file's head is right. In a damaged file one page may lead back to
// another, which it would follow for ever, or until no stack is left, and nobody can recover from that. So
// the pages are walked here before it opens them. (Its own check, and its scan for free pages, panic where
// nobody can recover either.)

const (
	pageHead    = 16 // id, flags, count, overflow
	elementSize = 16
	metaSize    = 64
	bucketHead  = 16 // root, sequence

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageFreelist = 0x10
	leafBucket   = 0x01

	metaMagic    = 0xED0CDAED
	noFreelist   = ^uint64(0)
	maxPageBytes = 1 << 16
)

var errDamaged = errors.New("a page is damaged")

// pageWalk visits the pages of a bbolt file.
type pageWalk struct {
	file    io.ReaderAt
	size    uint64          // of a page
	end     uint64          // of the pages
	visited map[uint64]bool // pages that are in use
}

// checkPages returns an error unless the file is one of ours whose pages make trees. A file that is not
// there is fine; one that another process works on is not looked at.
func checkPages(path string) error {
	if err := statefile.Check(path); err != nil {
		return err //nolint:wrapcheck // it says what
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor
		return nil //nolint:nilerr // bbolt finds out who holds it
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return errors.New("it is empty")
	}
	w := &pageWalk{file: file, visited: map[uint64]bool{}}
	root, freelist, err := w.head(uint64(info.Size())) //nolint:gosec // not negative
	if err != nil {
		return err
	}
	if err := w.tree(root); err != nil {
		return err
	}
	return w.free(freelist)
}

// head reads the newer of the two valid heads.
func (w *pageWalk) head(length uint64) (root, freelist uint64, err error) {
	newest := uint64(0)
	for _, at := range []int64{0, int64(os.Getpagesize())} {
		head := make([]byte, pageHead+metaSize)
		if _, err := w.file.ReadAt(head, at); err != nil {
			continue
		}
		meta := head[pageHead:]
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:metaSize-8]) // never fails
		txid := binary.LittleEndian.Uint64(meta[48:])
		if binary.LittleEndian.Uint32(meta) != metaMagic || sum.Sum64() != binary.LittleEndian.Uint64(meta[56:]) || newest > txid {
			continue
		}
		newest = max(txid, 1)
		w.size = uint64(binary.LittleEndian.Uint32(meta[8:]))
		root, freelist, w.end = binary.LittleEndian.Uint64(meta[16:]), binary.LittleEndian.Uint64(meta[32:]), binary.LittleEndian.Uint64(meta[40:])
	}
	switch {
	case newest == 0:
		return 0, 0, errors.New("it has no valid head")
	case w.size < 512 || w.size > maxPageBytes:
		return 0, 0, errDamaged
	case w.end > length/w.size:
		return 0, 0, errors.New("it is cut short")
	}
	return root, freelist, nil
}

// page reads a page, with what overflows it, that was not read before.
func (w *pageWalk) page(id uint64) (flags, count uint16, page []byte, err error) {
	if id < 2 || id >= w.end {
		return 0, 0, nil, errDamaged
	}
	head := make([]byte, pageHead)
	if _, err := w.file.ReadAt(head, int64(id*w.size)); err != nil { //nolint:gosec // within the file
		return 0, 0, nil, err
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint64(head) != id || overflow >= w.end-id {
		return 0, 0, nil, errDamaged
	}
	for at := id; at <= id+overflow; at++ {
		if w.visited[at] {
			return 0, 0, nil, errDamaged
		}
		w.visited[at] = true
	}
	page = make([]byte, (overflow+1)*w.size)
	if _, err := w.file.ReadAt(page, int64(id*w.size)); err != nil { //nolint:gosec // within the file
		return 0, 0, nil, err
	}
	return binary.LittleEndian.Uint16(head[8:]), binary.LittleEndian.Uint16(head[10:]), page, nil
}

// tree walks a page, those below it, and the buckets in them.
func (w *pageWalk) tree(id uint64) error {
	flags, count, page, err := w.page(id)
	if err != nil {
		return fmt.Errorf("walk page %d: %w", id, err)
	}
	return w.elements(flags, count, page)
}

func (w *pageWalk) elements(flags, count uint16, page []byte) error {
	if pageHead+int(count)*elementSize > len(page) {
		return errDamaged
	}
	for i := range int(count) {
		at := pageHead + i*elementSize
		element := page[at : at+elementSize]
		var err error
		switch flags {
		case pageBranch:
			err = w.branch(element, page[at:])
		case pageLeaf:
			err = w.leaf(element, page[at:])
		default:
			err = errDamaged
		}
		if err != nil {
			return err
		}
	}
	if flags != pageLeaf && (flags != pageBranch || count == 0) {
		return errDamaged
	}
	return nil
}

func (w *pageWalk) branch(element, rest []byte) error {
	position, key := binary.LittleEndian.Uint32(element), binary.LittleEndian.Uint32(element[4:])
	if uint64(position)+uint64(key) > uint64(len(rest)) {
		return errDamaged
	}
	return w.tree(binary.LittleEndian.Uint64(element[8:]))
}

func (w *pageWalk) leaf(element, rest []byte) error {
	position, key := uint64(binary.LittleEndian.Uint32(element[4:])), uint64(binary.LittleEndian.Uint32(element[8:]))
	value := uint64(binary.LittleEndian.Uint32(element[12:]))
	if position+key+value > uint64(len(rest)) {
		return errDamaged
	}
	if binary.LittleEndian.Uint32(element)&leafBucket == 0 {
		return nil
	}
	if value < bucketHead {
		return errDamaged
	}
	bucket := rest[position+key : position+key+value]
	if root := binary.LittleEndian.Uint64(bucket); root != 0 {
		return w.tree(root)
	}
	// A small bucket lies in the value itself.
	if inline := bucket[bucketHead:]; len(inline) >= pageHead {
		return w.elements(binary.LittleEndian.Uint16(inline[8:]), binary.LittleEndian.Uint16(inline[10:]), inline)
	}
	return errDamaged
}

// free checks that no page is both free and in use.
func (w *pageWalk) free(id uint64) error {
	if id == noFreelist {
		return nil
	}
	flags, count16, page, err := w.page(id)
	if err != nil || flags != pageFreelist {
		return errors.Join(errDamaged, err)
	}
	ids, count := page[pageHead:], uint64(count16)
	if count16 == 0xFFFF {
		count, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return errDamaged
	}
	for i := range count {
		free := binary.LittleEndian.Uint64(ids[8*i:])
		if free < 2 || free >= w.end || w.visited[free] {
			return errDamaged
		}
		w.visited[free] = true
	}
	return nil
}
