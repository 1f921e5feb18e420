package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/cmd/settings"
)

// manifest is a policy or a domain set that a document asks for.
type manifest struct {
	document document
	resource resource
}

// resource is a *namewardv1.Policy or a *namewardv1.DomainSet.
type resource interface {
	proto.Message
	GetName() string
}

// faults are what is wrong with one document, in the order in which they were found.
type faults struct {
	place string
	name  string
	errs  []error
}

func (f *faults) Error() string {
	text := f.place
	if f.name != "" {
		text += ": " + f.name
	}
	if len(f.errs) == 1 && !strings.Contains(f.errs[0].Error(), "\n") {
		return text + ": " + f.errs[0].Error()
	}
	for _, err := range f.errs {
		text += "\n  " + strings.ReplaceAll(err.Error(), "\n", "\n  ")
	}
	return text
}

// parseManifests understands every document, or says of each what is wrong with it.
func parseManifests(documents []document) ([]manifest, error) {
	var (
		manifests []manifest
		errs      []error
	)
	places := map[string]string{}
	for _, document := range documents {
		resource, err := parseResource(document)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if place, taken := places[resource.GetName()]; taken {
			err := fmt.Errorf("the same resource is in %s", place)
			errs = append(errs, &faults{place: document.place(), name: resource.GetName(), errs: []error{err}})
			continue
		}
		places[resource.GetName()] = document.place()
		manifests = append(manifests, manifest{document, resource})
	}
	return manifests, errors.Join(errs...)
}

func parseResource(document document) (resource, error) {
	found := &faults{place: document.place()}
	decoder := json.NewDecoder(bytes.NewReader(document.json))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		found.errs = []error{fmt.Errorf("read document: %w", err)}
		return nil, found
	}
	object, ok := value.(map[string]any)
	if !ok {
		found.errs = []error{fmt.Errorf("want a resource with a name, not %s", kindOf(value))}
		return nil, found
	}
	if _, named := object["name"]; !named {
		for _, list := range []string{policiesCollection, domainSetsCollection} {
			if _, isList := object[list]; isList {
				found.errs = []error{fmt.Errorf("want a resource with a name, not a list of %s: `namewardctl describe NAME... -o yaml` prints what can be applied", plural(list))}
				return nil, found
			}
		}
	}
	name, resource, err := newResource(object["name"])
	if err != nil {
		found.errs = []error{fmt.Errorf("name: %w", err)}
		return nil, found
	}
	found.name = name
	if found.errs = checkFields(resource.ProtoReflect().Descriptor(), value); len(found.errs) > 0 {
		return nil, found
	}
	if err := protojson.Unmarshal(document.json, resource); err != nil {
		found.errs = []error{errors.New(strings.TrimPrefix(err.Error(), "proto:\u00a0"))}
		return nil, found
	}
	clearOutput(resource)
	return resource, nil
}

// clearOutput removes what a document carries that was read from the server, and that the server sets anew.
func clearOutput(resource resource) {
	switch resource := resource.(type) {
	case *namewardv1.Policy:
		resource.CreateTime, resource.UpdateTime = nil, nil
	case *namewardv1.DomainSet:
		resource.CreateTime, resource.UpdateTime = nil, nil
	}
}

// newResource returns an empty resource of the kind that the collection in a document's name says.
func newResource(value any) (string, resource, error) {
	if value == nil || value == "" {
		return "", nil, errors.New("must be set, such as policies/web-egress")
	}
	text, ok := value.(string)
	if !ok {
		return "", nil, fmt.Errorf("want a string such as policies/web-egress, not %s", kindOf(value))
	}
	name, err := parseResourceName(text)
	switch {
	case err != nil:
		return "", nil, err
	case name.collection == policiesCollection:
		return text, &namewardv1.Policy{}, nil
	case name.collection == domainSetsCollection:
		return text, &namewardv1.DomainSet{}, nil
	}
	return "", nil, fmt.Errorf("%q: only policies and domain sets can be applied, such as policies/web-egress%s", text,
		settings.Suggestion(name.collection, []string{policiesCollection, domainSetsCollection}))
}
