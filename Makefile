# `make` alone says what there is. The two commands of the README: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := $(CURDIR)/.bin
GO ?= go
PACKAGES := ./...
export PATH := $(BIN):$(PATH)

# Debian packages, each with the program by which its absence shows.
RUNTIME_PACKAGES := iptables:iptables iproute2:ip kmod:modprobe
TEST_PACKAGES := $(RUNTIME_PACKAGES) mmdebstrap:mmdebstrap knot:knotd dnsmasq-base:dnsmasq unbound:unbound util-linux:nsenter procps:pgrep systemd:systemd-analyze linux-libc-dev:/usr/include/asm-generic/unistd.h ipset:ipset nftables:nft etcd-server:etcd
KERNEL_PACKAGES := $(TEST_PACKAGES) qemu-system-x86:qemu-system-x86_64 xz-utils:xz zstd:zstd lz4:lz4 netbase:/etc/protocols git:git
GENERATE_PACKAGES := clang-14:clang-14 llvm-14:llvm-strip-14 clang-format-14:clang-format-14 libbpf-dev:/usr/include/bpf/bpf_helpers.h

# A package is installed only when its program is not there.
lacking = $(strip $(foreach p,$(1),$(shell f='$(lastword $(subst :, ,$(p)))'; command -v "$$f" >/dev/null || [ -e "$$f" ] || echo $(firstword $(subst :, ,$(p))))))
define install
	@lacking="$(call lacking,$(1))"; if [ -n "$$lacking" ]; then \
		echo "installing: $$lacking"; \
		[ "$$(id -u)" = 0 ] || { echo "this needs root (or install them yourself: apt-get install $$lacking)" >&2; exit 1; }; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$lacking; } >/dev/null; \
		case " $$lacking " in *" etcd-server "*) systemctl disable --now etcd >/dev/null 2>&1 || true;; esac; \
	fi
endef

.PHONY: help
help: ## Say what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## /\1\t/' | awk -F'\t' '{ printf "  %-16s %s\n", $$1, $$2 }'

.PHONY: build
build: ## Build the three programs into bin/
	$(GO) build -trimpath -o bin/ ./cmd/...

# The programs as they are shipped: static, with no path and no id of the machine that built them.
.PHONY: packages images
ARCHES ?= amd64 arm64
packages: $(BIN)/nfpm ## Pack dist/*.deb of the programs, for ARCHES (amd64 arm64), as VERSION (by the git tag)
	ARCHES="$(ARCHES)" VERSION="$(VERSION)" GO="$(GO)" deployments/debian/build dist

# Needs docker with buildx; what can be said of the images without is tested.
images: ## Build the images of server and agent from DEBIAN_DIGEST (docker buildx), tagged nameward/PROGRAM:VERSION
	ARCHES="$(ARCHES)" VERSION="$(VERSION)" GO="$(GO)" deployments/docker/build

.PHONY: demo
demo: install-runtime build ## Show the main job on a small internet in network namespaces (root)
	$(GO) run ./e2e/demo -bin bin

.PHONY: test
test: install-test ## Pass every test, the privileged and end-to-end ones included, and a slice under the oldest kernel (root)
	REQUIRE_PRIVILEGED=1 $(GO) test -count=1 -parallel 3 -timeout 60m $(PACKAGES)
	$(MAKE) --no-print-directory manifests
	$(MAKE) --no-print-directory kernels-slice

.PHONY: test-unprivileged
test-unprivileged: ## Pass the tests that need no root
	$(GO) test $(PACKAGES)

.PHONY: test-privileged
test-privileged: install-test ## Pass the tests of bpf and dataplane on this kernel (root)
	REQUIRE_PRIVILEGED=1 $(GO) test -count=1 -timeout 60m ./bpf/... ./dataplane/...

.PHONY: manifests
manifests: ## Check what is deployed to Kubernetes, by its own types
	cd tools/manifests && $(GO) test ./...

.PHONY: e2e
e2e: install-test ## Pass the end-to-end tests (root)
	REQUIRE_PRIVILEGED=1 $(GO) test -count=1 -timeout 60m -v ./e2e/...

# Where no kernel can be had because no source of packages answers, the slice says so and passes; whatever else
# keeps it from running fails.
.PHONY: kernels kernels-slice
kernels: build-kernels ## Pass privileged and end-to-end tests under other kernels in virtual machines: KERNELS="6.1 6.12-rt", PARTS="nft legacy", PACKAGE=./e2e, RUN=TestX (docs/kernels.md)
	bin/kernels -kernels "$(KERNELS)" -parts "$(PARTS)" -package "$(PACKAGE)" -run "$(RUN)" $(KERNELFLAGS)
kernels-slice: build-kernels ## Pass a short slice of these under the oldest kernel
	bin/kernels -slice -skip-offline $(KERNELFLAGS)

.PHONY: build-kernels
build-kernels: install-kernels
	$(GO) build -o bin/kernels ./tools/kernels

