package netfilter

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What include/uapi/linux/netfilter_ipv4/ip_tables.h calls IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; IPv6 has
// the same numbers.
const (
	getInfo    = 64
	getEntries = 65
)

const (
	tableName = 32 // XT_TABLE_MAXNAMELEN
	hooks     = 5  // NF_INET_NUMHOOKS
	rulesAt   = 40 // in struct ipt_get_entries, aligned as the rules are
)

// tableInfo is struct ipt_getinfo.
type tableInfo struct {
	name                 [tableName]byte
	validHooks           uint32
	hookEntry, underflow [hooks]uint32
	entries, size        uint32
}

// layout is where struct ipt_entry, or ip6t_entry, has what a packet changes, and where its length is.
type layout struct {
	family, level     int
	nextAt, countedAt int
}

const counted = 16 // bytes of the counters of packets and bytes

var layouts = map[protocol]layout{
	ipv4: {unix.AF_INET, unix.SOL_IP, 90, 96},
	ipv6: {unix.AF_INET6, unix.SOL_IPV6, 142, 152},
}

var errNoTable = errors.New("rules are laid out in a way that is not known")

// legacyContent returns a digest of all rules of tables of iptables-legacy, as the kernel holds them, but for
// their counters. While it stands, so do the rules: iptables-legacy-save, for which a program is started,
// would print the same.
func legacyContent(families []*family, tables func(*family) ([]string, error)) (content [sha256.Size]byte, err error) {
	sum := sha256.New()
	for _, f := range families {
		names, err := tables(f)
		if err == nil {
			err = f.digest(sum, names)
		}
		if err != nil {
			return content, fmt.Errorf("read rules of %s: %w", f.tools.protocol, err)
		}
	}
	return [sha256.Size]byte(sum.Sum(nil)), nil
}

func (f *family) digest(sum hash.Hash, tables []string) error {
	l := layouts[f.tools.protocol]
	fd, err := unix.Socket(l.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	for _, table := range tables {
		info := tableInfo{}
		copy(info.name[:tableName-1], table)
		if err := getsockopt(fd, l.level, getInfo, unsafe.Pointer(&info), unsafe.Sizeof(info)); err != nil {
			return fmt.Errorf("read size of table %s: %w", table, err)
		}
		buffer := make([]byte, rulesAt+int(info.size))
		copy(buffer, info.name[:])
		binary.NativeEndian.PutUint32(buffer[tableName:], info.size)
		// EAGAIN where somebody changed the table meanwhile: then it is listed.
		if err := getsockopt(fd, l.level, getEntries, unsafe.Pointer(&buffer[0]), uintptr(len(buffer))); err != nil {
			return fmt.Errorf("read table %s: %w", table, err)
		}
		if err := l.clearCounters(buffer[rulesAt:]); err != nil {
			return fmt.Errorf("read table %s: %w", table, err)
		}
		sum.Write(buffer)
		// Where the chains of the hooks begin and end is not among the rules.
		for _, at := range [][hooks]uint32{info.hookEntry, info.underflow} {
			for _, offset := range at {
				buffer = binary.NativeEndian.AppendUint32(buffer[:0], offset)
				sum.Write(buffer)
			}
		}
	}
	return nil
}

func (l layout) clearCounters(rules []byte) error {
	for len(rules) > 0 {
		if len(rules) < l.countedAt+counted {
			return errNoTable
		}
		next := int(binary.NativeEndian.Uint16(rules[l.nextAt:]))
		if next < l.countedAt+counted || next > len(rules) {
			return errNoTable
		}
		clear(rules[l.countedAt : l.countedAt+counted])
		rules = rules[next:]
	}
	return nil
}

func getsockopt(fd, level, option int, value unsafe.Pointer, size uintptr) error {
	length := uint32(size)                                                                          //nolint:gosec // the kernel bounds tables
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), //nolint:gosec // small numbers
		uintptr(value), uintptr(unsafe.Pointer(&length)), 0) //nolint:gosec // as the call demands
	if errno != 0 {
		return errno
	}
	return nil
}
