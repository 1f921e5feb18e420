/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Every struct and limit that the programs and the agent share; bpf2go makes the Go types from it.
 */
#pragma once

#include <linux/types.h>
#include <stddef.h>

#define NAME_MAX_BYTES 255    /* a name in wire form, root label included (RFC 1035, 3.1) */
#define MESSAGE_MAX 65535     /* bytes of a DNS message */
#define CHAIN_MAX 16	      /* names on a CNAME chain, the asked one included */
#define ANSWER_ADDRESSES 1000 /* addresses learned from one response */
#define NAME_CELL_TEXT 40     /* bytes of a name in its first cell */
#define NAME_CELL_BYTES 64
#define BUCKET_SLOTS 8	       /* index slots in a cache line */
#define BUCKET_PROBES 10       /* neighbouring buckets that a slot may be in */
#define MAPPING_SLOTS 5	       /* match sets in one page of a mapping */
#define HOST_SLOTS 2	       /* sources in one cell of hosts */
#define SOURCE_LENGTHS 7       /* lengths of the prefixes in hosts, of one family */
#define VERDICT_ENTRIES 6      /* rules in one cell of verdicts */
#define QUESTION_SLOTS 8       /* questions in one bucket */
#define ANSWER_SLOTS 4	       /* answers in one bucket */
#define REMAP_ENTRIES 64       /* entries of one call of remap */
#define CONNECTION_WORKLOADS 8 /* workloads that one connection may be of */
#define CGROUP_CLASSES 7       /* classes of one control group: a workload each, and one besides */
#define CGROUP_LEVELS 64       /* groups above a control group that are looked at */
#define CGROUP_PARTS 8	       /* of a kind, that one control group has */
#define NEAR_RESOLVERS 2       /* that a question is held against before they are looked up */
#define COMMON_SETS 16	       /* match sets that cells refer to by their places, less one */
#define GENERATIONS 2
#define SETS_OF_NAME (GENERAL_OF_NAME + 2) /* besides: of the suffix, of every name */
#define LEARNED_SETS 256		   /* match sets of all names of one response */

/* An address of either family; IPv4 as ::ffff:a.b.c.d. */
struct address {
	__u8 bytes[16];
};
_Static_assert(sizeof(struct address) == 16, "address");

enum endpoint_flag {
	ENDPOINT_RESOLVER = 1, /* DNS server that the node trusts */
	ENDPOINT_SERVER = 2    /* policy server: the node itself may always reach it */
};

/* An address and port with a role; the value is a set of enum endpoint_flag. */
struct endpoint_key {
	struct address address;
	__be16 port;
	__u16 protocol; /* IP protocol number */
};
_Static_assert(sizeof(struct endpoint_key) == 20, "endpoint_key has no hidden padding");

/*
 * Settings that hold as long as the pins do, or until the agent changes them. What every question
 * and every connection needs is in the first 64 bytes, what some answers need in the next.
 */
struct settings {
	__u64 hash_key[4]; /* random, made with the map; never changes, since index and mappings
			      rest on it */
	/* How much fits, where the programs cannot tell by the map. */
	__u32 index_buckets; /* of name_index */
	__u32 far_buckets;   /* of questions, behind the near ones */
	__u32 answer_buckets;
	__u32 mapping_cells;	  /* whole groups of them */
	__u16 near_buckets;	  /* of questions, the first ones */
	__u16 addresses_per_name; /* of one response; ANSWER_ADDRESSES at most */
	__u32 name_cells;	  /* each is a home */
	__u64 query_timeout_ns;
	/* Of the resolvers in endpoints, for UDP, the first: most questions go to one of them. */
	struct endpoint_key resolvers[NEAR_RESOLVERS];
	__u64 min_ttl_ns;
	__u64 max_ttl_ns;
	__u64 ttl_grace_ns;
	__u64 next_match_set; /* the agent's: ids below were given out at some time */
};
_Static_assert(sizeof(struct settings) == 136, "settings has no hidden padding");

