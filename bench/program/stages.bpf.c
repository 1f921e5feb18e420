//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* For benchmarks: all programs, which end after the stage that user space says. */
#define STAGES
#include "hot.bpf.c"
#include "dns_query.bpf.c"
#include "egress.bpf.c"
