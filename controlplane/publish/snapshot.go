package publish

const (
	// packLimit bounds the changes in one pack, before it is made: packed they are about 64 KiB.
	packLimit = 256 << 10
	// packMin is the size from which on changes are packed.
	packMin = 16 << 10
	// agedPart is how large the changes since a packed rule set may grow, as a part of it, before it is packed anew.
	agedPart = 4
)

// packed is a rule set in packed form. Those that follow are sent as this one and what changed since: to pack thousands
// of policies takes longer than to send them, and a fleet may join while policies change.
type packed struct {
	of       *Content
	messages [][]byte
	size     int
}

// PackedSnapshot returns what Snapshot does, for agents that read packed changes.
func (c *Content) PackedSnapshot() ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.packed != nil && c.packed.of == c {
		return c.packed.messages, nil
	}
	if c.joined != nil {
		return c.joined, nil
	}
	if c.packed != nil {
		since, err := c.delta(c.packed.of)
		if err != nil {
			return nil, err
		}
		if since.size <= c.packed.size/agedPart {
			c.joined = append(append([][]byte{}, c.packed.messages...), since.packed()...)
			return c.joined, nil
		}
	}
	messages, err := encodeWhole(c.selected, c.domainSets)
	if err != nil {
		return nil, err
	}
	whole := newEncoding(c.packer, messages)
	c.packed = &packed{of: c, messages: whole.packed()}
	for _, message := range c.packed.messages {
		c.packed.size += len(message)
	}
	return c.packed.messages, nil
}

// succeeds makes the packed form of the content before the beginning of this one's.
func (c *Content) succeeds(before *Content) {
	before.mu.Lock()
	packed := before.packed
	before.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.packed == nil {
		c.packed = packed
	}
}
