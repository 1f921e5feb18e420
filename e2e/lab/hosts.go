package lab

import (
	"context"
	"errors"
	"fmt"
)

// AddHost makes a namespace on a network of hosts, for which the node routes. Its address is 10.91.3.N.
func (l *Lab) AddHost(ctx context.Context, name string, n int) (*Namespace, error) {
	if l.hosts == 0 {
		if err := script(ctx, l.Node, `
link add hosts0 type bridge
addr add 10.91.3.1/24 dev hosts0
link set hosts0 up
`); err != nil {
			return nil, err
		}
	}
	l.hosts++
	host, err := l.AddNamespace(ctx, name)
	if err != nil {
		return nil, err
	}
	return host, errors.Join(script(ctx, host, fmt.Sprintf(`
link add eth0 type veth peer name host%[1]d netns %[2]s
addr add 10.91.3.%[1]d/24 dev eth0
link set eth0 up
route add default via 10.91.3.1
`, n, l.Node.Name)), script(ctx, l.Node, fmt.Sprintf(`
link set host%[1]d master hosts0
link set host%[1]d up
`, n)))
}
