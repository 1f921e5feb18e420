package traffic

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A batch is the room for messages of one system call.
type batch struct {
	headers  []messageHeader
	parts    []unix.Iovec
	messages []byte
}

// messageHeader is struct mmsghdr.
type messageHeader struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

func (b *batch) init(size int) {
	b.headers, b.parts = make([]messageHeader, size), make([]unix.Iovec, size)
	b.messages = make([]byte, size*answerBytes)
	for i := range size {
		b.parts[i].Base = &b.messages[i*answerBytes]
		b.headers[i].header.Iov = &b.parts[i]
		b.headers[i].header.SetIovlen(1)
	}
}

func (b *batch) message(i int) []byte { return b.messages[i*answerBytes : (i+1)*answerBytes] }

// receive counts the answers that are there.
func (b *batch) receive(fd int) (answers int, err error) {
	for i := range b.parts {
		b.parts[i].SetLen(answerBytes)
	}
	received, err := b.call(unix.SYS_RECVMMSG, fd, len(b.headers))
	for i := range received {
		if hasAnswer(b.message(i)[:b.headers[i].length]) {
			answers++
		}
	}
	if err != nil && !dried(err) {
		return answers, fmt.Errorf("receive answers: %w", err)
	}
	return answers, nil
}

func (b *batch) send(fd, count int, question func([]byte) []byte) (sent int, err error) {
	for i := range count {
		b.parts[i].SetLen(len(question(b.message(i)[:0])))
	}
	sent, err = b.call(unix.SYS_SENDMMSG, fd, count)
	if err != nil && !dried(err) {
		return sent, fmt.Errorf("send questions: %w", err)
	}
	return sent, nil
}

// dried tells of errors of single datagrams, which are lost, and of nothing that is there.
func dried(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOBUFS)
}

func (b *batch) call(number uintptr, fd, count int) (int, error) {
	done, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])), uintptr(count), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(done), nil //nolint:gosec // at most count
}
