// Package pack makes one change of many on their way to a node, and many of one: encoded changes go in, a compressed
// one comes out, and the other way round. It is the only importer of the compressor.
package pack

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

const (
	// window is how far back the compressor looks: packs are not much longer, and who reads needs as much memory.
	window = 256 << 10
	// maxUnpacked bounds what a reader makes of one pack, as sync_service.proto says.
	maxUnpacked = 128 << 20
)

// Packer packs. It is safe for concurrent use.
type Packer struct {
	encoder *zstd.Encoder
}

// NewPacker returns a Packer.
func NewPacker() *Packer {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(fmt.Sprintf("make compressor: %v", err)) // the options are wrong
	}
	return &Packer{encoder}
}

// Pack returns the encoded SyncResponse whose one change stands for all of changes, which is an encoded SyncResponse
// that holds changes and nothing else.
func (p *Packer) Pack(changes []byte) []byte {
	packed := p.encoder.EncodeAll(changes, nil)
	change := protowire.AppendBytes(protowire.AppendTag(nil, fieldPacked, protowire.BytesType), packed)
	return protowire.AppendBytes(protowire.AppendTag(nil, fieldChanges, protowire.BytesType), change)
}

// Numbers of RuleSetChange.packed and SyncResponse.changes.
const fieldPacked, fieldChanges = 6, 6

// Unpack returns the changes with those that are packed in their place.
func Unpack(changes []*agentv1.RuleSetChange) ([]*agentv1.RuleSetChange, error) {
	var all []*agentv1.RuleSetChange
	var decoder *zstd.Decoder
	for i, change := range changes {
		packed, ok := change.GetChange().(*agentv1.RuleSetChange_Packed)
		if !ok {
			if decoder != nil {
				all = append(all, change)
			}
			continue
		}
		if decoder == nil {
			all = append(all, changes[:i]...)
			var err error
			if decoder, err = newDecoder(); err != nil {
				return nil, err
			}
			defer decoder.Close()
		}
		unpacked, err := unpack(decoder, packed.Packed)
		if err != nil {
			return nil, err
		}
		all = append(all, unpacked...)
	}
	if decoder == nil {
		return changes, nil
	}
	return all, nil
}

func newDecoder() (*zstd.Decoder, error) {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	return decoder, nil
}

func unpack(decoder *zstd.Decoder, packed []byte) ([]*agentv1.RuleSetChange, error) {
	encoded, err := decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress changes: %w", err)
	}
	var response agentv1.SyncResponse
	if err := proto.Unmarshal(encoded, &response); err != nil {
		return nil, fmt.Errorf("read packed changes: %w", err)
	}
	for _, change := range response.GetChanges() {
		if change.GetPacked() != nil {
			return nil, errors.New("read packed changes: one of them is packed again")
		}
	}
	return response.GetChanges(), nil
}
