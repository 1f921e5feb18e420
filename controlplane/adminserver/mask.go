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
)

// outputOnly are the fields of a resource that a mask may name but that no update changes (AIP-203); the name
// says which resource it is.
func outputOnly() []protoreflect.Name {
	return []protoreflect.Name{"name", "etag", "create_time", "update_time", "domain_count"}
}

func policyDescriptor() protoreflect.MessageDescriptor {
	return (*namewardv1.Policy)(nil).ProtoReflect().Descriptor()
}

func domainSetDescriptor() protoreflect.MessageDescriptor {
	return (*namewardv1.DomainSet)(nil).ProtoReflect().Descriptor()
}

// applyMask sets the fields of the mask in out as they are in changes (AIP-134): without paths each field
// that is set there, with `*` all. Paths must have passed checkMask. What fields hold is shared with changes.
func applyMask[R proto.Message](out, changes R, paths []string) R {
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
	case isResource(to.Descriptor()) && slices.Contains(outputOnly(), field.Name()):
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

func isResource(message protoreflect.MessageDescriptor) bool {
	return message == policyDescriptor() || message == domainSetDescriptor()
}

// checkMask returns a *ruleset.FieldError for each path that names no field of a resource.
func checkMask(resource protoreflect.MessageDescriptor, paths []string) error {
	var all []error
	for i, path := range paths {
		if path != "*" && !isField(resource, strings.Split(path, ".")) {
			all = append(all, &ruleset.FieldError{
				Field: fmt.Sprintf("update_mask.paths[%d]", i), Value: path,
				Reason: fmt.Sprintf("is no field of a %s that can be changed on its own", resource.Name()),
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
