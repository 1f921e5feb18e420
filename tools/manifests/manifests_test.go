package manifests_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// overlays are what is applied.
var overlays = []string{"example", "example-ha"}

// TestAgent: the DaemonSet grants what the systemd unit grants, mounts what deployments/README.md lists, and nothing
// else.
func TestAgent(t *testing.T) {
	unit, err := os.ReadFile("../../deployments/systemd/nameward-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	granted := strings.Fields(strings.ReplaceAll(regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindStringSubmatch(string(unit))[1], "CAP_", ""))
	for _, overlay := range overlays {
		set := get[*appsv1.DaemonSet](t, build(t, filesys.MakeFsOnDisk(), kubernetes+overlay), "DaemonSet/nameward-agent")
		pod := set.Spec.Template.Spec
		agent := pod.Containers[0]
		if !pod.HostNetwork || pod.HostPID || pod.HostIPC || *pod.AutomountServiceAccountToken || len(pod.Containers) != 1 {
			t.Errorf("%s: the pod has more of the node than its network, or less: %+v", overlay, pod)
		}
		var added []string
		for _, c := range agent.SecurityContext.Capabilities.Add {
			added = append(added, string(c))
		}
		slices.Sort(added)
		slices.Sort(granted)
		if !slices.Equal(added, granted) {
			t.Errorf("%s: capabilities %v, and the unit grants %v", overlay, added, granted)
		}
		if !slices.Equal(agent.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) || !*agent.SecurityContext.ReadOnlyRootFilesystem ||
			*agent.SecurityContext.AllowPrivilegeEscalation || *agent.SecurityContext.Privileged {
			t.Errorf("%s: the container is not closed: %+v", overlay, agent.SecurityContext)
		}
		mounts := map[string]string{}
		for _, v := range pod.Volumes {
			if v.HostPath != nil {
				mounts[v.Name] = v.HostPath.Path
			}
		}
		got := map[string]bool{}
		for _, m := range agent.VolumeMounts {
			if path := mounts[m.Name]; path != "" {
				if path != m.MountPath {
					t.Errorf("%s: %s is mounted on %s", overlay, path, m.MountPath)
				}
				got[path] = m.ReadOnly
			}
		}
		for path, readOnly := range map[string]bool{
			"/etc/nameward/agent": true, "/sys/fs/bpf": false, "/run/xtables.lock": false, "/var/lib/nameward": false, "/run/nameward": false,
		} {
			if is, there := got[path]; !there || is != readOnly {
				t.Errorf("%s: %s is not mounted, or read-only and should not be, or the other way", overlay, path)
			}
			delete(got, path)
		}
		if len(got) > 0 {
			t.Errorf("%s: mounted without need: %v", overlay, got)
		}
		if pod.PriorityClassName != "system-node-critical" || len(pod.Tolerations) != 1 || pod.Tolerations[0] != (corev1.Toleration{Operator: corev1.TolerationOpExists}) {
			t.Errorf("%s: not every node would have an agent", overlay)
		}
		if surge := set.Spec.UpdateStrategy.RollingUpdate.MaxSurge; surge.IntValue() != 0 {
			t.Errorf("%s: two agents would meet on a node", overlay)
		}
	}
}

// TestServer: the servers have no right at all, disks of their own, and one of them at least while nodes are drained.
func TestServer(t *testing.T) {
	for overlay, replicas := range map[string]int32{"example": 1, "example-ha": 3} {
		m := build(t, filesys.MakeFsOnDisk(), kubernetes+overlay)
		set := get[*appsv1.StatefulSet](t, m, "StatefulSet/nameward-server")
		pod := set.Spec.Template.Spec
		server := pod.Containers[0]
		if *set.Spec.Replicas != replicas {
			t.Errorf("%s: %d replicas", overlay, *set.Spec.Replicas)
		}
		if !*pod.SecurityContext.RunAsNonRoot || pod.HostNetwork || *pod.AutomountServiceAccountToken || !*server.SecurityContext.ReadOnlyRootFilesystem ||
			*server.SecurityContext.AllowPrivilegeEscalation || len(server.SecurityContext.Capabilities.Add) > 0 ||
			pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: the pod would not be admitted where `restricted` is enforced", overlay)
		}
		budget := get[*policyv1.PodDisruptionBudget](t, m, "PodDisruptionBudget/nameward-server")
		if budget.Spec.MaxUnavailable.IntValue() != 1 {
			t.Errorf("%s: nodes could not be drained, or all servers at once", overlay)
		}
		service := get[*corev1.Service](t, m, "Service/nameward-server")
		if set.Spec.ServiceName != service.Name || service.Spec.ClusterIP != corev1.ClusterIPNone {
			t.Errorf("%s: servers have no names of their own", overlay)
		}
		policy := get[*networkingv1.NetworkPolicy](t, m, "NetworkPolicy/nameward-server")
		for _, selector := range []*metav1.LabelSelector{budget.Spec.Selector, &policy.Spec.PodSelector, {MatchLabels: service.Spec.Selector}, set.Spec.Selector} {
			if s, err := metav1.LabelSelectorAsSelector(selector); err != nil || s.Empty() || !s.Matches(labels.Set(set.Spec.Template.Labels)) {
				t.Errorf("%s: %v does not select the servers: %v", overlay, selector, err)
			}
		}
		if closed := len(policy.Spec.Egress) == 0; closed == (replicas > 1) || len(policy.Spec.PolicyTypes) != 2 {
			t.Errorf("%s: servers may connect to what they need not, or not to etcd: %+v", overlay, policy.Spec)
		}
	}
}