/*
 * Which of the two generations of a rule set is in force. One aligned word: switched in one store.
 */
struct state {
	__u32 active;	/* generation that judges */
	__u32 learning; /* generation that is learned for besides; equal to active outside of a
			   switch */
};
_Static_assert(sizeof(struct state) == 8, "state is one word");

enum generation_flag {
	GENERATION_ENFORCES = 1,	   /* a rule set is in force at all */
	GENERATION_SOURCES = 2,		   /* some workload is selected by a prefix in sources */
	GENERATION_INTERFACES = 4,	   /* some workload is selected by interface */
	GENERATION_DESTINATIONS = 8,	   /* some rule has a CIDR destination */
	GENERATION_REFUSES = 16,	   /* some rule refuses questions */
	GENERATION_USERS = 32,		   /* some workload is selected by user */
	GENERATION_CGROUPS = 64,	   /* some workload is selected by control group or unit */
	GENERATION_CGROUPS_ENFORCED = 128, /* by a policy in mode ENFORCE */
	GENERATION_HOSTS = 256		   /* some workload is selected by a prefix in hosts */
};

enum origin { ORIGIN_FORWARDED = 0, ORIGIN_LOCAL = 1 };

enum workload_flag {
	WORKLOAD_ENFORCED = 1, /* some policy in mode ENFORCE selects it */
	WORKLOAD_AUDITED = 2,  /* some policy in mode AUDIT selects it */
	WORKLOAD_ANYWHERE = 4  /* it has rules without a destination */
};

/* A set of policies that select the same connections. */
struct workload {
	__u32 id;
	enum workload_flag flags;
};
_Static_assert(sizeof(struct workload) == 8, "workload has no hidden padding");

/*
 * What is known of the sources of a family that are in hosts. All begin with the same bits, in the
 * word of the address that tells them apart: the first one, of IPv4 the second. So who is far from
 * all of them is passed over at once.
 */
struct source_family {
	__u64 word; /* as addresses have it; what differs is zero */
	__u8 bits;  /* that are the same */
	/* Bits that count, and one: each length once, the longest first. 0: no more. */
	__u8 lengths[SOURCE_LENGTHS];
};
_Static_assert(sizeof(struct source_family) == 16, "source_family has no hidden padding");

/*
 * What holds for a generation as a whole: what may be passed over, what every name matches, how
 * hosts and verdicts are laid out (see cells.h), and the workload of connections of each origin
 * that have no class; without flags: look it up.
 */
struct generation_flags {
	enum generation_flag flags;
	__u32 every;	   /* match set of every name; 0: none */
	__u16 list;	   /* first general pattern for names below which none is known; 0: none */
	__u8 host_bits;	   /* so many cells of hosts are homes, as a power of two */
	__u8 verdict_bits; /* the same of verdicts */
	__u32 seed;	   /* secret: of the hashes that homes are found by */
	struct workload others[ORIGIN_LOCAL + 1];
	struct source_family ipv4; /* in IPv4-mapped form: lengths are 97 and more */
	struct source_family ipv6;
};
_Static_assert(sizeof(struct generation_flags) == 64, "generation_flags is a cache line");

/*
 * Match sets that many names have, each in its place, from 1 on: names refer to them by the place,
 * and all have another one when that changes.
 */
struct common_match_sets {
	__u32 sets[COMMON_SETS];
};
_Static_assert(sizeof(struct common_match_sets) == 64, "common_match_sets is a cache line");

/*
 * A pattern's name, in one or more cells of name_cells. Bytes are the canonical wire form: length
 * octets and lower-case labels, without the root label. A name longer than NAME_CELL_TEXT goes on
 * in the next cells, all 64 bytes of each. Where its first cell is, name_index alone says; it is at
 * home, where the name's hash leads to, if it can be. A match set of 0 is empty; above the bits of
 * a number is the place of a common one.
 */
