/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Working memory that is too big for the stack: claimed for one run of a program. */
#pragma once

#include "verdict.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define HEADERS_ROOM 32 /* for those of IP and UDP */
#define LABELS_MAX 127	/* labels of a name */
#define TEXT_STRIDE                                                                                \
	272 /* room for one name in canonical form: 255 bytes, and a word that is written over */
#define TEXT_MASK 511	     /* for the verifier: any place in a name */
#define TEXT_NAMES 32	     /* names in text; CHAIN_MAX and one to spare, rounded up for masks */
#define TEXT_BYTES (1 << 14) /* more than the last name can reach, rounded up for masks */
#define NAME_SPARE CHAIN_MAX /* place in text of a name that is not on the chain */
#define EVENT_TAIL_MAX (1 << 15) /* addresses and names of an event, rounded up for masks */
_Static_assert(TEXT_NAMES *TEXT_STRIDE + TEXT_MASK < TEXT_BYTES, "text holds every name");
_Static_assert(sizeof(struct answer_address) * ANSWER_ADDRESSES + CHAIN_MAX * NAME_MAX_BYTES + 8 <=
		       EVENT_TAIL_MAX,
	       "the largest event fits");

/* A name on the CNAME chain; its text is in `text` at its place. */
struct chain_name {
	__u64 hash;	/* of the whole name */
	__u32 position; /* in the message: where it was read */
	__u32 bytes;	/* of the canonical form, root label included */
};

/* A match set of the answer's names, for addresses that the first `names` names or more own. */
struct learned_set {
	__u32 match_set;
	__u32 names;
};

struct question {
	__u64 hash; /* of name, type and class; never 0 */
	__u32 end;  /* position behind it */
	__u16 type;
	__u16 class;
};

/* What is known of a response that is well-formed. */
struct response {
	struct question question;
	__u64 told_by;	  /* hash of the name and type asked: where what was told of it is */
	__u64 expires_at; /* ticks */
	__u64 lifetime;	  /* ticks */
};

/* The walk from the root of the control groups to that of a process. */
struct cgroup_walk {
	__u64 cgroup;	/* of the process: the kernel's pointer */
	__u64 root;	/* id of the group that paths begin at */
	__s32 level;	/* of the group of the process; 0: the root of all */
	__u32 below;	/* the group that paths begin at was passed */
	__u32 node;	/* of the group above; 0: no workload names a group below it */
	__u32 slices;	/* all groups above are slices: the next one may be a unit */
	__u32 too_many; /* more parts than there is room for */
	__u32 paths;	/* parts that were found */
	__u32 units;	/* the same */
	__u32 path[CGROUP_PARTS];
	__u32 unit[CGROUP_PARTS];
	struct cgroup_known found;
	struct cgroup_key key; /* of the group that is looked at */
};

/* Who asks, as the buckets hold it. */
struct asker {
	__u64 hash;
	__u64 tag;	  /* as in the state: of client and asker */
	__u32 buckets[3]; /* near, and two far ones */
};

/* The search for a place. One that is being written is not looked at. */
struct search {
	struct asker asker;
	__u64 question;
	__u64 oldest_waits; /* half a state: what was asked before has expired */
	__u64 oldest[2];    /* in each far bucket, of what is free, answered or expired */
	__u32 places[2];    /* of the oldest */
	__u32 room[2];	    /* how many are */
	__u64 most;	    /* questions of one client, and of these the oldest */
	__u64 state;	    /* of the place that is to be taken */
	__u32 place;
	__u32 found; /* the question is there already */
};

/* A question that was found, and its state then. */
struct asked {
	__u32 bucket;
	__u32 slot;
	__u64 state;
};

/* An address and page of mappings, where it may be, and where it was found. */
struct cell_search {
	__u64 words[2]; /* of the address */
	enum mapping_limit page;
	__u32 home;
	__u32 other;  /* any cell of the other group */
	__u32 at;     /* the cell */
	__u32 owner;  /* of it */
	__u32 place;  /* of it, among the places of the address */
	__u64 weight; /* of it, where it is to be taken */
};

/* The walk over the parameters of a service binding, and over the addresses of one of them. */
struct service {
	__u32 at;  /* of the next parameter, or address */
	__u32 end; /* behind the last parameter */
	__u32 ttl;
	__u32 least;	 /* the next key must be so much or more: keys ascend */
	__u32 hint_size; /* bytes of one address */
	__u32 fault;
};

enum scratch_limit {
	SCRATCH_LEVELS = 4 /* programs that may interrupt one another on one CPU */
};

/*
 * What every run needs comes first, 64 bytes after 64 bytes as it is needed together, and the long
 * arrays behind, of which most runs touch the beginning: the fewer lines and pages, the less comes
 * from memory. An instruction reaches the first 32 KiB alone.
 */
struct scratch {
	__u32 claimed;
	__u32 index; /* its key, once it was claimed */
	__u32 zero;  /* always 0, which the verifier cannot know */

