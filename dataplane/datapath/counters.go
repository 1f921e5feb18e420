package datapath

import (
	"fmt"

	"github.com/nameward/nameward/bpf"
)

const mappingsEvicted = "mappings_evicted"

// counterNames name what the programs count, in the order of enum counter.
var counterNames = [bpf.DatapathCounterCOUNTER_MAX]string{
	bpf.DatapathCounterCOUNTER_LEARNED:              "dns_responses_learned",
	bpf.DatapathCounterCOUNTER_UNMATCHED:            "dns_responses_unmatched",
	bpf.DatapathCounterCOUNTER_NO_ADDRESS:           "dns_responses_no_address",
	bpf.DatapathCounterCOUNTER_MALFORMED:            "dns_responses_malformed",
	bpf.DatapathCounterCOUNTER_TRUNCATED:            "dns_responses_truncated",
	bpf.DatapathCounterCOUNTER_NO_QUERY:             "dns_responses_no_query",
	bpf.DatapathCounterCOUNTER_WRONG_QUESTION:       "dns_responses_wrong_question",
	bpf.DatapathCounterCOUNTER_UNTRUSTED:            "dns_responses_untrusted",
	bpf.DatapathCounterCOUNTER_LATE:                 "dns_responses_late",
	bpf.DatapathCounterCOUNTER_DUPLICATE:            "dns_responses_duplicate",
	bpf.DatapathCounterCOUNTER_RCODE:                "dns_responses_rcode",
	bpf.DatapathCounterCOUNTER_CLASS:                "dns_responses_class",
	bpf.DatapathCounterCOUNTER_OPCODE:               "dns_responses_opcode",
	bpf.DatapathCounterCOUNTER_QUESTION_COUNT:       "dns_responses_question_count",
	bpf.DatapathCounterCOUNTER_NOT_RESPONSE:         "dns_responses_not_response",
	bpf.DatapathCounterCOUNTER_CHAIN_TOO_LONG:       "dns_responses_chain_too_long",
	bpf.DatapathCounterCOUNTER_UNFOLLOWED:           "dns_responses_unfollowed",
	bpf.DatapathCounterCOUNTER_BUSY:                 "dns_responses_busy",
	bpf.DatapathCounterCOUNTER_SPECIAL_ADDRESS:      "addresses_special",
	bpf.DatapathCounterCOUNTER_ADDRESSES_OVER_LIMIT: "addresses_over_limit",
	bpf.DatapathCounterCOUNTER_MAPPING_CREATED:      "mappings_created",
	bpf.DatapathCounterCOUNTER_MAPPING_EVICTED:      "mapping_slots_evicted",
	bpf.DatapathCounterCOUNTER_MAPPING_FULL:         "mappings_full",
	bpf.DatapathCounterCOUNTER_SETS_OVER_LIMIT:      "match_sets_over_limit",
	bpf.DatapathCounterCOUNTER_EVENT_LOST:           "events_lost",
	bpf.DatapathCounterCOUNTER_QUERY:                "dns_queries_remembered",
	bpf.DatapathCounterCOUNTER_QUERY_MALFORMED:      "dns_queries_malformed",
	bpf.DatapathCounterCOUNTER_QUERY_UNFOLLOWED:     "dns_queries_unfollowed",
	bpf.DatapathCounterCOUNTER_SEGMENT_HELD_BACK:    "dns_segments_held_back",
	bpf.DatapathCounterCOUNTER_QUERY_REFUSED:        "dns_queries_refused",
	bpf.DatapathCounterCOUNTER_QUERY_AUDIT:          "dns_queries_audited",
	bpf.DatapathCounterCOUNTER_VERDICT_ALLOW:        "verdicts_allow",
	bpf.DatapathCounterCOUNTER_VERDICT_DENY:         "verdicts_deny",
	bpf.DatapathCounterCOUNTER_VERDICT_AUDIT:        "verdicts_audit",
	bpf.DatapathCounterCOUNTER_VERDICT_MALFORMED:    "verdicts_malformed",
	bpf.DatapathCounterCOUNTER_UNKNOWN_INTERFACE:    "verdicts_unknown_interface",
	bpf.DatapathCounterCOUNTER_UNKNOWN_CGROUP:       "verdicts_unknown_cgroup",
	bpf.DatapathCounterCOUNTER_TOO_MANY_CGROUPS:     "verdicts_too_many_cgroups",
	bpf.DatapathCounterCOUNTER_FLOW_EVENT:           "flow_events_told",
	bpf.DatapathCounterCOUNTER_FLOW_SUPPRESSED:      "flow_events_suppressed",
	bpf.DatapathCounterCOUNTER_FLOW_LOST:            "flow_events_lost",
	bpf.DatapathCounterCOUNTER_QUERY_EVICTED:        "dns_queries_evicted",
	bpf.DatapathCounterCOUNTER_MAPPING_COLLECTED:    "mappings_collected",
	bpf.DatapathCounterCOUNTER_MAPPING_DROPPED:      mappingsEvicted,
}

// Counters returns what was counted since the boot, or since the maps were made anew, by name: dns_responses_<result>
// (learned, unmatched, malformed, …), verdicts_<verdict> (allow, deny, audit), flow_events_<result>
// (told, suppressed, lost), mappings_created, mappings_evicted (addresses that gave way to
// newer ones), events_lost and so on; and since this process began: addresses_evicted (addresses of a name
// that gave way to newer ones of it), observations_evicted (mappings that the table dropped),
// flows_evicted (flow events that had to give way to others) and journal_faults (what the journal of mappings
// did not take).
func (d *Datapath) Counters() (map[string]uint64, error) {
	counters := make(map[string]uint64, len(counterNames)+4)
	before := d.inherited.Load()
	for i, name := range counterNames {
		n, err := d.kernel.counter(bpf.DatapathCounter(i)) //nolint:gosec // an index
		if err != nil {
			return nil, err
		}
		counters[name] = n + before.of(name)
	}
	counters["observations_evicted"], counters["addresses_evicted"] = d.table.Evicted()
	counters["flows_evicted"] = d.flows.Evicted()
	counters["journal_faults"] = d.journal.faults.Load()
	return counters, nil
}

// counter sums a counter over the CPUs.
func (k *kernel) counter(c bpf.DatapathCounter) (uint64, error) {
	var each []uint64
	if err := k.Counters.Lookup(uint32(c), &each); err != nil {
		return 0, fmt.Errorf("read counters: %w", err)
	}
	sum := uint64(0)
	for _, n := range each {
		sum += n
	}
	return sum, nil
}