struct name_cell {
	__u32 exact[GENERATIONS]; /* match set of the name itself */
	__u32 below[GENERATIONS]; /* match set of every name below it */
	__u16 list[GENERATIONS];  /* first general pattern for names below it; 0: none */
	__u8 length;		  /* bytes of the name */
	__u8 pad[3];
	__u8 text[NAME_CELL_TEXT];
};
_Static_assert(sizeof(struct name_cell) == NAME_CELL_BYTES, "name_cell is a cache line");

enum general_limit {
	GENERAL_OF_NAME = 64,	/* patterns that one name is held against */
	GENERAL_PATTERNS = 4096 /* in one generation */
};

enum general_form {
	GENERAL_LABELS = 1,	 /* www.*.com: the head, one or more labels, the base */
	GENERAL_WITHIN = 2,	 /* s3-*.amazonaws.com: the head, one label, the base */
	GENERAL_BELOW_WITHIN = 3 /* *.s3-*.amazonaws.com: one or more labels, then the same */
} __attribute__((packed));
_Static_assert(sizeof(enum general_form) == 1, "general_form is a byte");

/*
 * A pattern that no lookup of a name finds. Names below its base are held against it one after the
 * other of a list, which goes on with the patterns of the next base above. A list names its first
 * pattern by its place in the generation, from 1.
 */
struct general_pattern {
	__u32 match_set;
	__u16 next; /* place of the next pattern of the list; 0: none */
	enum general_form form;
	__u8 base_labels;  /* labels behind that of the star: those of the suffix that has the list
			    */
	__u8 head_labels;  /* labels before it */
	__u8 head_bytes;   /* of these labels in canonical form */
	__u8 prefix_bytes; /* before the star in its label */
	__u8 suffix_bytes; /* behind it */
	/* head, prefix, suffix, and room for a word that is read beyond */
	__u8 text[NAME_MAX_BYTES + 9];
};
_Static_assert(sizeof(struct general_pattern) == 276, "general_pattern has no hidden padding");

/*
 * 64 bits a slot: 40 bits of the suffix hash (its high bits), 24 bits of cell index + 1; 0 is free.
 */
struct name_bucket {
	__u64 slots[BUCKET_SLOTS];
};
_Static_assert(sizeof(struct name_bucket) == 64, "name_bucket is a cache line");

/* Key of sources and destinations: the longest matching prefix wins. */
struct prefix_key {
	__u32 prefixlen;  /* 32 + bits of the address that count (an IPv4 prefix: + 96) */
	__u32 generation; /* whole: always counts */
	struct address address;
};
_Static_assert(sizeof(struct prefix_key) == 24, "prefix_key has no hidden padding");

/* Class of a source, and the workload of connections that are of no other class; without flags:
 * look it up. */
struct source_class {
	__u32 class;
	struct workload workload;
};
_Static_assert(sizeof(struct source_class) == 12, "source_class has no hidden padding");

/*
 * What stands in a cell of hosts or verdicts. A key has a home, the cell that its hash leads to.
 * The keys of one home are a chain of cells: the first is the home itself, and the others are in
 * cells that are nobody's home, close by if there are any. So who asks for what is not there finds
 * it out by the home alone, unless others have that home and more than fit in.
 */
enum cell_role {
	CELL_FREE = 0,
	CELL_HOME = 1, /* the first of a chain */
	CELL_AWAY = 2  /* a later one */
} __attribute__((packed));
_Static_assert(sizeof(enum cell_role) == 1, "cell_role is a byte");

enum host_limit {
	HOST_CELLS = 1 << 15, /* of each generation */
	HOST_CHAIN = 16	      /* cells of one chain */
};

/*
 * Sources, each a whole address or a shorter prefix, found by prefix and length. What has more
 * lengths than the programs look for, or finds no room, is in the trie: it is shorter than all of
 * its family that is here.
 */