// TestReferences: whatever an object names is there: volumes, ports, settings, accounts, images with a version.
func TestReferences(t *testing.T) {
	for _, overlay := range overlays {
		m := build(t, filesys.MakeFsOnDisk(), kubernetes+overlay)
		for id, object := range m {
			namespace := ""
			var template corev1.PodTemplateSpec
			claims := map[string]bool{}
			switch o := object.(type) {
			case *appsv1.DaemonSet:
				namespace, template = o.Namespace, o.Spec.Template
			case *appsv1.StatefulSet:
				namespace, template = o.Namespace, o.Spec.Template
				for _, claim := range o.Spec.VolumeClaimTemplates {
					claims[claim.Name] = true
				}
			default:
				continue
			}
			for _, fault := range faults(m, namespace, template.Spec, claims) {
				t.Errorf("%s: %s: %s", overlay, id, fault)
			}
			if m["Namespace/"+namespace] == nil {
				t.Errorf("%s: %s is in the namespace %q, which is not there", overlay, id, namespace)
			}
		}
	}
}

func faults(m manifests, namespace string, pod corev1.PodSpec, volumes map[string]bool) (found []string) {
	fault := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap != nil && !slices.ContainsFunc(slices.Collect(values(m)), func(c *corev1.ConfigMap) bool {
			return c.Name == v.ConfigMap.Name && c.Namespace == namespace
		}) {
			fault("there are no settings %s", v.ConfigMap.Name)
		}
	}
	if account, is := m["ServiceAccount/"+pod.ServiceAccountName].(*corev1.ServiceAccount); !is || account.Namespace != namespace {
		fault("there is no account %q", pod.ServiceAccountName)
	}
	mounted := map[string]bool{}
	for _, c := range pod.Containers {
		if name, version, _ := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":"); version == "" || version == "latest" {
			fault("image %s has no version", name)
		}
		ports := map[string]bool{}
		for _, p := range c.Ports {
			ports[p.Name] = true
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			switch {
			case probe == nil:
			case probe.HTTPGet != nil && !ports[probe.HTTPGet.Port.String()], probe.TCPSocket != nil && !ports[probe.TCPSocket.Port.String()]:
				fault("a probe asks a port that is not there: %+v", probe.ProbeHandler)
			}
		}
		if c.StartupProbe == nil || c.LivenessProbe == nil {
			fault("%s is not looked after", c.Name)
		}
		for _, mount := range c.VolumeMounts {
			mounted[mount.Name] = true
			if !volumes[mount.Name] {
				fault("%s is mounted, and not there", mount.Name)
			}
		}
	}
	for name := range volumes {
		if !mounted[name] {
			fault("%s is there, and not mounted", name)
		}
	}
	return found
}

// values yields the objects of a type.
func values(m manifests) func(yield func(*corev1.ConfigMap) bool) {
	return func(yield func(*corev1.ConfigMap) bool) {
		for _, object := range m {
			if config, is := object.(*corev1.ConfigMap); is && !yield(config) {
				return
			}
		}
	}
}

// withComponent builds an overlay that has a component besides.
func withComponent(t *testing.T, overlay, component string) manifests {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
		"resources": []string{"../" + overlay}, "components": []string{"../components/" + component},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(kubernetes, "test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // of the test
	if err := os.WriteFile(dir+"/kustomization.yaml", text, 0o600); err != nil {
		t.Fatal(err)
	}
	return build(t, filesys.MakeFsOnDisk(), dir)
}

// TestSPIRE: with that component nothing is left of the files, and the socket is there.
func TestSPIRE(t *testing.T) {
	for _, overlay := range overlays {
		m := withComponent(t, overlay, "spire")
		for _, pod := range []corev1.PodSpec{
			get[*appsv1.DaemonSet](t, m, "DaemonSet/nameward-agent").Spec.Template.Spec,
			get[*appsv1.StatefulSet](t, m, "StatefulSet/nameward-server").Spec.Template.Spec,
		} {
			socket := ""
			for _, e := range pod.Containers[0].Env {
				if strings.HasPrefix(e.Name, "NAMEWARD_TLS_") || strings.HasSuffix(e.Name, "_CA") {
					t.Errorf("%s: %s is left", overlay, e.Name)
				}
				if e.Name == "NAMEWARD_SPIFFE_SOCKET" {
					socket = e.Value
				}
			}
			mounts := pod.Containers[0].VolumeMounts
			at := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.Name == "spiffe" })
			if at < 0 || !strings.HasPrefix(socket, "unix://"+mounts[at].MountPath+"/") {
				t.Errorf("%s: the socket %q is not mounted", overlay, socket)
			}
			if slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "identity" }) {
				t.Errorf("%s: the files are mounted still", overlay)
			}
		}
	}
}

// TestCleanup: with that component each node's pod runs cleanup, on what the agent mounts.
func TestCleanup(t *testing.T) {
	before := get[*appsv1.DaemonSet](t, build(t, filesys.MakeFsOnDisk(), kubernetes+"example"), "DaemonSet/nameward-agent").Spec.Template.Spec
	after := get[*appsv1.DaemonSet](t, withComponent(t, "example", "cleanup"), "DaemonSet/nameward-agent").Spec.Template.Spec
	container := after.Containers[0]
	if container.Args[0] != "cleanup" || container.LivenessProbe != nil || container.StartupProbe != nil {
		t.Errorf("it runs %v, with probes %v, %v", container.Args, container.LivenessProbe, container.StartupProbe)
	}
	if len(container.VolumeMounts) != len(before.Containers[0].VolumeMounts) || len(after.Volumes) != len(before.Volumes) {
		t.Error("it sees other files than the agent did")
	}
}
