/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * DNS over TCP (RFC 7766): messages out of segments, whatever these begin and end with and in
 * whatever order they come. A message is read when the segment passes with which all of it is
 * there, so before its last byte is delivered: what is there of one that is not whole is kept in a
 * buffer.
 *
 * A stream is followed from its SYN on. One whose beginning was not seen is never read: where its
 * messages begin would be a guess, and one that a client could lead.
 */
#pragma once

#include "count.h"
#include "mapping.h"
#include "packet.h"
#include "scratch.h"

#define LENGTH_BYTES 2 /* before each message (RFC 1035, 4.2.2) */
#define TCP_HEADER 20
#define TCP_SYN 0x02
#define LOCK_TRIES 4096
/* Segments are held back no longer: what is missing went by where it was not seen. */
#define HOLD_NS (2 * 1000000000ULL)

/* The payload of a TCP packet. */
struct segment {
	__u32 sequence; /* of its first byte */
	__u32 offset;	/* of its first byte in the packet */
	__u32 bytes;
	bool opens; /* the stream: what comes first in it */
};

/* What becomes of a segment. */
enum fate { FATE_PASS, FATE_HOLD_BACK, FATE_REFUSE };

/*
 * The walk over the messages that are whole. Its numbers are in scratch: on the stack the verifier
 * would follow them from message to message.
 */
struct reading {
	struct __sk_buff *skb;
	struct scratch *s;
	const struct packet *packet;
	struct stream_buffer *buffer; /* that has the bytes; NULL: the packet has them */
};

typedef long (*read_one)(__u32 index, struct reading *reading);

static __always_inline bool read_segment(const struct __sk_buff *skb, const struct packet *packet,
					 struct segment *segment)
{
	__be32 words[4];
	const __u8 *header = (const __u8 *)words;
	__u32 header_bytes;

	if (!load_bytes(skb, packet->offset, words, sizeof(words)))
		return false;
	header_bytes = (header[12] >> 4) * 4;
	segment->offset = packet->offset + header_bytes;
	if (header_bytes < TCP_HEADER || segment->offset > skb->len)
		return false;
	segment->bytes = skb->len - segment->offset;
	segment->opens = header[13] & TCP_SYN;
	segment->sequence =
		bpf_ntohl(words[1]) + segment->opens; /* SYN comes before the first byte */
	return true;
}

static __always_inline void name_stream(struct stream_key *key, const struct packet *packet)
{
	key->source = packet->source;
	key->destination = packet->destination;
	key->source_port = packet->source_port;
	key->destination_port = packet->destination_port;
}

/* Takes the buffer of the stream, for as long as the program runs. NULL: another stream has it. */
static __always_inline struct stream_buffer *claim_own(const struct stream *stream)
{
	__u32 index = stream->buffer - 1;
	struct stream_buffer *buffer = bpf_map_lookup_elem(&stream_buffers, &index);

	if (!buffer || !__sync_bool_compare_and_swap(&buffer->claimed, 0, 1))
		return NULL;
	if (buffer->owner == stream->id)
		return buffer;
	__sync_lock_test_and_set(&buffer->claimed, 0);
	return NULL;
}

static long compare_age(__u32 index, struct reading *reading)
{
	const struct stream_buffer *buffer = bpf_map_lookup_elem(&stream_buffers, &index);
	__u64 used_at_ns;

	if (!buffer || buffer->claimed)
		return 0;
	used_at_ns = buffer->owner ? buffer->used_at_ns : 0;
	if (used_at_ns < reading->s->oldest_ns) {
		reading->s->oldest_ns = used_at_ns;
		reading->s->oldest_buffer = index;
	}
	return used_at_ns == 0;
}

/* Takes a buffer that is free, else the one that was not used for longest. NULL: all are in use. */
static __always_inline struct stream_buffer *claim_another(struct reading *reading,
							   struct stream *stream)
{
	struct stream_buffer *buffer;
	__u32 index;

	reading->s->oldest_ns = ~0ULL;
	bpf_loop(STREAM_BUFFERS, compare_age, reading, 0);
	if (reading->s->oldest_ns == ~0ULL)
		return NULL;
	index = reading->s->oldest_buffer;
	buffer = bpf_map_lookup_elem(&stream_buffers, &index);
	if (!buffer || !__sync_bool_compare_and_swap(&buffer->claimed, 0, 1))
		return NULL;
	buffer->owner = stream->id;
	stream->buffer = index + 1;
	return buffer;
}

