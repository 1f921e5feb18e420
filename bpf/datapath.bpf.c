//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* All programs in one object, so that they share maps and the Go types are generated once. */
#include "dns_query.bpf.c"
#include "dns_response.bpf.c"
#include "egress.bpf.c"
/* Behind egress, whose judges it asks. */
#include "accept.bpf.c"
#include "remap.bpf.c"

char _license[] SEC("license") = "GPL";
