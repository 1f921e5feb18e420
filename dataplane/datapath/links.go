package datapath

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/lower"
)

// links is the node's network interfaces with their classes, as the map interfaces has them. A link
// that is not in the map may open nothing while policies select by interface.
type links struct {
	names   map[uint32]string
	classes map[uint32][2]uint32
	// known gives the classes of a generation; nil: of a process before, until the first rule set.
	known [2]*lower.Interfaces
}

// readLinks takes up what the map holds.
func readLinks(k *kernel) (links, error) {
	l := links{names: map[uint32]string{}, classes: map[uint32][2]uint32{}}
	held, err := readMap(k.Interfaces, func(uint32) bool { return true }, bpf.DatapathInterfaceClasses{})
	if err != nil {
		return l, err
	}
	for index, c := range held {
		l.classes[index] = c.Class
	}
	list, err := netlink.LinkList()
	if err != nil {
		return l, fmt.Errorf("list network interfaces: %w", err)
	}
	return l, l.resync(k, list)
}

// resync makes the map hold the links of a list, and no others.
func (l *links) resync(k *kernel, list []netlink.Link) error {
	present := map[uint32]bool{}
	var errs []error
	for _, link := range list {
		index := uint32(link.Attrs().Index) //nolint:gosec // an index is positive
		present[index] = true
		errs = append(errs, l.put(k, index, link.Attrs().Name))
	}
	for index := range l.classes {
		if !present[index] {
			errs = append(errs, l.remove(k, index))
		}
	}
	return errors.Join(errs...)
}

// put gives a link its classes by its name, in the generations whose classes are known.
func (l *links) put(k *kernel, index uint32, name string) error {
	if old, known := l.names[index]; known && old == name {
		if _, held := l.classes[index]; held {
			return nil
		}
	}
	l.names[index] = name
	classes, held := l.classes[index]
	for generation, interfaces := range l.known {
		if interfaces != nil {
			classes[generation] = uint32(interfaces.Class(name))
		}
	}
	if !held && l.known == [2]*lower.Interfaces{} {
		return nil // its class in what is in force is not known: better none than a wrong one
	}
	return l.write(k, index, classes)
}

func (l *links) remove(k *kernel, index uint32) error {
	delete(l.names, index)
	if _, held := l.classes[index]; !held {
		return nil
	}
	delete(l.classes, index)
	if err := k.Interfaces.Delete(index); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget network interface: %w", err)
	}
	return nil
}

// reclass gives all links their classes in a generation. Where no policy selects by interface nobody
// looks at them, so those of a node with very many links need not all have a place then.
func (l *links) reclass(k *kernel, generation uint32, interfaces lower.Interfaces) error {
	l.known[generation] = &interfaces
	if interfaces.Len() == 0 {
		_ = l.putClasses(k, generation, interfaces)
		return nil
	}
	// A link may have come that was not told of yet.
	list, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range list {
		l.names[uint32(link.Attrs().Index)] = link.Attrs().Name //nolint:gosec // an index is positive
	}
	return l.putClasses(k, generation, interfaces)
}

func (l *links) putClasses(k *kernel, generation uint32, interfaces lower.Interfaces) error {
	for index, name := range l.names {
		classes, held := l.classes[index]
		class := uint32(interfaces.Class(name))
		if held && classes[generation] == class {
			continue
		}
		classes[generation] = class
		if err := l.write(k, index, classes); err != nil {
			return err
		}
	}
	return nil
}

func (l *links) write(k *kernel, index uint32, classes [2]uint32) error {
	err := k.Interfaces.Put(index, &bpf.DatapathInterfaceClasses{Class: classes})
	if isFull(err) {
		return fmt.Errorf("class network interface %d: more than %d: %w", index, k.Interfaces.MaxEntries(), enforce.ErrFull)
	}
	if err != nil {
		return fmt.Errorf("class network interface %d: %w", index, err)
	}
	l.classes[index] = classes
	return nil
}

// watchLinks keeps the map in step with the node's interfaces until ctx ends.
func (d *Datapath) watchLinks(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.followLinks(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("network interfaces are listed anew", "err", err)
		}
	}
	return nil
}

// followLinks subscribes before it lists, so that no link falls in between. It ends on an error of the
// subscription, such as events lost for want of buffer.
func (d *Datapath) followLinks(ctx context.Context) error {
	updates := make(chan netlink.LinkUpdate, 64)
	failed := make(chan error, 1)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
	}); err != nil {
		return errors.Join(err, d.pause(ctx))
	}
	list, err := netlink.LinkList()
	if err != nil {
		return errors.Join(err, d.pause(ctx))
	}
	if err := d.locked(func() error { return d.links.resync(d.kernel, list) }); err != nil {
		d.log.Warn("network interface has no class: it may open nothing", "err", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case update, open := <-updates:
			if !open {
				return errors.New("subscription ended")
			}
			if err := d.locked(func() error { return d.followLink(update) }); err != nil {
				d.log.Warn("network interface has no class: it may open nothing", "err", err)
			}
		}
	}
}

func (d *Datapath) followLink(update netlink.LinkUpdate) error {
	index := uint32(update.Index) //nolint:gosec // an index is positive
	// A bridge tells of a port that leaves it as of a link that goes.
	if update.Header.Type == unix.RTM_DELLINK && update.Family == unix.AF_UNSPEC {
		return d.links.remove(d.kernel, index)
	}
	if update.Header.Type == unix.RTM_DELLINK {
		return nil
	}
	return d.links.put(d.kernel, index, update.Attrs().Name)
}

func (d *Datapath) locked(f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f()
}