/* Gives the buffer back, and up if the stream has nothing in it any more. */
static __always_inline void release_buffer(struct stream *stream, struct stream_buffer *buffer)
{
	if (stream->filled || stream->piece_count) {
		buffer->used_at_ns = bpf_ktime_get_boot_ns();
	} else {
		buffer->owner = 0;
		stream->buffer = 0;
	}
	__sync_lock_test_and_set(&buffer->claimed, 0);
}

/*
 * Begins to follow a stream whose first byte has the sequence number `first`. A SYN that came
 * before changes nothing. Verified once, by itself.
 */
__attribute__((noinline)) int open_stream(const struct packet *packet, __u32 first)
{
	struct stream stream = {.first = first, .next = first};
	const struct stream *known;
	struct stream_buffer *buffer;
	struct stream_key key;

	if (!packet)
		return 0;
	name_stream(&key, packet);
	known = bpf_map_lookup_elem(&streams, &key);
	if (known && known->first == first)
		return 0;
	buffer = known ? claim_own(known) : NULL;
	if (buffer) {
		buffer->owner = 0;
		__sync_lock_test_and_set(&buffer->claimed, 0);
	}
	stream.id = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
	bpf_map_update_elem(&streams, &key, &stream, BPF_ANY);
	return 0;
}

static __always_inline bool fetch(const struct reading *reading, __u32 at, void *to, __u32 bytes)
{
	if (!reading->buffer)
		return load_bytes(reading->skb, reading->s->stream_offset + at, to, bytes);
	if (at > 2 * STREAM_AHEAD)
		return false;
	return bpf_probe_read_kernel(to, bytes, reading->buffer->data + at) == 0;
}

/* Brings the next message into scratch, or its first `limit` bytes. False: it is not whole. */
static __always_inline bool next_message(struct reading *reading, __u32 limit)
{
	__u32 left = reading->s->stream_bytes - reading->s->stream_done, bytes;
	struct scratch *s = reading->s;
	__be16 prefix;

	if (left < LENGTH_BYTES ||
	    !fetch(reading, reading->s->stream_done, &prefix, sizeof(prefix)))
		return false;
	bytes = bpf_ntohs(prefix);
	if (left - LENGTH_BYTES < bytes)
		return false;
	s->message_bytes = bytes < limit ? bytes : limit;
	/* As in load_message; of an empty message one byte is read, and does not count. */
	if (!fetch(reading, reading->s->stream_done + LENGTH_BYTES, s->message,
		   ((*(volatile __u32 *)&s->message_bytes - 1) & MESSAGE_MAX) + 1) &&
	    bytes)
		return false;
	reading->s->stream_done += LENGTH_BYTES + bytes;
	return true;
}

/* Reads every message that is whole. */
static __always_inline void read_messages(struct reading *reading, read_one read_one)
{
	bpf_loop(reading->s->stream_bytes / LENGTH_BYTES + 1, read_one, reading, 0);
}

/*
 * A number of bytes, 1 to STREAM_AHEAD, as Linux 6.1 takes it: it does not learn from a comparison
 * that a number is not 0, and the compiler keeps the mask only for a fresh load.
 */
static __always_inline __u32 counted(struct scratch *s, __u32 bytes)
{
	s->stream_bytes = bytes;
	return ((*(volatile __u32 *)&s->stream_bytes - 1) & (STREAM_AHEAD - 1)) + 1;
}

/* Makes the new piece part of one that it touches. */
static long extend_piece(__u32 index, struct reading *reading)
{
	struct scratch *s = reading->s;
	struct stream_piece *piece = &s->stream.pieces[index & (STREAM_PIECES - 1)];

	if (s->new_piece.begin > piece->end || s->new_piece.end < piece->begin)
		return 0;
	if (s->new_piece.begin < piece->begin)
		piece->begin = s->new_piece.begin;
	if (s->new_piece.end > piece->end)
		piece->end = s->new_piece.end;
	s->joined = 1;
	return 1;
}

/* Adds bytes to the pieces behind a gap. False: there are too many. */
static __always_inline bool add_piece(struct reading *reading, __u32 begin, __u32 end)
{
	struct scratch *s = reading->s;
	__u32 count = s->stream.piece_count;

	s->new_piece.begin = begin;
	s->new_piece.end = end;
	s->joined = 0;
	bpf_loop(count, extend_piece, reading, 0);
	if (s->joined)
		return true;
	if (count >= STREAM_PIECES)
		return false;
	/* A fresh load, as in counted. */
	s->stream.pieces[*(volatile __u32 *)&s->stream.piece_count & (STREAM_PIECES - 1)] =
		s->new_piece;
	s->stream.piece_count = count + 1;
	return true;
}

