package controlplane_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// replace puts the domains of a set by a stream.
func (s *server) replace(name string, domains []string) *namewardv1.ReplaceDomainsResponse {
	s.t.Helper()
	stream, err := s.sets.ReplaceDomains(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	request := &namewardv1.ReplaceDomainsRequest{Name: name, AllowMissing: true}
	for first := true; first || len(domains) > 0; first = false {
		n := min(len(domains), 10_000)
		request.Domains, domains = domains[:n], domains[n:]
		if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
			s.t.Fatal(err)
		}
		request = &namewardv1.ReplaceDomainsRequest{}
	}
	response, err := stream.CloseAndRecv()
	if err != nil {
		s.t.Fatal(err)
	}
	return response
}

func manyDomains(count int, suffix string) []string {
	domains := make([]string, count)
	for i := range domains {
		domains[i] = fmt.Sprintf("host-%07d.%s.example", i, suffix)
	}
	return domains
}

// The whole of a set replaced by other domains, over gRPC and durably; the highest resident memory of the
// process is that of server and client together.
func BenchmarkReplaceDomains(b *testing.B) {
	for _, count := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			s := start(b, b.TempDir())
			lists := [][]string{manyDomains(count, "a"), manyDomains(count, "b")}
			s.replace("domainSets/large", lists[0])
			round := 0
			for b.Loop() {
				round++
				s.replace("domainSets/large", lists[round%2])
			}
			b.ReportMetric(float64(peakResident(b))/(1<<20), "peak-MB")
			runtime.KeepAlive(lists)
		})
	}
}

// One domain added to a large set, over gRPC and durably.
func BenchmarkAddDomain(b *testing.B) {
	for _, count := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			s := start(b, b.TempDir())
			s.replace("domainSets/large", manyDomains(count, "a"))
			i := 0
			for b.Loop() {
				i++
				request := &namewardv1.AddDomainsRequest{Name: "domainSets/large", Domains: []string{fmt.Sprintf("new-%d.example", i)}}
				if _, err := s.sets.AddDomains(b.Context(), request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// peakResident returns VmHWM.
func peakResident(b *testing.B) (bytes int) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(line, &bytes); err != nil {
		b.Fatal(err)
	}
	return bytes << 10
}