struct host_cell {
	__u32 next; /* cell that the chain goes on in; 0: none */
	enum cell_role role;
	__u8 pad;
	__u8 lengths[HOST_SLOTS]; /* bits that count, and one; 0: the slot is free */
	struct address addresses[HOST_SLOTS];
	struct source_class classes[HOST_SLOTS];
};
_Static_assert(sizeof(struct host_cell) == 64, "host_cell is a cache line");

/* Class of an interface in each generation; 0: no workload selects by it. */
struct interface_classes {
	__u32 class[GENERATIONS];
};

/* Who opens a connection: every class that the connection has, in one key. */
struct workload_key {
	__u32 generation;
	enum origin origin;
	__u32 source;	 /* class of the source address, or user id + 1; 0: none */
	__u32 interface; /* class of the incoming interface, or of the control group; 0: none */
};
_Static_assert(sizeof(struct workload_key) == 16, "workload_key has no hidden padding");

enum cgroup_limit {
	CGROUP_UNIT = 0,   /* in place of the group above: a unit's name, wherever it is */
	CGROUP_NAME = 256, /* bytes of a name with its end: NAME_MAX + 1 */
};

/* A control group that workloads name, or one on the way to it. The root's name is empty. */
struct cgroup_key {
	__u32 generation;
	enum cgroup_limit parent; /* node of the group above */
	__u8 name[CGROUP_NAME];	  /* as the kernel has it, then zeros */
};
_Static_assert(sizeof(struct cgroup_key) == 264, "cgroup_key has no hidden padding");

struct cgroup_node {
	__u32 node;  /* by which groups below name their parent; 0: none is named */
	__u32 class; /* of whatever is in the group or below; 0: no workload is selected by it alone
		      */
	__u32 part;  /* of what workloads select by path and unit at once; 0: of none */
};
_Static_assert(sizeof(struct cgroup_node) == 12, "cgroup_node has no hidden padding");

/* What is in the group of a path and in that of a unit. The value is its class. */
struct cgroup_pair {
	__u32 generation;
	__u32 path; /* parts */
	__u32 unit;
};
_Static_assert(sizeof(struct cgroup_pair) == 12, "cgroup_pair has no hidden padding");

/* The control groups that a generation names. */
struct cgroup_table {
	__u64 epoch; /* another whenever they change */
	__u64 root;  /* id of the group that paths begin at: that of the agent's namespace */
};
_Static_assert(sizeof(struct cgroup_table) == 16, "cgroup_table has no hidden padding");

/* A control group, for as long as the tables are the same. An id is never used again. */
struct cgroup_known_key {
	__u64 epoch;
	__u64 cgroup;
};
_Static_assert(sizeof(struct cgroup_known_key) == 16, "cgroup_known_key has no hidden padding");

struct cgroup_classes {
	__u32 count; /* above CGROUP_CLASSES: there are too many */
	__u32 class[CGROUP_CLASSES];
};
_Static_assert(sizeof(struct cgroup_classes) == 32, "cgroup_classes has no hidden padding");

/* What a walk found out. */
struct cgroup_known {
	struct cgroup_classes classes;
	__u64 seal; /* of key and classes: what is read while it changes does not fit */
};
_Static_assert(sizeof(struct cgroup_known) == 40, "cgroup_known has no hidden padding");

/* What a destination may match: kind << COMPONENT_SHIFT | id. */
enum component {
	COMPONENT_ANY = 0,	 /* kind: rules without a destination; id 0 */
	COMPONENT_CIDR = 1,	 /* kind; id: class of the destination address */
	COMPONENT_MATCH_SET = 2, /* kind; id: match set of a live mapping */
	/* Of questions, ports aside; an entry that denies refuses the question. */
	COMPONENT_ANY_QUESTION = 3, /* kind: as COMPONENT_ANY */
	COMPONENT_QUESTION = 4,	    /* kind; id: match set of the name asked */
	COMPONENT_SHIFT = 28	    /* the kind is above the id */
};

