package bpf

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// sourceOf is the first bits of an address.
func sourceOf(address DatapathAddress, bits int) Source {
	for bit := bits; bit < 128; bit++ {
		address.Bytes[bit/8] &^= 0x80 >> (bit % 8)
	}
	return Source{address, uint8(bits)}
}

// addressOf is the IPv4 address of a number.
func addressOf(n uint32) (address DatapathAddress) {
	address.Bytes[10], address.Bytes[11] = 255, 255
	binary.BigEndian.PutUint32(address.Bytes[12:], n)
	return address
}

func isIPv4(address DatapathAddress) bool {
	return sourceOf(address, 96) == sourceOf(addressOf(0), 96)
}

// findSource looks an address up as the programs do, and tells how many cells it looked at.
func findSource(p part, seed uint32, hosts *Hosts, address DatapathAddress) (class DatapathSourceClass, looked int) {
	family, word := hosts.ipv6, 0
	if isIPv4(address) {
		family, word = hosts.ipv4, 8
	}
	if same := sourceOf(address, 8*word+int(family.Bits)).Address; binary.LittleEndian.Uint64(same.Bytes[word:]) != family.Word {
		return class, 0
	}
	for _, length := range family.Lengths {
		if length == 0 {
			break
		}
		class, found, cells := hostOf(p, seed, hosts, sourceOf(address, int(length)-1))
		looked += cells
		if found {
			return class, looked
		}
	}
	return class, looked
}

func hostOf(p part, seed uint32, hosts *Hosts, source Source) (class DatapathSourceClass, found bool, looked int) {
	p.bits = hosts.bits
	at, role := p.first()+p.home(hashHost(seed, source)), DatapathCellRoleCELL_HOME
	for range p.chain {
		cell := hosts.Cells[at]
		looked++
		if cell.Role != role {
			break
		}
		for slot, length := range cell.Lengths {
			if length == source.length() && cell.Addresses[slot] == source.Address {
				return cell.Classes[slot], true, looked
			}
		}
		if cell.Next == 0 {
			break
		}
		at, role = cell.Next, DatapathCellRoleCELL_AWAY
	}
	return class, false, looked
}

// longest is the class of the longest of all sources that has an address. None of IPv6 alone has one of IPv4.
func longest(sources map[Source]DatapathSourceClass, address DatapathAddress) (class DatapathSourceClass) {
	bits := -1
	for s, c := range sources {
		if sourceOf(address, int(s.Bits)) == s && int(s.Bits) > bits && (s.Bits >= 96 || !isIPv4(address)) {
			bits, class = int(s.Bits), c
		}
	}
	return class
}

// drawAddress draws addresses that have much in common: of both families, and beside those of IPv4.
func drawAddress(t *rapid.T) (address DatapathAddress) {
	if rapid.Bool().Draw(t, "ipv4") {
		address = addressOf(0x0a000000)
	} else if rapid.Bool().Draw(t, "zeros") {
		address.Bytes[11] = 254
	} else {
		address.Bytes[0] = 0xfd
	}
	for range rapid.IntRange(0, 3).Draw(t, "bits set") {
		bit := rapid.IntRange(0, 127).Draw(t, "bit")
		if isIPv4(address) {
			bit = 96 + bit%32
		}
		address.Bytes[bit/8] ^= 0x80 >> (bit % 8)
	}
	return address
}

// Whatever is laid out in either generation, the longest prefix of every address is found, and nothing if there is none.
// More lengths than the programs look for, or more sources than there is room for, are refused.
func TestLongestSourceIsFound(t *testing.T) {
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		p := part{generation: rapid.Uint32Range(0, 1).Draw(t, "generation"), most: 64, chain: 16}
		seed := rapid.Uint32().Draw(t, "seed")
		bits := rapid.SliceOfNDistinct(rapid.IntRange(0, 128), 1, 10, rapid.ID).Draw(t, "lengths")
		if rapid.Bool().Draw(t, "ipv4 has lengths") {
			bits = append(bits, 96, 104, 120, 128)
		}
		sources, addresses := map[Source]DatapathSourceClass{}, []DatapathAddress{{}, addressOf(0), sourceOf(addressOf(0), 95).Address}
		for i := range rapid.IntRange(0, 150).Draw(t, "sources") {
			address := drawAddress(t)
			sources[sourceOf(address, rapid.SampledFrom(bits).Draw(t, "bits"))] = DatapathSourceClass{Class: uint32(i + 1)}
			addresses = append(addresses, address, drawAddress(t))
		}
		hosts, err := layHosts(p, seed, sources)
		if tooMany(err) && (len(sources) > int(p.most) || len(bits) > MostLengths) {
			refused++
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, address := range addresses {
			if got, _ := findSource(p, seed, hosts, address); got != longest(sources, address) {
				t.Fatalf("%x: got %v, want %v", address.Bytes, got, longest(sources, address))
			}
		}
	})
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

