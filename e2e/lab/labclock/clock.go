// Package labclock is the wall clock of programs that the lab builds: the machine's, and from it the seconds that a
// file of the lab says, which may change at any moment. The monotonic clock stays the machine's, as when a real clock is
// set. The lab builds with it in the place of package time's.
package labclock

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Variable is of the environment, and names the directory of the lab. Without it the clock is the machine's.
const Variable = "NAMEWARD_LAB"

// Create makes the file of a lab, and returns it.
func Create(dir string) (*os.File, error) {
	file, err := os.Create(filepath.Join(dir, "clock"))
	if err != nil {
		return nil, err
	}
	return file, file.Truncate(8)
}

// Step has the clock of who was started with a file's lab be off the machine's from now on.
func Step(file *os.File, by time.Duration) error {
	seconds, err := mapped(file, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	seconds.Store(int64(by / time.Second))
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(seconds)), 8)) //nolint:gosec // as it was mapped
}

// Now is time.Now by this clock.
func Now() time.Time { return step(time.Now(), offset().Load()) }

// Since is time.Since by this clock.
func Since(t time.Time) time.Duration { return Now().Sub(t) }

// Until is time.Until by this clock.
func Until(t time.Time) time.Duration { return t.Sub(Now()) }

// offset is the mapped file: a system call each time would change what a program costs.
var offset = sync.OnceValue(func() *atomic.Int64 {
	file, err := os.Open(filepath.Join(os.Getenv(Variable), "clock"))
	if err != nil {
		return new(atomic.Int64)
	}
	defer file.Close() //nolint:errcheck // the mapping stays
	seconds, err := mapped(file, unix.PROT_READ)
	if err != nil {
		return new(atomic.Int64)
	}
	return seconds
})

func mapped(file *os.File, protection int) (*atomic.Int64, error) {
	bytes, err := unix.Mmap(int(file.Fd()), 0, 8, protection, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return (*atomic.Int64)(unsafe.Pointer(&bytes[0])), nil //nolint:gosec // pages begin aligned
}

// step moves the wall clock's reading of a time and leaves the monotonic one: Add would move both. The time must have
// been read from the clock: it then has 33 bits of seconds above 30 of nanoseconds, and a bit that says so.
func step(t time.Time, seconds int64) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(seconds) << 30 //nolint:gosec // wraps for the past
	return t
}
