package adminserver

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// outputOnly are the fields of a policy that a mask may name but that no update changes (AIP-203); the name
// says which policy it is.
func outputOnly() []protoreflect.Name {
	return []protoreflect.Name{"name", "etag", "create_time", "update_time"}
}

// applyMask returns current with the fields of the mask as they are in changes (AIP-134): without paths each
// field that is set there, with `*` all. Paths must have passed checkMask.
func applyMask(current, changes *namewardv1.Policy, paths []string) *namewardv1.Policy {
	out := policy.Copy(current)
	fields := changes.ProtoReflect().Descriptor().Fields()
	if len(paths) == 0 || slices.Contains(paths, "*") {
		whole := len(paths) > 0
		for i := range fields.Len() {
			field := fields.Get(i)
			if whole || changes.ProtoReflect().Has(field) {
				setPath(out.ProtoReflect(), changes.ProtoReflect(), []string{string(field.Name())})
			}
		}
		return out
	}
	for _, path := range paths {
		setPath(out.ProtoReflect(), changes.ProtoReflect(), strings.Split(path, "."))
	}
	return out
}

// setPath makes the field at a path what it is in from, also if that is unset.
func setPath(to, from protoreflect.Message, path []string) {
	field := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	switch {
	case to.Descriptor().FullName() == policyFullName() && slices.Contains(outputOnly(), field.Name()):
	case len(path) > 1:
		// What `to` holds may be shared with the stored policy.
		child := proto.Clone(to.Get(field).Message().Interface()).ProtoReflect()
		if !child.IsValid() {
			child = to.NewField(field).Message()
		}
		setPath(child, from.Get(field).Message(), path[1:])
		to.Set(field, protoreflect.ValueOfMessage(child))
	case from.Has(field):
		to.Set(field, from.Get(field))
	default:
		to.Clear(field)
	}
}

func policyFullName() protoreflect.FullName {
	return (*namewardv1.Policy)(nil).ProtoReflect().Descriptor().FullName()
}

// checkMask returns a *ruleset.FieldError for each path that names no field of a policy.
func checkMask(paths []string) error {
	var all []error
	for i, path := range paths {
		if path != "*" && !isField((*namewardv1.Policy)(nil).ProtoReflect().Descriptor(), strings.Split(path, ".")) {
			all = append(all, &ruleset.FieldError{
				Field: fmt.Sprintf("update_mask.paths[%d]", i), Value: path, Reason: "is no field of a policy that can be changed on its own",
			})
		}
	}
	return errors.Join(all...)
}

// isField reports whether a path leads through single messages to a field. What is in a list or a map can
// only be replaced with it.
func isField(message protoreflect.MessageDescriptor, path []string) bool {
	field := message.Fields().ByName(protoreflect.Name(path[0]))
	switch {
	case field == nil:
		return false
	case len(path) == 1:
		return true
	default:
		return field.Message() != nil && !field.IsList() && !field.IsMap() && isField(field.Message(), path[1:])
	}
}
