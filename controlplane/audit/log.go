package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	suffix = ".jsonl"
	// endRoom is what the line with the outcome of an event takes at most.
	endRoom = 1 << 10
	// reserveAhead is how much more is reserved at once than is needed.
	reserveAhead = 256 << 10
)

// segments are the files of the log, of which the last is appended to. A line that append returned for is on disk.
//
// An event's lines are in one file: a file that is full takes no new event, and is left when those in it have ended.
// So a file can be read by itself, and only the last may have events whose end is missing.
type segments struct {
	dir      string
	maxBytes int64
	maxFiles int

	// lead holds a token while somebody writes and syncs for all that wait. It is taken before mu.
	lead chan struct{}

	mu      sync.Mutex // guards all below
	pending []*entry
	file    *os.File // nil when the last could not be used any longer
	number  uint64   // of file
	end     int64    // of what is whole in file
	// reserved is up to where file has room on its disk.
	reserved int64
	// open counts the events that have begun and not ended; ended is told when there are none.
	open  int
	ended chan struct{}
}

// entry is a line on its way to disk.
type entry struct {
	line []byte
	done chan struct{}
	err  error
}

// openSegments opens the last file, or makes the first.
func openSegments(dir string, maxBytes int64, maxFiles int) (*segments, error) {
	s := &segments{dir: dir, maxBytes: maxBytes, maxFiles: maxFiles, lead: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
	numbers, err := s.numbers()
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		// Nothing is made before something is written: a disk that is full keeps no server from starting.
		return s, nil
	}
	s.number = numbers[len(numbers)-1]
	file, err := os.OpenFile(s.path(s.number), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if s.end, err = wholeLines(file); err == nil {
		// What a crash cut short was never acknowledged: its change had not begun.
		err = file.Truncate(s.end)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open audit log: %w", err), file.Close())
	}
	s.file = file
	return s, nil
}

// wholeLines returns where the last whole line ends.
func wholeLines(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err //nolint:wrapcheck // the caller says of what
	}
	buffer := make([]byte, 64<<10)
	for end := info.Size(); end > 0; {
		begin := max(0, end-int64(len(buffer)))
		part := buffer[:end-begin]
		if _, err := file.ReadAt(part, begin); err != nil {
			return 0, err //nolint:wrapcheck // the caller says of what
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return begin + int64(i) + 1, nil
		}
		end = begin
	}
	return 0, nil
}

func (s *segments) path(number uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08d%s", number, suffix))
}