func TestFamiliesOfSources(t *testing.T) {
	sources := map[Source]DatapathSourceClass{}
	for _, bits := range []int{103, 120, 120, 128} {
		sources[sourceOf(addressOf(0x0a000000), bits)] = DatapathSourceClass{Class: 1}
	}
	sources[sourceOf(addressOf(0x0b000000), 112)] = DatapathSourceClass{Class: 1}
	six := DatapathAddress{Bytes: [16]byte{0xfd, 15: 1}}
	for bits := range MostLengths {
		sources[sourceOf(six, 128-bits)] = DatapathSourceClass{Class: 2}
	}
	hosts, err := LayHosts(0, 7, sources)
	if err != nil {
		t.Fatal(err)
	}
	var whole DatapathGenerationFlags
	hosts.Describe(&whole)
	if want := (DatapathSourceFamily{Word: 0x0affff0000, Bits: 39, Lengths: [MostLengths]uint8{129, 121, 113, 104}}); whole.Ipv4 != want {
		t.Errorf("IPv4: %+x, want %+x", whole.Ipv4, want)
	}
	if want := (DatapathSourceFamily{Word: 0xfd, Bits: 64, Lengths: [MostLengths]uint8{129, 128, 127, 126, 125, 124, 123}}); whole.Ipv6 != want {
		t.Errorf("IPv6: %+x, want %+x", whole.Ipv6, want)
	}
	sources[sourceOf(six, 0)] = DatapathSourceClass{Class: 3}
	if _, err := LayHosts(0, 7, sources); !tooMany(err) {
		t.Errorf("one length more: %v", err)
	}
}

// A table takes as many sources as it has cells.
func TestRoomOfHosts(t *testing.T) {
	const most = 4096
	p := part{most: most, chain: int(DatapathHostLimitHOST_CHAIN)}
	sources := map[Source]DatapathSourceClass{}
	for n := range uint32(most) {
		sources[sourceOf(addressOf(n<<2), 126+int(n&2))] = DatapathSourceClass{Class: n}
	}
	if _, err := layHosts(p, 7, sources); err != nil {
		t.Errorf("%d sources: %v", len(sources), err)
	}
}

// What is usual is found at home, and what is not there is known not to be by its home.
func TestUsualHostIsAtHome(t *testing.T) {
	p := part{most: uint32(DatapathHostLimitHOST_CELLS), chain: int(DatapathHostLimitHOST_CHAIN)}
	for _, keys := range []int{100, 1000, 10_000} {
		sources := map[Source]DatapathSourceClass{}
		for n := range keys {
			sources[sourceOf(addressOf(uint32(n)<<2), 126)] = DatapathSourceClass{Class: uint32(n)}
		}
		hosts, err := LayHosts(0, 7, sources)
		if err != nil {
			t.Fatal(err)
		}
		var looked [2]int
		for n := range keys {
			for i, address := range []int{n, n + keys} {
				_, cells := findSource(p, 7, hosts, addressOf(uint32(address)<<2))
				looked[i] += cells
			}
		}
		for i, what := range []string{"a host that is there", "one that is not"} {
			mean := float64(looked[i]) / float64(keys)
			t.Logf("%d keys, %s: %.3f cells", keys, what, mean)
			if mean > 1.35 {
				t.Errorf("%d keys, %s: %.3f cells, want 1.35 at most", keys, what, mean)
			}
		}
	}
}
