package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"testing"
)

// compressed makes an image that says that its kernel is at an offset behind its two sectors of setup.
func compressed(t *testing.T, kernel string, length int) []byte {
	t.Helper()
	var payload bytes.Buffer
	w := gzip.NewWriter(&payload)
	if _, err := w.Write([]byte(kernel)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if length == 0 {
		length = payload.Len()
	}
	const offset = 64
	image := make([]byte, 2*sectorBytes+offset)
	image[setupSectors] = 1
	copy(image[setupMagic:], "HdrS")
	binary.LittleEndian.PutUint32(image[payloadOffset:], offset)
	binary.LittleEndian.PutUint32(image[payloadLength:], uint32(length))
	return append(append(image, payload.Bytes()...), "what is behind it"...)
}

func TestUncompress(t *testing.T) {
	const kernel = "\x7fELF and so on"
	got, err := uncompress(t.Context(), compressed(t, kernel, 0))
	if err != nil || string(got) != kernel {
		t.Errorf("got %q, %v", got, err)
	}
	for name, image := range map[string][]byte{
		"no kernel":       []byte("#!/bin/sh\n"),
		"no setup header": make([]byte, 4096),
		"cut short":       compressed(t, kernel, 1<<20),
		"no ELF file":     compressed(t, "something else", 0),
		"unknown form":    compressed(t, kernel, 1),
	} {
		if _, err := uncompress(t.Context(), image); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
