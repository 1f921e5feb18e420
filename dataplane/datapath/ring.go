package datapath

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	recordHeader  = 8 // bytes before each record in a ring buffer
	recordBusy    = unix.BPF_RINGBUF_BUSY_BIT
	recordDiscard = unix.BPF_RINGBUF_DISCARD_BIT
)

// ring reads the ring buffer of events. What was read stays in it until it is released, so that the next
// process reads again what this one did not write down. (The reader of cilium/ebpf lets go of each record
// as it reads it.)
type ring struct {
	consumer, producer *uint64 // in memory that is shared with the kernel
	data               []byte  // twice, one behind the other: a record never wraps
	pages              [2][]byte
	next               uint64 // where the next read begins
	tickShift          int    // a tick of its events is so many times doubled nanoseconds
}

func openRing(m *ebpf.Map) (*ring, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	consumer, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map position in ring buffer: %w", err)
	}
	rest, err := unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map ring buffer: %w", err), unix.Munmap(consumer))
	}
	r := &ring{
		consumer: (*uint64)(unsafe.Pointer(&consumer[0])), producer: (*uint64)(unsafe.Pointer(&rest[0])), //nolint:gosec // pages begin aligned
		data: rest[page:], pages: [2][]byte{consumer, rest}, tickShift: int(tickShift),
	}
	r.next = atomic.LoadUint64(r.consumer)
	return r, nil
}

// available is how many bytes were written and not yet read.
func (r *ring) available() int {
	return int(atomic.LoadUint64(r.producer) - r.next) //nolint:gosec // less than the ring is long
}

// read returns the next record, which is there until it is released; nil when there is none.
func (r *ring) read() []byte {
	for r.available() > 0 {
		at := r.next & uint64(len(r.data)/2-1)         //nolint:gosec // a length
		head := (*uint32)(unsafe.Pointer(&r.data[at])) //nolint:gosec // records are aligned
		length := atomic.LoadUint32(head)
		if length&recordBusy != 0 {
			// A program is writing it at this moment; what comes behind must not overtake it.
			runtime.Gosched()
			continue
		}
		bytes := uint64(length &^ recordDiscard)
		r.next += recordHeader + (bytes+7)&^7
		if length&recordDiscard == 0 {
			return r.data[at+recordHeader : at+recordHeader+bytes]
		}
	}
	return nil
}

// release lets go of all that was read.
func (r *ring) release() { atomic.StoreUint64(r.consumer, r.next) }

func (r *ring) close() error {
	return errors.Join(unix.Munmap(r.pages[0]), unix.Munmap(r.pages[1]))
}
