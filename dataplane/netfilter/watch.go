package netfilter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tablesGroup is NFNLGRP_NFTABLES, of linux/netfilter/nfnetlink.h, as a bit.
const tablesGroup = 1 << (7 - 1)

// The kernel tells nobody that rules of iptables-legacy changed: it is asked for them now and then, the less often the
// longer the answer takes.
const (
	askInterval = 500 * time.Millisecond
	askShare    = 500 // of the time, one part in so many
)

// Watch calls changed soon after somebody, this process too, changed rules of the backend, until ctx ends; and once at
// first, for what changed before. What is missed, the next Ensure finds.
func (n *Netfilter) Watch(ctx context.Context, changed func()) error {
	if n.backend == NFT {
		return listen(ctx, changed)
	}
	var last version
	for {
		began := time.Now()
		if now, err := n.readVersion(); err == nil && now != last {
			last = now
			changed()
		}
		timer := time.NewTimer(max(askInterval, askShare*time.Since(began)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// listen calls changed after each transaction of nf_tables.
func listen(ctx context.Context, changed func()) error {
	socket, err := subscribe()
	if err != nil {
		return err
	}
	defer socket.Close() //nolint:errcheck // read only
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	changed()
	message := make([]byte, 4096)
	for {
		_, err := socket.Read(message)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // which says that some were lost: there was a change
			return fmt.Errorf("read changes of rules: %w", err)
		}
		changed()
	}
}

// subscribe opens a socket on which a message comes for each transaction.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "netlink")
	// Before the socket is bound: what is about single rules never wakes the agent, however many somebody writes.
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, onlyGenerations()); err != nil {
		return nil, errors.Join(fmt.Errorf("filter changes of rules: %w", err), socket.Close())
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: tablesGroup}); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to changes of rules: %w", err), socket.Close())
	}
	return socket, nil
}

// onlyGenerations passes what ends a transaction: the message with the number of the new generation.
func onlyGenerations() *unix.SockFprog {
	// The kernel writes the type in the machine's byte order, and the filter reads it in that of the network.
	var written [2]byte
	binary.NativeEndian.PutUint16(written[:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
	const typeAt = 4 // in struct nlmsghdr
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(binary.BigEndian.Uint16(written[:]))},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
}