// numbers returns those of the files that there are, in order.
func (s *segments) numbers() ([]uint64, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list audit log: %w", err)
	}
	var numbers []uint64
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), suffix); ok {
			if number, err := strconv.ParseUint(name, 10, 63); err == nil && number > 0 {
				numbers = append(numbers, number)
			}
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// begin writes the first line of an event, durably. If it returns nil, finish must be called.
func (s *segments) begin(line []byte) error {
	e := &entry{line: line, done: make(chan struct{})}
	s.mu.Lock()
	s.pending = append(s.pending, e)
	s.mu.Unlock()
	for {
		select {
		case <-e.done:
			return e.err
		case s.lead <- struct{}{}:
			// The leader before may have written it as well.
			select {
			case <-e.done:
			default:
				s.writePending()
			}
			<-s.lead
		}
	}
}

// finish writes the last line of an event. It is not synced: the next line that is takes it along, and until then
// what the change left tells how it ended.
func (s *segments) finish(line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.left()
	return s.write(line)
}

// left counts the end of an event.
func (s *segments) left() {
	if s.open--; s.open == 0 {
		select {
		case s.ended <- struct{}{}:
		default:
		}
	}
}

// note writes an event of one line. It is not synced.
func (s *segments) note(line []byte) error {
	s.lead <- struct{}{}
	defer func() { <-s.lead }()
	if err := s.rotate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The room of the events under way is not to be touched.
	if err := s.reserve(len(line), 0); err != nil {
		return err
	}
	return s.write(line)
}

// noteHere writes the last line of an event of before the start into its own file, however full that is.
func (s *segments) noteHere(line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(line)
}

// writePending writes what waits, syncs it and tells each. It runs under lead.
func (s *segments) writePending() {
	err := s.rotate()
	s.mu.Lock()
	waiting := s.pending
	s.pending = nil
	size := 0
	for _, e := range waiting {
		size += len(e.line)
	}
	lines := make([]byte, 0, size)
	for _, e := range waiting {
		lines = append(lines, e.line...)
	}
	if err == nil {
		if err = s.reserve(len(lines), len(waiting)); err == nil {
			err = s.write(lines)
		}
	}
	file := s.file
	if err == nil {
		// Before the sync: what waits for the end of all events must see these.
		s.open += len(waiting)
	}
	s.mu.Unlock()
	if err == nil {
		if err = unix.Fdatasync(int(file.Fd())); err != nil {
			err = fmt.Errorf("sync audit log: %w", err)
			s.abandon(len(waiting))
		}
	}
	for _, e := range waiting {
		e.err = err
		close(e.done)
	}
}

// abandon leaves a file of which nobody knows what is on disk, with events in it that did not begin. Those that did
// write their ends to the next.
func (s *segments) abandon(events int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range events {
		s.left()
	}
	s.closeFile()
}

func (s *segments) closeFile() {
	if s.file != nil {
		_ = s.file.Close() // everything that counts was synced
		s.file = nil
	}
}

// rotate makes that there is a file with room. It runs under lead, so that no event begins meanwhile.
func (s *segments) rotate() error {
	s.mu.Lock()
	for s.file != nil && s.end >= s.maxBytes && s.open > 0 {
		s.mu.Unlock()
		<-s.ended
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if s.file != nil && s.end < s.maxBytes {
		return nil
	}
	if s.file != nil {
		// Gives back the room that was reserved and not used. Without it a file takes a little more on disk.
		_ = s.file.Truncate(s.end)
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("sync audit log: %w", err)
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make directory of the audit log: %w", err)
	}
	file, err := os.OpenFile(s.path(s.number+1), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("make file of the audit log: %w", err)
	}
	if err := syncDirectory(s.dir); err != nil {
		return errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	s.closeFile()
	s.file, s.number, s.end, s.reserved = file, s.number+1, 0, 0
	return s.removeOldest()
}

func syncDirectory(dir string) error {
	directory, err := os.Open(dir) //nolint:gosec // ours
	if err != nil {
		return fmt.Errorf("open directory of the audit log: %w", err)
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// removeOldest keeps as many files as are wanted.
func (s *segments) removeOldest() error {
	numbers, err := s.numbers()
	if err != nil {
		return err
	}
	for len(numbers) > s.maxFiles {
		if err := os.Remove(s.path(numbers[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove file of the audit log: %w", err)
		}
		numbers = numbers[1:]
	}
	return nil
}

// reserve makes that there is room for lines, and for the ends of the events that are under way and of so many more. It
// runs under mu.
func (s *segments) reserve(bytes, events int) error {
	until := s.end + int64(bytes) + int64(s.open+events)*endRoom
	if until <= s.reserved {
		return nil
	}
	// Much at once, if there is much; else what is needed.
	err := s.allocate(until + reserveAhead)
	if err != nil {
		err = s.allocate(until)
	}
	return err
}

func (s *segments) allocate(until int64) error {
	err := unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, s.end, until-s.end)
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		s.reserved = until
		return nil
	}
	return fmt.Errorf("make room in the audit log: %w", err)
}

// write appends lines, whole or not at all. It runs under mu.
func (s *segments) write(lines []byte) error {
	if s.file == nil {
		return errors.New("write audit log: its file was given up")
	}
	n, err := s.file.Write(lines)
	if err == nil {
		s.end += int64(n)
		return nil
	}
	s.reserved = 0 // what is cut off is given back
	if undone := s.file.Truncate(s.end); undone != nil {
		// Half a line stays at the end of a file that nobody writes to any more.
		s.closeFile()
	}
	return fmt.Errorf("write audit log: %w", err)
}

// close closes the file, and gives back the room that was reserved.
func (s *segments) close() error {
	s.lead <- struct{}{}
	defer func() { <-s.lead }()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	if err := errors.Join(file.Truncate(s.end), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}
