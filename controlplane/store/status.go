package store

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// ReadStatus reads the status of a node as Message writes it, all but the claim.
func ReadStatus(message *namewardv1.NodeStatus) (NodeStatus, error) {
	status := NodeStatus{
		Connected: message.GetConnected(), LastContact: readTime(message.GetLastContactTime()),
		WantedRevision: message.GetWantedRevision(), WantedTime: readTime(message.GetWantedTime()),
		AppliedRevision: message.GetAppliedRevision(), AppliedTime: readTime(message.GetAppliedTime()),
		LastError: message.GetLastError(), Counters: message.GetCounters(), Degraded: message.GetDegraded(),
		MoreAddresses: message.GetMoreAddresses(),
	}
	if text := message.GetRuleSetId(); text != "" {
		raw, err := hex.DecodeString(text)
		if err == nil {
			status.RuleSetID, err = ruleset.ParseID(raw)
		}
		if err != nil {
			return status, fmt.Errorf("read rule set id: %w", err)
		}
	}
	for _, text := range message.GetPolicyServers() {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			return status, fmt.Errorf("read policy server: %w", err)
		}
		status.PolicyServers = append(status.PolicyServers, server)
	}
	for _, text := range message.GetAddresses() {
		prefix, err := readPrefix(text)
		if err != nil {
			return status, fmt.Errorf("read address: %w", err)
		}
		status.Addresses = append(status.Addresses, prefix)
	}
	return status, nil
}

func readPrefix(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	return netip.ParsePrefix(text) //nolint:wrapcheck // the caller says what it read
}

func readTime(message *timestamppb.Timestamp) time.Time {
	if message == nil {
		return time.Time{}
	}
	return message.AsTime()
}
