package adminserver

import (
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// The validator does not look at what agents say after hello.
func TestOnlyHelloOfWhatAgentsSayHasConstraints(t *testing.T) {
	met := map[protoreflect.FullName]bool{}
	var look func(message protoreflect.MessageDescriptor)
	look = func(message protoreflect.MessageDescriptor) {
		if met[message.FullName()] {
			return
		}
		met[message.FullName()] = true
		for i := range message.Fields().Len() {
			field := message.Fields().Get(i)
			if proto.HasExtension(field.Options(), validate.E_Field) {
				t.Errorf("%s has constraints", field.FullName())
			}
			if field.Message() != nil {
				look(field.Message())
			}
		}
	}
	for _, message := range []proto.Message{&agentv1.Ack{}, &agentv1.Nack{}, &agentv1.Observations{}, &agentv1.StatusReport{}} {
		look(message.ProtoReflect().Descriptor())
	}
}
