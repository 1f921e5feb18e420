// Package manifests_test builds the Kubernetes manifests as `kubectl kustomize` does, reads what comes out as the API
// server would, strictly, and holds it to what deployments/README.md says. It is a module of its own, so that nothing
// else depends on the libraries of Kubernetes.
package manifests_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const kubernetes = "../../deployments/kubernetes/"

// manifests are the objects of a kustomization, by kind and name.
type manifests map[string]runtime.Object

// scheme has the kinds that are used here, and no others.
func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// build builds a kustomization. A field that the API does not have, or a key that is there twice, fails the test.
func build(t *testing.T, fs filesys.FileSystem, path string) manifests {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, path)
	if err != nil {
		t.Fatalf("build %s: %v", path, err)
	}
	decoder := serializer.NewCodecFactory(scheme(t), serializer.EnableStrict).UniversalDeserializer()
	built := manifests{}
	for _, resource := range resources.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := decoder.Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("%s: %s %s: %v", path, resource.GetKind(), resource.GetName(), err)
		}
		id := kind.Kind + "/" + resource.OrgId().Name
		if built[id] != nil {
			t.Errorf("%s has %s twice", path, id)
		}
		built[id] = object
	}
	return built
}

// get returns an object of a kustomization.
func get[T runtime.Object](t *testing.T, m manifests, id string) T {
	t.Helper()
	object, is := m[id].(T)
	if !is {
		t.Fatalf("there is no %s, or it is a %T", id, m[id])
	}
	return object
}