/* One byte: the attribute makes an enum as small as its values. */
enum verdict_flag {
	VERDICT_AUDIT = 1, /* the rule is of a policy in mode AUDIT */
	VERDICT_DENY = 2,  /* the rule's action is DENY */
	VERDICT_MORE = 4   /* of a cell: the next one of the chain is of the same key */
} __attribute__((packed));
_Static_assert(sizeof(enum verdict_flag) == 1, "verdict_flag is a byte");

enum verdict_limit {
	VERDICT_CELLS = 1 << 17, /* of each generation */
	VERDICT_CHAIN = 128,	 /* cells of one chain */

	/*
	 * A rule, or a range of its ports, is 64 bits: in the low ones the first port and the last,
	 * inclusive, in host byte order; the IP protocol number, 0 for any, where ports do not
	 * count and the last is 65535 (ICMPv6 is 1); enum verdict_flag; the position among all
	 * rules of the node, in order of evaluation. 0: none.
	 */
	VERDICT_LAST_PORT_SHIFT = 16,
	VERDICT_PROTOCOL_SHIFT = 32,
	VERDICT_FLAGS_SHIFT = 40,
	VERDICT_POSITION_SHIFT = 42
};

/*
 * The rules of a workload that one component of a destination can match, in order of position. The
 * first that fits protocol and port is the component's answer. Those that find no room here go on
 * in the next cell, under the same key.
 */
struct verdict {
	__u32 next; /* cell that the chain goes on in; 0: none */
	enum cell_role role;
	enum verdict_flag flags; /* VERDICT_MORE alone */
	__u8 pad[2];
	__u32 workload;
	enum component component;
	__u64 entries[VERDICT_ENTRIES];
};
_Static_assert(sizeof(struct verdict) == 64, "verdict is a cache line");

enum mapping_limit {
	MAPPING_PAGES = 16,	     /* pages of one address */
	MAPPING_TICK_SHIFT = 24,     /* a tick is so many times doubled ns */
	MAPPING_MATCH_SET_BITS = 28, /* of a slot; the expiry is above them */
	MAPPING_FORGOTTEN = 1,	     /* in place of an expiry: a match set that was taken away */
	MAPPING_GROUP = 8,	     /* cells that stand together */

	/* In the low bits of a cell's owner. */
	MAPPING_FREE = 0,
	MAPPING_OWNED = 1,
	MAPPING_CHANGING = 2, /* from one address to another: nobody else's business */
	MAPPING_STATE = 3,    /* all of these bits */

	/* Above them. */
	MAPPING_PAGE_SHIFT = 2,
	MAPPING_VERSION_SHIFT = 6,

	/* In the low bits of a cell's used. */
	MAPPING_NEAR = 1,    /* one of those in the cell's own group */
	MAPPING_FAR = 0x10,  /* one of those in another one */
	MAPPING_AWAY = 0xff, /* both */
	MAPPING_USED_SHIFT = 8,
	MAPPING_USED_UNIT = 26 /* a unit of it is so many times doubled ns */
};
_Static_assert(COMMON_SETS == 1 << (32 - MAPPING_MATCH_SET_BITS), "a place fits above a match set");

/*
 * An address and the match sets of the names that it belongs to: a page of these, of several if
 * they are many; there is a next one only if this one is full. An address and page has a home, the
 * cell that its hash leads to, and may be in any cell of the home's group, and of another group
 * that its hash leads to. mapping.h says how a cell is changed.
 */
struct mapping {
	struct address address;
	/*
	 * State, page, and a number that is another for each owner of the cell, in order. Changed
	 * by compare-and-swap, and by whoever has made it MAPPING_CHANGING.
	 */
	__u32 owner;
	/*
	 * How many whose home this is are in other cells: of its group, and of another, 4 bits
	 * each; and in 24 bits when the address was last asked for or connected to, about.
	 */
	__u32 used;
	/*
	 * 64 bits a slot, changed by compare-and-swap: 36 bits of expiry in ticks of 2^24 ns of the
	 * boot clock (rounded up), 28 bits of match set. Without an expiry it was never used by
	 * this owner, and none behind it; then it has the owner's number, so that nobody can write
	 * to it who knows the owner before. An expired slot is free too.
	 */
	__u64 slots[MAPPING_SLOTS];
};
_Static_assert(sizeof(struct mapping) == 64, "mapping is a cache line");

