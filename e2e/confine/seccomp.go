package main

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of struct seccomp_data (linux/seccomp.h); the first argument's lower half comes first on every machine that
// this runs on.
const (
	numberOffset   = 0
	archOffset     = 4
	argumentOffset = 16
)

const (
	returnAllow = 0x7fff0000                      // SECCOMP_RET_ALLOW
	returnError = 0x00050000 | uint32(unix.EPERM) // SECCOMP_RET_ERRNO
	returnKill  = 0x80000000                      // SECCOMP_RET_KILL_PROCESS
)

// filter lets no other system calls through, nor sockets of other families: they fail with EPERM.
func filter(syscalls, families []uint32) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("renounce new privileges: %w", err)
	}
	if len(syscalls) == 0 {
		return nil
	}
	program := []unix.SockFilter{
		load(archOffset), skipIf(nativeArch, 1), finish(returnKill),
		load(numberOffset),
	}
	if len(families) > 0 {
		check := []unix.SockFilter{load(argumentOffset)}
		for i, f := range families {
			check = append(check, skipIf(f, uint8(len(families)-i))) //nolint:gosec // a few
		}
		check = append(check, finish(returnError), load(numberOffset))
		program = append(program, skipUnless(unix.SYS_SOCKET, uint8(len(check)))) //nolint:gosec // a few
		program = append(program, check...)
	}
	// A pair each, since a jump reaches no farther than 255.
	for _, number := range slices.Compact(slices.Sorted(slices.Values(syscalls))) {
		program = append(program, skipUnless(number, 1), finish(returnAllow))
	}
	program = append(program, finish(returnError))
	all := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]} //nolint:gosec // below 4096
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&all)))
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func finish(with uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: with}
}

func skipIf(value uint32, steps uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: steps}
}

func skipUnless(value uint32, steps uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: steps}
}
