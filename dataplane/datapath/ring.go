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
	data               []byte
	pages              [2][]byte
	next               uint64 // where the next read begins
	tickShift          int    // a tick of its events is so many times doubled nanoseconds
	wrapped            []byte // a copy of the last record that goes on at the beginning of data
}

func openRing(m *ebpf.Map) (*ring, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	consumer, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map position in ring buffer: %w", err)
	}
	// The kernel offers the data twice, one behind the other. Each page of it would count as memory of this
	// process, and few records wrap.
	rest, err := unix.Mmap(m.FD(), int64(page), page+size, unix.PROT_READ, unix.MAP_SHARED)
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

// read returns the next record; nil when there is none. It is there until the next read at least, and what is
// not released is read again by the next process.
func (r *ring) read() []byte {
	for r.available() > 0 {
		at := r.next & uint64(len(r.data)-1)           //nolint:gosec // a length
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
			return r.record(at+recordHeader, bytes)
		}
	}
	return nil
}

func (r *ring) record(at, length uint64) []byte {
	at &= uint64(len(r.data) - 1) //nolint:gosec // a length
	if at+length <= uint64(len(r.data)) {
		return r.data[at : at+length]
	}
	r.wrapped = append(append(r.wrapped[:0], r.data[at:]...), r.data[:at+length-uint64(len(r.data))]...)
	return r.wrapped
}

// release lets go of all that was read.
func (r *ring) release() { atomic.StoreUint64(r.consumer, r.next) }

func (r *ring) close() error {
	return errors.Join(unix.Munmap(r.pages[0]), unix.Munmap(r.pages[1]))
}