/* Who asks a question, and under which id. */
struct query_key {
	struct address client;
	__be16 port;
	__be16 id;
	__u32 protocol; /* IP protocol number */
};
_Static_assert(sizeof(struct query_key) == 24, "query_key has no hidden padding");

/*
 * Questions that wait for an answer, or had one. A slot is taken, renewed and answered by
 * compare-and-swap of its state (see questions.h).
 */
struct question_bucket {
	/*
	 * When it was asked, and a part of by whom; 0: free. In a near bucket the last one is of no
	 * slot, and says when a question spilled from it.
	 */
	__u64 state[QUESTION_SLOTS];
	struct question_slot {
		__u64 asker;	/* hash of a query_key */
		__u64 question; /* hash of name, type and class */
	} slots[QUESTION_SLOTS];
};
_Static_assert(sizeof(struct question_bucket) == 192, "question_bucket is three cache lines");

enum stream_limit {
	STREAM_PIECES = 8,   /* pieces of one stream that came before what is missing */
	STREAM_BUFFERS = 64, /* streams that may wait for the rest of a message */
	STREAM_LOCKS = 256,
	STREAM_AHEAD = 65536, /* bytes that a message may have before its last one, with its length;
				 so far ahead may a segment begin */
	SEGMENT_MOST = 65535  /* bytes of a segment that is added to others */
};

/* One direction of a TCP connection, as packets tell it where they are seen. */
struct stream_key {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
};
_Static_assert(sizeof(struct stream_key) == 36, "stream_key has no hidden padding");

/* Bytes of a stream, from `begin` on and before `end`, counted from its first unread byte. */
struct stream_piece {
	__u32 begin;
	__u32 end;
};

/* How far a stream has been read. */
struct stream {
	__u64 id; /* random: of this connection, and not of the next with the same key */
	__u64 held_back_since_ns; /* boot clock: segments have been held back; 0: none was */
	__u32 first;		  /* sequence number of the first byte of all */
	__u32 next;   /* sequence number of the first byte of the first message not read yet */
	__u32 filled; /* bytes from there on that are in the buffer */
	__u32 buffer; /* that has them, counted from 1; 0: none has */
	__u32 lost;   /* 1: bytes went by that will not come again */
	__u32 piece_count;
	struct stream_piece pieces[STREAM_PIECES]; /* behind a gap; in no order */
};
_Static_assert(sizeof(struct stream) == 40 + 8 * STREAM_PIECES, "stream has no hidden padding");

/* What is there of a message whose last byte has not come yet, and of what is behind a gap. */
struct stream_buffer {
	__u64 owner; /* id of the stream; 0: free */
	__u64 used_at_ns;
	__u32 claimed;
	__u32 pad;
	__u8 data[STREAM_AHEAD + SEGMENT_MOST + 1];
};

enum answer_limit {
	ANSWER_QUESTION_BITS = 24, /* of content */
	ANSWER_UNTOLD_BITS = 28	   /* of times */
};

/* What was last told to the agent of one question. */
struct answer {
	/*
	 * A digest of names and addresses, and in the low bits some of the question's hash (of name
	 * and type), which chooses the bucket too. 0: free; 1: being written.
	 */
	__u64 content;
	/*
	 * Ticks: the expiry, true at every moment, since it is prolonged with the mapping; in the
	 * low bits by how much it is later than the agent was told.
	 */
	__u64 times;
};

/* A question's answer is in any slot of its bucket; a new one takes that which expires first. */
struct answer_bucket {
	struct answer slots[ANSWER_SLOTS];
};
_Static_assert(sizeof(struct answer_bucket) == 64, "answer_bucket is a cache line");

enum event_type { EVENT_ANSWER = 1, EVENT_FLOW = 2 };

