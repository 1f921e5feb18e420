package main

import (
	"fmt"
	"strings"

	"github.com/nameward/nameward/cmd/settings"
)

// Collections of resource names, and so the kinds of resources.
const (
	policiesCollection   = "policies"
	nodesCollection      = "nodes"
	mappingsCollection   = "mappings"
	flowsCollection      = "flowEvents"
	domainSetsCollection = "domainSets"
	auditCollection      = "auditEvents"
)

// resourceName is a name in the form collection/id.
type resourceName struct{ collection, id string }

func (n resourceName) String() string { return n.collection + "/" + n.id }

// parseResourceName splits a name. What an id may look like is the server's to judge.
func parseResourceName(name string) (resourceName, error) {
	collection, id, found := strings.Cut(name, "/")
	if !found || collection == "" || id == "" || strings.Contains(id, "/") {
		return resourceName{}, fmt.Errorf("%q is not a resource name, such as policies/web-egress", name)
	}
	return resourceName{collection, id}, nil
}

// inCollection completes an id to a resource name of the collection.
func inCollection(collection, name string) (string, error) {
	if !strings.Contains(name, "/") {
		name = collection + "/" + name
	}
	parsed, err := parseResourceName(name)
	if err != nil {
		return "", err
	}
	if found, err := parseCollection(parsed.collection); err != nil || found != collection {
		return "", fmt.Errorf("%q is not in %s", name, collection)
	}
	return resourceName{collection, parsed.id}.String(), nil
}

// parseCollection understands a kind on the command line, in the plural or the singular.
func parseCollection(word string) (string, error) {
	switch strings.ToLower(word) {
	case "policies", "policy":
		return policiesCollection, nil
	case "nodes", "node":
		return nodesCollection, nil
	case "mappings", "mapping":
		return mappingsCollection, nil
	case "flows", "flow", "flowevents", "flowevent":
		return flowsCollection, nil
	case "domainsets", "domainset":
		return domainSetsCollection, nil
	case "audit", "auditevents", "auditevent":
		return auditCollection, nil
	}
	return "", fmt.Errorf("%q is not a kind of resource%s", word,
		settings.Suggestion(word, []string{policiesCollection, "domainsets", nodesCollection, mappingsCollection, "flows", "audit"}))
}

// plural is the word for resources of a collection on the command line.
func plural(collection string) string {
	switch collection {
	case flowsCollection:
		return "flows"
	case domainSetsCollection:
		return "domainsets"
	case auditCollection:
		return "audit events"
	}
	return collection
}
