/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Where programs of the bench may end early, so that it can tell what each stage of them costs. In
 * the product nothing is left of it.
 */
#pragma once

#include <linux/types.h>
#include <stdbool.h>

/* In order of the way through a program; not every program has each of them. */
enum stage {
	STAGE_ALL,	  /* ends nowhere before its end */
	STAGE_NOTHING,	  /* is called, and returns */
	STAGE_GENERATION, /* which rules are in force */
	STAGE_HEADERS,	  /* of IP and, but for connections, of the transport */
	STAGE_WORKLOAD,	  /* whose connection it is */
	STAGE_TRANSPORT,  /* header */
	STAGE_TRUSTED,	  /* whether the resolver is trusted */
	STAGE_SCRATCH,	  /* working memory claimed */
	STAGE_MESSAGE,	  /* copied */
	STAGE_ASKER,	  /* where questions of the client are */
	STAGE_NAME,	  /* read, in canonical form, and hashed */
	STAGE_AHEAD,	  /* what will be needed is being fetched */
	STAGE_RULES,	  /* whether they refuse the question */
	STAGE_QUESTION,	  /* found among those outstanding, or a place for it */
	STAGE_CLOCK,	  /* read */
	STAGE_MATCH,	  /* match sets of the name */
	STAGE_RECORDS,	  /* read */
	STAGE_TAKEN,	  /* the question is used up */
	STAGE_MAPPINGS	  /* added to, or looked up and judged */
};

#ifdef STAGES
volatile enum stage last_stage;

static __always_inline bool ends_after(enum stage stage)
{
	return last_stage == stage;
}
#else
static __always_inline bool ends_after(enum stage stage)
{
	(void)stage;
	return false;
}
#endif