/*
 * In the ring buffer: a response that was learned. Behind the header come `addresses` times struct
 * answer_address, then `names` names in canonical wire form with the root label, the asked one
 * first, in order of the chain: `names_bytes` in all. Padded to 8 bytes.
 */
struct answer_event {
	enum event_type type;
	__u32 learning;	     /* generations that were learned for: bit 0, bit 1 */
	__u64 learned_at_ns; /* boot clock */
	__u64 expires_at;    /* ticks */
	struct address client;
	__u16 addresses;
	__u16 names;
	__u16 names_bytes;
	__u16 question_type;
};
_Static_assert(sizeof(struct answer_event) == 48, "answer_event has no hidden padding");

struct answer_address {
	struct address address;
	__u32 names; /* the first so many names of the chain own the address */
};
_Static_assert(sizeof(struct answer_address) == 20, "answer_address has no hidden padding");

enum flow_flag {
	FLOW_DENIED = 1,	/* policies in mode ENFORCE deny it */
	FLOW_AUDITED = 2,	/* policies in mode AUDIT would */
	FLOW_ENFORCED_RULE = 4, /* a rule did: `enforced` counts */
	FLOW_AUDITED_RULE = 8,	/* a rule would: `audited` counts */
	FLOW_LOCAL = 16,	/* opened by the node itself, not forwarded */
	FLOW_UID = 32		/* by a process: `uid` counts, which alone is ambiguous */
};

enum flow_reason {
	FLOW_JUDGED = 0,	    /* by the rules */
	FLOW_UNREADABLE = 1,	    /* headers that cannot be read */
	FLOW_UNKNOWN_INTERFACE = 2, /* policies select by interface and this one is not known yet */
	FLOW_UNKNOWN_CGROUP = 3,    /* policies select by control group and it cannot be told */
	FLOW_TOO_MANY_CGROUPS = 4   /* policies select too many groups around this one */
};

/*
 * In the ring buffer: a connection that was denied, or would have been. Fields that could not be
 * read are 0. Behind it comes a name in canonical wire form with the root label, where the
 * connection is a question for one. Padded to 8 bytes.
 */
struct flow_event {
	enum event_type type;
	enum flow_flag flags;
	__u64 rule_set;	  /* that positions are of: see map rule_sets */
	__u64 seen_at_ns; /* boot clock */
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 uid;
	__u32 ifindex;	/* of the packet's device; 0: none yet */
	__u32 enforced; /* position of the rule that denies it */
	__u32 audited;	/* position of the rule that would */
	enum flow_reason reason;
	__u8 protocol; /* of the last header that was read */
	__u8 pad[1];
	__u16 name_bytes;
	__u32 pad_end;
};
_Static_assert(sizeof(struct flow_event) == 88, "flow_event has no hidden padding");

/* A CPU's share of flow events: one each interval_ns, and burst_ns worth of them at once. */
struct flow_limit {
	__u64 interval_ns;
	__u64 burst_ns;
};
_Static_assert(sizeof(struct flow_limit) == 16, "flow_limit has no hidden padding");

enum remap_action {
	REMAP_ADD = 0,	  /* the match set, until expires_at; never shortens */
	REMAP_FORGET = 1, /* the match set, unless it expires after expires_at */
	REMAP_COLLECT =
		2 /* the page that match_set names, unless a slot expires after expires_at */
};

struct remap_entry {
	struct address address;
	__u32 match_set;
	enum remap_action action;
	__u64 expires_at; /* ticks */
};
_Static_assert(sizeof(struct remap_entry) == 32, "remap_entry has no hidden padding");

/* The context of remap: what the agent changes of addresses. Always given whole. */
struct remap_request {
	__u32 count;  /* of entries that count */
	__u32 failed; /* out: entries that found no place, or nothing to forget or collect */
	struct remap_entry entries[REMAP_ENTRIES];
};
_Static_assert(sizeof(struct remap_request) == 8 + 32 * REMAP_ENTRIES, "remap_request");