/* Takes out a piece if no gap is before it any more. */
static long join_piece(__u32 index, struct reading *reading)
{
	struct stream *stream = &reading->s->stream;
	__u32 last = stream->piece_count - 1;
	struct stream_piece *piece = &stream->pieces[index & (STREAM_PIECES - 1)];

	if (stream->piece_count == 0)
		return 1;
	if ((index & (STREAM_PIECES - 1)) > last || piece->begin > stream->filled)
		return 0;
	if (piece->end > stream->filled)
		stream->filled = piece->end;
	*piece = stream->pieces[last & (STREAM_PIECES - 1)];
	stream->piece_count = last;
	return 0;
}

/* Moves a piece on by what was read, and notes how far the pieces reach. */
static long move_piece(__u32 index, struct reading *reading)
{
	struct scratch *s = reading->s;
	struct stream_piece *piece = &s->stream.pieces[index & (STREAM_PIECES - 1)];

	piece->begin -= s->stream_done;
	piece->end -= s->stream_done;
	if (piece->end > s->stream_bytes)
		s->stream_bytes = piece->end;
	return 0;
}

/* Moves on by what was read: what is left in the buffer goes to its beginning. */
static __always_inline bool close_ranks(struct reading *reading, struct stream *stream,
					struct stream_buffer *buffer)
{
	struct scratch *s = reading->s;
	__u32 bytes;

	stream->next += s->stream_done;
	stream->filled -= s->stream_done;
	s->stream_bytes = stream->filled;
	bpf_loop(stream->piece_count, move_piece, reading, 0);
	if (s->stream_bytes == 0)
		return true;
	/* As in load_message: the masks change nothing. */
	bytes = *(volatile __u32 *)&s->stream_bytes & (sizeof(buffer->data) - 1);
	return bpf_probe_read_kernel(buffer->data, bytes,
				     buffer->data +
					     (s->stream_done & (sizeof(buffer->data) - 1))) == 0;
}

/*
 * Reads messages from the packet alone, when nothing of the stream is waiting; what is left over
 * goes into a buffer.
 */
static __always_inline enum fate read_packet(struct reading *reading, struct stream *stream,
					     const struct segment *segment, read_one read_one)
{
	struct scratch *s = reading->s;
	struct stream_buffer *buffer;
	__u32 left;

	s->stream_offset = segment->offset;
	s->stream_bytes = segment->bytes;
	read_messages(reading, read_one);
	if (s->refused)
		return FATE_REFUSE;
	stream->next += s->stream_done;
	left = s->stream_bytes - s->stream_done;
	if (left == 0)
		return FATE_PASS;
	buffer = claim_another(reading, stream);
	if (!buffer)
		return FATE_HOLD_BACK;
	if (left <= STREAM_AHEAD && load_bytes(reading->skb, s->stream_offset + s->stream_done,
					       buffer->data, counted(s, left)))
		stream->filled = left;
	release_buffer(stream, buffer);
	return stream->filled ? FATE_PASS : FATE_HOLD_BACK;
}

/* Adds a segment to what is in the buffer. False: it has no place there. */
static __always_inline bool add_segment(struct reading *reading, struct stream *stream,
					struct stream_buffer *buffer, const struct segment *segment,
					__u32 ahead)
{
	__u32 bytes = segment->bytes;

	if (ahead > STREAM_AHEAD || bytes == 0 || bytes > SEGMENT_MOST)
		return false;
	if (!load_bytes(reading->skb, segment->offset, buffer->data + ahead,
			counted(reading->s, bytes)))
		return false;
	/* Noted only when it is there: what is not was another stream's. */
	if (ahead > stream->filled && !add_piece(reading, ahead, ahead + bytes))
		return false;
	if (ahead <= stream->filled && ahead + bytes > stream->filled)
		stream->filled = ahead + bytes;
	/* Each may have made room for one that was passed over. */
	bpf_loop(stream->piece_count * STREAM_PIECES, join_piece, reading, 0);
	return true;
}

/* Reads messages from the buffer, when the segment was added to it. */
static __always_inline enum fate read_buffer(struct reading *reading, struct stream *stream,
					     struct stream_buffer *buffer,
					     const struct segment *segment, __u32 ahead,
					     read_one read_one)
{
	struct scratch *s = reading->s;

	if (!add_segment(reading, stream, buffer, segment, ahead))
		return FATE_HOLD_BACK;
	reading->buffer = buffer;
	s->stream_bytes = stream->filled;
	read_messages(reading, read_one);
	if (s->refused)
		return FATE_REFUSE;
	if (s->stream_done == 0)
		return FATE_PASS;
	if (!close_ranks(reading, stream, buffer))
		stream->lost = 1;
	return FATE_PASS;
}

