package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Where the setup header of a compressed kernel says where the kernel is in it, by the boot protocol for x86.
const (
	setupSectors   = 0x1f1 // one byte: how many sectors are before the code
	setupMagic     = 0x202
	payloadOffset  = 0x248 // from the code on
	payloadLength  = 0x24c
	sectorBytes    = 512
	trailingLength = 4 // of what was compressed, behind it
)

// uncompress gives the kernel as an ELF file: a machine without KVM takes many seconds to uncompress it.
func uncompress(ctx context.Context, image []byte) ([]byte, error) {
	if len(image) < payloadLength+4 || string(image[setupMagic:setupMagic+4]) != "HdrS" {
		return nil, errors.New("this is no kernel for x86")
	}
	start := (int(image[setupSectors])+1)*sectorBytes + int(binary.LittleEndian.Uint32(image[payloadOffset:]))
	end := start + int(binary.LittleEndian.Uint32(image[payloadLength:]))
	if start > end || end > len(image) {
		return nil, fmt.Errorf("the kernel is said to be at %d to %d of %d bytes", start, end, len(image))
	}
	vmlinux, err := decompress(ctx, image[start:end])
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(vmlinux, []byte(elf.ELFMAG)) {
		return nil, errors.New("what is compressed in it is no ELF file")
	}
	return vmlinux, nil
}

func decompress(ctx context.Context, payload []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(payload, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(bytes.NewReader(payload))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case bytes.HasPrefix(payload, []byte{0xfd, '7', 'z', 'X', 'Z'}):
		return through(ctx, payload[:len(payload)-trailingLength], "xz", "-dc")
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return through(ctx, payload[:len(payload)-trailingLength], "zstd", "-qdc")
	case bytes.HasPrefix(payload, []byte{0x02, 0x21, 0x4c, 0x18}):
		return through(ctx, payload[:len(payload)-trailingLength], "lz4", "-qdc")
	}
	return nil, fmt.Errorf("compressed in an unknown way: % x …", payload[:min(4, len(payload))])
}

func through(ctx context.Context, input []byte, name string, args ...string) ([]byte, error) {
	cmd := command(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}