/* Indices of counters: the result of each DNS response, query and verdict, and every loss. */
enum counter {
	COUNTER_LEARNED,	/* response: learned, some pattern matches */
	COUNTER_UNMATCHED,	/* response: well-formed, no pattern of any policy */
	COUNTER_NO_ADDRESS,	/* response: well-formed, no address in it */
	COUNTER_MALFORMED,	/* response */
	COUNTER_TRUNCATED,	/* response: TC=1 */
	COUNTER_NO_QUERY,	/* response: no outstanding query under client, port and id */
	COUNTER_WRONG_QUESTION, /* response: the outstanding query asked something else */
	COUNTER_UNTRUSTED,	/* response: of a resolver that is not trusted */
	COUNTER_LATE,		/* response: the query was asked too long ago */
	COUNTER_DUPLICATE,	/* response: the query was answered already */
	COUNTER_RCODE,		/* response: RCODE is not 0 */
	COUNTER_CLASS,		/* response: class is not IN */
	COUNTER_OPCODE,		/* response: opcode is not 0 */
	COUNTER_QUESTION_COUNT, /* response: not exactly one question */
	COUNTER_NOT_RESPONSE,	/* response: QR=0 */
	COUNTER_CHAIN_TOO_LONG, /* response: more than CHAIN_MAX names */
	COUNTER_BUSY,		/* response or query: no scratch free */
	COUNTER_UNFOLLOWED, /* segment of responses over TCP, of a stream whose beginning was not
			       seen, or that was lost */
	COUNTER_SPECIAL_ADDRESS,      /* address that is never learned */
	COUNTER_ADDRESSES_OVER_LIMIT, /* addresses beyond the limit of a response */
	COUNTER_MAPPING_CREATED,      /* cells of mappings that were given to an address */
	COUNTER_MAPPING_EVICTED, /* live match sets that gave way to newer ones of the same address
				  */
	COUNTER_MAPPING_FULL,	 /* addresses that found no place */
	COUNTER_SETS_OVER_LIMIT, /* match sets of one response beyond LEARNED_SETS */
	COUNTER_EVENT_LOST,	 /* events that found no place in the ring buffer */
	COUNTER_QUERY,		 /* queries remembered */
	COUNTER_QUERY_MALFORMED,
	COUNTER_QUERY_UNFOLLOWED,  /* as COUNTER_UNFOLLOWED, of queries */
	COUNTER_SEGMENT_HELD_BACK, /* segment of responses, dropped so that TCP sends it again */
	COUNTER_QUERY_REFUSED,	   /* the rules refuse the question: rejected on the node */
	COUNTER_QUERY_AUDIT,	   /* asked, but an AUDIT policy would have refused it */
	COUNTER_VERDICT_ALLOW,
	COUNTER_VERDICT_DENY,
	COUNTER_VERDICT_AUDIT,	   /* passed, but an AUDIT policy would have denied it */
	COUNTER_VERDICT_MALFORMED, /* denied: the packet's headers cannot be read */
	COUNTER_UNKNOWN_INTERFACE, /* denied: policies select by interface and this one is not known
				      yet */
	COUNTER_UNKNOWN_CGROUP,	   /* policies select by control group and it cannot be told */
	COUNTER_TOO_MANY_CGROUPS,  /* policies select too many groups around one */
	COUNTER_FLOW_EVENT,	   /* denied or audited, questions too: told to the agent */
	COUNTER_FLOW_SUPPRESSED,   /* denied or audited: not told, too many at a time */
	COUNTER_FLOW_LOST,     /* denied or audited: not told, the ring buffer is left to answers */
	COUNTER_QUERY_EVICTED, /* questions without an answer that gave way to newer ones */
	COUNTER_MAPPING_COLLECTED, /* cells of mappings given up, since all in them had expired */
	COUNTER_MAPPING_DROPPED,   /* cells of mappings whose address gave way to another */
	COUNTER_MAX
};
