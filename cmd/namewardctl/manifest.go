package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/cmd/settings"
)

// manifest is a policy that a document asks for.
type manifest struct {
	document document
	policy   *namewardv1.Policy
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
		policy, err := parsePolicy(document)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if place, taken := places[policy.GetName()]; taken {
			err := fmt.Errorf("the same policy is in %s", place)
			errs = append(errs, &faults{place: document.place(), name: policy.GetName(), errs: []error{err}})
			continue
		}
		places[policy.GetName()] = document.place()
		manifests = append(manifests, manifest{document, policy})
	}
	return manifests, errors.Join(errs...)
}

func parsePolicy(document document) (*namewardv1.Policy, error) {
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
	name, err := policyName(object["name"])
	if err != nil {
		found.errs = []error{fmt.Errorf("name: %w", err)}
		return nil, found
	}
	found.name = name
	policy := &namewardv1.Policy{}
	if found.errs = checkFields(policy.ProtoReflect().Descriptor(), value); len(found.errs) > 0 {
		return nil, found
	}
	if err := protojson.Unmarshal(document.json, policy); err != nil {
		found.errs = []error{errors.New(strings.TrimPrefix(err.Error(), "proto:\u00a0"))}
		return nil, found
	}
	// Output only: a document that was read from the server carries what the server will set anew.
	policy.CreateTime, policy.UpdateTime = nil, nil
	return policy, nil
}

// policyName checks that a document is a policy, by the collection in its name.
func policyName(value any) (string, error) {
	if value == nil || value == "" {
		return "", errors.New("must be set, such as policies/web-egress")
	}
	text, ok := value.(string)
	if !ok {
		return "", fmt.Errorf("want a string such as policies/web-egress, not %s", kindOf(value))
	}
	name, err := parseResourceName(text)
	switch {
	case err != nil:
		return "", err
	case name.collection == policiesCollection:
		return text, nil
	case name.collection == domainSetsCollection:
		return "", fmt.Errorf("%q: domain sets are not supported by this version; list the domains in the policy's rules", text)
	}
	return "", fmt.Errorf("%q: only policies can be applied, such as policies/web-egress%s", text,
		settings.Suggestion(name.collection, []string{policiesCollection}))
}
