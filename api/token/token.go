// Package token makes the opaque tokens that clients hand back: where a list or a watch goes on. A token is no secret
// and guards nothing; what was cut, mistyped, made up or meant for something else is told from it.
package token

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ErrBad says that a text is no token of its kind.
var ErrBad = errors.New("not a token of this kind")

// List is a request for a page of a list.
type List interface {
	proto.Message
	GetPageToken() string
}

// Page returns the token of the page that begins behind a key, of the list that a request asks for.
func Page(request List, after string) string { return Seal(kindOf(request), after) }

// ParsePage returns the key that the token of a request holds; "" for the first page. It is ErrBad when the token is of
// another list, or of the same under another filter: where that ended says nothing of this one, of which items before
// it would be passed over in silence (AIP-158).
func ParsePage(request List) (after string, err error) {
	if request.GetPageToken() == "" {
		return "", nil
	}
	return Open(kindOf(request), request.GetPageToken())
}

// kindOf tells lists apart by all that a request says but for which page it wants, and how large.
func kindOf(request List) string {
	kind := string(request.ProtoReflect().Descriptor().FullName())
	selecting := request.ProtoReflect().New()
	request.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		// An empty filter selects what none does.
		empty := field.Message() != nil && !field.IsList() && !field.IsMap() && proto.Size(value.Message().Interface()) == 0
		if field.Name() != "page_token" && field.Name() != "page_size" && !empty {
			selecting.Set(field, value)
		}
		return true
	})
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(selecting.Interface())
	if err != nil || len(wire) == 0 {
		return kind // what came over the wire can be encoded
	}
	sum := sha256.Sum256(wire)
	return kind + " " + hex.EncodeToString(sum[:8])
}

// Seal makes a token of a text. The kind holds no zero byte.
func Seal(kind, text string) string {
	content := []byte(kind + "\x00" + text)
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(content))
	return base64.RawURLEncoding.EncodeToString(append(sum, content...))
}

// Open returns the text of a token of that kind.
func Open(kind, token string) (string, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < 4 || binary.BigEndian.Uint32(raw) != crc32.ChecksumIEEE(raw[4:]) {
		return "", ErrBad
	}
	text, ok := strings.CutPrefix(string(raw[4:]), kind+"\x00")
	if !ok {
		return "", ErrBad
	}
	return text, nil
}