.PHONY: fuzz
fuzz: ## Fuzz every parser, FUZZTIME each (1m)
	for package in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$package/*_test.go | cut -c6-); do \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $${FUZZTIME:-1m} $$package; \
		done; \
	done

.PHONY: differential
differential: install-test ## Compare EXECUTIONS (1000000) responses and PACKETS (300000) with the rules, from SEED (1) and SHARD (0) on (root)
	REQUIRE_PRIVILEGED=1 $(GO) test -count=1 -v -timeout 24h -run '^TestDifferential$$' ./bpf \
		-executions $${EXECUTIONS:-1000000} -seed $${SEED:-1} -shard $${SHARD:-0} -workers $$(nproc)
	REQUIRE_PRIVILEGED=1 $(GO) test -count=1 -v -timeout 24h -run '^TestDifferentialVerdicts$$' ./dataplane/datapath \
		-rapid.checks $$(($${PACKETS:-300000} / 60)) -rapid.seed $${SEED:-1}

.PHONY: faults
faults: install-test ## Inject faults into a node under load for FAULTS (30m), from SEED (1) (root)
	REQUIRE_PRIVILEGED=1 $(GO) test -count=1 -v -timeout 24h -run '^TestFaults$$' ./e2e -faults $${FAULTS:-30m} -faults-seed $${SEED:-1}

.PHONY: ha
ha: install-test ## Kill, freeze and cut off servers and members of etcd for HA (10m), from SEED (1) (root)
	REQUIRE_PRIVILEGED=1 $(GO) test -count=1 -v -timeout 24h -run '^TestHighAvailability$$' ./e2e -ha $${HA:-10m} -ha-seed $${SEED:-1}

.PHONY: bench bench-fast
bench: install-test build-bench ## Measure every budget beside what others do, with NAMES=FILE of real names, into docs/benchmarks.md; ONLY=a,b replaces sections of it (root)
	bin/bench -names "$(NAMES)" $(if $(ONLY),-only "$(ONLY)" -out docs/benchmarks.md) $(BENCHFLAGS)
bench-fast: install-test build-bench ## The same in less than 5 minutes, into bin/benchmarks.md (root)
	bin/bench -fast -out bin/benchmarks.md -names "$(NAMES)" $(BENCHFLAGS)

.PHONY: build-bench
build-bench: build
	$(GO) build -trimpath -ldflags "-X main.builtOf=$$(git log -1 --format=%h -- :/ ':(top,exclude)docs' ':(top,exclude)*.md')" -o bin/bench ./bench

.PHONY: microbench
microbench: install-test ## Run the benchmarks of the Go packages, BENCHTIME (1s) each
	REQUIRE_PRIVILEGED=1 $(GO) test -run '^$$' -bench . -benchtime $${BENCHTIME:-1s} -timeout 60m $(PACKAGES)

.PHONY: generate
generate: tools-protobuf generate-bpf ## Generate the Go of protos and BPF programs (committed)
	buf generate --path proto/nameward

.PHONY: generate-bpf
generate-bpf: ## Generate the Go of the BPF programs alone
	$(call install,$(GENERATE_PACKAGES))
	$(GO) generate ./bpf ./bench/...

.PHONY: lint
lint: tools ## Check style, import directions and protos
	golangci-lint run
	buf lint
	$(MAKE) --no-print-directory breaking
	$(call install,$(GENERATE_PACKAGES))
	clang-format-14 --dry-run --Werror bpf/*.[ch] bench/*/*.[ch]

.PHONY: breaking
breaking: tools-protobuf ## Hold the protos against those of BASE (the main branch)
	@base=$$(mktemp -d); trap 'rm -rf "$$base"' EXIT; \
	git archive "$${BASE:-main}" proto buf.yaml | tar -x -C "$$base"; \
	mkdir "$$base/.bin"; cp -r $(BIN)/include "$$base/.bin/"; \
	buf breaking --against "$$base"

.PHONY: format
format: tools ## Format Go and C
	golangci-lint fmt
	clang-format-14 -i bpf/*.[ch] bench/*/*.[ch]

.PHONY: tools tools-protobuf tools-lint tools-grpcurl tools-packages
tools: tools-protobuf tools-lint tools-grpcurl tools-packages ## Install the pinned tools into .bin/
tools-protobuf: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/include/buf/validate/validate.proto
tools-lint: $(BIN)/golangci-lint
tools-grpcurl: $(BIN)/grpcurl
tools-packages: $(BIN)/nfpm $(BIN)/promtool

$(BIN)/buf: tools/buf/go.mod
	cd tools/buf && GOBIN=$(BIN) $(GO) install tool
	@touch $@
$(BIN)/protoc-gen-go: tools/protobuf/go.mod
	cd tools/protobuf && GOBIN=$(BIN) $(GO) install tool
	@touch $@
$(BIN)/include/buf/validate/validate.proto: tools/protobuf/go.mod tools/protobuf/printvalidate/main.go
	mkdir -p $(BIN)/include && cd tools/protobuf && $(GO) run ./printvalidate $(BIN)/include
	@touch $@
$(BIN)/golangci-lint: tools/lint/go.mod
	cd tools/lint && GOBIN=$(BIN) $(GO) install tool
	@touch $@
$(BIN)/grpcurl: tools/grpcurl/go.mod
	cd tools/grpcurl && GOBIN=$(BIN) $(GO) install tool
	@touch $@
$(BIN)/nfpm: tools/nfpm/go.mod tools/nfpm/main.go
	cd tools/nfpm && GOBIN=$(BIN) $(GO) install .
	@touch $@
# Out of its package, which is not installed: that would start a Prometheus.
$(BIN)/promtool:
	@mkdir -p $(BIN); dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; cd "$$dir"; \
	download() { apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null 2>&1; }; \
	download || { apt-get update -qq && download; }; \
	dpkg -x prometheus_*.deb . && cp usr/bin/promtool $@

.PHONY: install-runtime install-test install-kernels
install-runtime:
	$(call install,$(TEST_PACKAGES))
install-test: tools-grpcurl tools-packages
	$(call install,$(TEST_PACKAGES) $(GENERATE_PACKAGES))
install-kernels:
	$(call install,$(KERNEL_PACKAGES))

.PHONY: clean
clean: ## Remove what was built, but not the tools
	rm -rf bin dist