/* A segment of which nothing was read yet. */
static __always_inline enum fate read_new(struct reading *reading, struct stream *stream,
					  const struct segment *segment, __u32 ahead,
					  read_one read_one)
{
	struct stream_buffer *buffer;
	enum fate fate;

	reading->s->stream_done = 0;
	if (ahead == 0 && !stream->buffer)
		return read_packet(reading, stream, segment, read_one);
	if (stream->buffer) {
		buffer = claim_own(stream);
		if (!buffer) { /* given to another stream */
			stream->lost = 1;
			return FATE_PASS;
		}
	} else {
		buffer = claim_another(reading, stream);
		if (!buffer)
			return FATE_HOLD_BACK;
	}
	fate = read_buffer(reading, stream, buffer, segment, ahead, read_one);
	if (fate == FATE_REFUSE)
		__sync_lock_test_and_set(&buffer->claimed, 0);
	else
		release_buffer(stream, buffer);
	return fate;
}

/* Segments are held back, but not for ever: TCP would wait as long for what it has already. */
static __always_inline enum fate hold_back(const struct reading *reading, struct stream *stream)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();

	if (!stream->held_back_since_ns)
		stream->held_back_since_ns = now_ns;
	if (reading->s->responses && now_ns - stream->held_back_since_ns <= HOLD_NS)
		return FATE_HOLD_BACK;
	stream->lost = 1;
	return FATE_PASS;
}

/* Reads a segment of the stream in scratch, which nobody else reads now. */
static __always_inline enum fate read_stream(struct reading *reading, struct segment *segment,
					     read_one read_one)
{
	struct stream *stream = &reading->s->stream;
	__u32 ahead = segment->sequence - stream->next, seen;
	enum fate fate;

	if ((__s32)ahead < (__s32)stream->filled) { /* the beginning, at least, came before */
		seen = stream->filled - ahead;
		if (seen >= segment->bytes)
			return FATE_PASS;
		segment->sequence += seen;
		segment->offset += seen;
		segment->bytes -= seen;
		ahead = stream->filled;
	}
	fate = read_new(reading, stream, segment, ahead, read_one);
	if (fate == FATE_REFUSE)
		return fate; /* sent again, it is to be refused again */
	if (fate == FATE_HOLD_BACK)
		fate = hold_back(reading, stream);
	else if (reading->s->stream_done)
		stream->held_back_since_ns = 0;
	bpf_map_update_elem(&streams, &reading->s->stream_key, stream, BPF_ANY);
	return fate;
}

static long try_lock(__u32 index, struct reading *reading)
{
	__u32 bucket = reading->s->lock, *lock = bpf_map_lookup_elem(&stream_locks, &bucket);

	(void)index;
	if (!lock)
		return 1;
	reading->s->locked = __sync_bool_compare_and_swap(lock, 0, 1);
	return reading->s->locked;
}

static __always_inline void unlock(struct scratch *s)
{
	__u32 bucket = s->lock, *lock = bpf_map_lookup_elem(&stream_locks, &bucket);

	if (lock)
		__sync_lock_test_and_set(lock, 0);
}

/*
 * Reads a segment with all that became whole by it. Two CPUs may see segments of one stream at the
 * same time; the second waits for the first.
 */
static __always_inline enum fate follow(struct reading *reading, struct segment *segment,
					read_one read_one)
{
	struct scratch *s = reading->s;
	const struct stream *known;
	enum fate fate = FATE_PASS;

	name_stream(&s->stream_key, reading->packet);
	s->lock =
		(bpf_ntohs(s->stream_key.source_port) ^ bpf_ntohs(s->stream_key.destination_port)) &
		(STREAM_LOCKS - 1);
	s->locked = 0;
	s->refused = 0;
	bpf_loop(LOCK_TRIES, try_lock, reading, 0);
	if (!s->locked) {
		s->stream.lost = 1; /* so far as this segment goes */
		return s->responses ? FATE_HOLD_BACK : FATE_PASS;
	}
	known = bpf_map_lookup_elem(&streams, &s->stream_key);
	if (known)
		s->stream = *known;
	else
		s->stream.lost = 1;
	if (!s->stream.lost)
		fate = read_stream(reading, segment, read_one);
	if (s->stream.lost)
		count(s->responses ? COUNTER_UNFOLLOWED : COUNTER_QUERY_UNFOLLOWED);
	unlock(s);
	return fate;
}
