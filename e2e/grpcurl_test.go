package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// TestGrpcurlPage runs every command of docs/grpcurl.md, with no proto files.
func TestGrpcurlPage(t *testing.T) {
	f := newFleet(t)
	page, err := os.ReadFile("../docs/grpcurl.md")
	f.must(err)
	bin, err := filepath.Abs("../.bin")
	f.must(err)
	text := strings.NewReplacer("\\\n", " ", "/run/nameward/agent.sock", f.Socket()).Replace(string(page))
	checkMethods(t, text)
	for i, block := range strings.Split(text, "```") {
		if i%2 == 0 {
			continue
		}
		// A request may go over lines: a command begins where a line begins with grpcurl.
		for _, command := range strings.Split(block, "\ngrpcurl ")[1:] {
			out, err := f.command(t.Context(), "sh", "-c", "PATH="+bin+":$PATH; grpcurl "+command)
			watched := strings.Contains(command, "-max-time") && strings.Contains(out, "synced") && strings.Contains(out, "DeadlineExceeded")
			if err != nil && !watched {
				t.Errorf("grpcurl %s: %v\n%s", command, err, out)
			}
		}
	}
}

// checkMethods holds that the page has a command for every method, but for the stream of the agents.
func checkMethods(t *testing.T, page string) {
	t.Helper()
	for _, service := range []grpc.ServiceDesc{
		namewardv1.PolicyService_ServiceDesc, namewardv1.DomainSetService_ServiceDesc, namewardv1.NodeService_ServiceDesc,
		namewardv1.ObservationService_ServiceDesc, agentv1.LocalService_ServiceDesc,
	} {
		var methods []string
		for _, method := range service.Methods {
			methods = append(methods, method.MethodName)
		}
		for _, stream := range service.Streams {
			methods = append(methods, stream.StreamName)
		}
		for _, method := range methods {
			if !strings.Contains(page, " "+service.ServiceName+"/"+method+"\n") {
				t.Errorf("the page has no command for %s/%s", service.ServiceName, method)
			}
		}
	}
}
