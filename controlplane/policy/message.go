package policy

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// Copy returns a message whose fields can be set without changing the original. It shares what they hold,
// such as rules and workloads, which may be large: that stays immutable.
func Copy(message *namewardv1.Policy) *namewardv1.Policy {
	out := &namewardv1.Policy{}
	from, to := message.ProtoReflect(), out.ProtoReflect()
	from.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		to.Set(field, value)
		return true
	})
	to.SetUnknown(from.GetUnknown())
	return out
}

// WithoutOutput returns a Copy that has only what clients set.
func WithoutOutput(message *namewardv1.Policy) *namewardv1.Policy {
	out := Copy(message)
	out.Etag, out.CreateTime, out.UpdateTime = "", nil, nil
	return out
}