	/* The message, and the name that was read last. */
	__u32 message_bytes;
	__u32 labels;	 /* of the name */
	__u32 bytes;	 /* of its canonical form, root label included */
	__u32 odd;	 /* it has bytes that no pattern has */
	__u32 end;	 /* position behind it, once a pointer was followed; 0: none was */
	__u32 piece;	 /* where the piece of it begins that is being read */
	__u32 match_set; /* of its longest known suffix, as a cell has it */
	__u32 list;	 /* of general patterns, of that suffix */
	__u32 suffix_at; /* in text: the suffix that is looked up */
	__u32 suffix_bytes;
	__u64 hash; /* of the whole name */

	struct query_key asker;	   /* who asks, or asked what the message answers */
	struct asked asked;	   /* the question that it answers */
	struct search search;	   /* for its place among the questions */
	struct cell_search adding; /* for the cells of an address that is learned */

	__u64 now_ns; /* when the message was looked at */
	struct response response;

	/* What the answer says, so far. */
	__u64 addresses_digest; /* a sum, since their order rotates */
	__u32 chain_names;
	__u32 set_count;
	__u32 sets_over_limit; /* match sets passed over: too many */
	__u32 addresses;
	__u32 min_ttl;
	__u32 special;	  /* addresses passed over: never learned */
	__u32 over_limit; /* addresses passed over: too many */

	/* The walk over every match set of every address. */
	__u32 commit_address;
	__u32 commit_set;

	/* The walk over the records. */
	__u32 position;	      /* of the next record */
	__u32 records;	      /* still to be read */
	__u32 fault;	      /* COUNTER_MALFORMED or COUNTER_CHAIN_TOO_LONG; 0: none */
	__u32 owner_position; /* of the name that owned a record last, or of the chain's end */
	__u32 owner;	      /* its place on the chain, from 1; 0: not on it */
	__u32 skipped;	      /* records of owners that are not on the chain, yet */
	__u32 grown;	      /* the chain grew after a record was skipped: walk once more */
	__u32 addresses_limit;
	__u32 generations; /* to learn for: bits */

	struct chain_name chain[CHAIN_MAX];
	__u8 label_at[LABELS_MAX + 1];	  /* where the label begins in the canonical form */
	__u64 label_hash[LABELS_MAX + 1]; /* then hashes of the suffix that begins with the label */
	__u8 text[TEXT_BYTES + 8];

	struct service service;
	struct judgement judgement; /* of a question */

	/* The TCP stream that a segment is of, as it will be when the segment has passed. */
	struct stream_key stream_key;
	struct stream stream;
	__u32 stream_offset; /* in the packet: of the bytes that are read */
	__u32 stream_bytes;  /* that are read */
	__u32 stream_done;   /* of these, in whole messages */
	struct stream_piece new_piece;
	__u32 joined;	     /* it is part of another */
	__u64 oldest_ns;     /* of the buffers looked at: when the oldest was used */
	__u32 oldest_buffer; /* its index */
	__u32 lock;	     /* index of the stream's lock */
	__u32 locked;	     /* it is ours */
	enum origin origin;  /* of queries */
	__u32 responses;     /* 0: queries, which cannot be held back: they are refused, or pass */
	__u32 refused;	     /* one of them is to be */

	struct cgroup_walk walk;

	struct learned_set sets[LEARNED_SETS];

	/*
	 * The headers of a usual packet end where the message begins: one copy has all. Words may
	 * be read up to the last byte; for the verifier, the last word of a label there.
	 */
	__u8 headers[HEADERS_ROOM] __attribute__((aligned(64)));
	__u8 message[MESSAGE_MAX + 1 + 72];

	__u64 pad_event;
	struct answer_event event;
	union {
		struct answer_address event_addresses[ANSWER_ADDRESSES];
		__u8 event_tail[EVENT_TAIL_MAX + 512];
	};
} __attribute__((aligned(64)));
_Static_assert(offsetof(struct scratch, asker) == 64, "what every run needs is in lines");
_Static_assert(offsetof(struct scratch, now_ns) % 64 == 0, "what a response needs is in lines");
_Static_assert(offsetof(struct scratch, chain) == offsetof(struct scratch, now_ns) + 128,
	       "what a response needs is in lines");
_Static_assert(offsetof(struct scratch, label_hash) % 64 == 0, "hashes begin at a line");
_Static_assert(offsetof(struct scratch, text) % 64 == 0, "texts begin at a line");

/*
 * Not pinned: its layout is each build's own business. The agent sets max_entries to CPUs ×
 * SCRATCH_LEVELS. As LINES in maps.h.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCRATCH_LEVELS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, enum scratch_limit);
	__type(value, struct scratch);
} scratch SEC(".maps");

/*
 * Claims working memory: a softirq, or a task that preempts, may run a program on the CPU of
 * another that has not ended. NULL if they are too many.
 */
static __always_inline struct scratch *claim_scratch(void)
{
	__u32 first = bpf_get_smp_processor_id() * SCRATCH_LEVELS;

	for (__u32 i = 0; i < SCRATCH_LEVELS; i++) {
		enum scratch_limit key = first + i;
		struct scratch *s = bpf_map_lookup_elem(&scratch, &key);

		if (s && __sync_bool_compare_and_swap(&s->claimed, 0, 1)) {
			s->index = key;
			return s;
		}
	}
	return NULL;
}

static __always_inline void release_scratch(struct scratch *s)
{
	/* A store is enough: whoever claims it next does so on this CPU. */
	*(volatile __u32 *)&s->claimed = 0;
}
