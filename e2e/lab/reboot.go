package lab

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
)

// Reboot does to the node what a reboot does, but for the time: rules, pins and connections are gone, the
// disk is as it was, and the boot is another one. The programs must have ended.
func (l *Lab) Reboot(ctx context.Context) error {
	if err := l.ForgetKernelState(ctx); err != nil {
		return err
	}
	if out, err := l.Node.Command(ctx, "conntrack", "-F").CombinedOutput(); err != nil {
		return fmt.Errorf("forget connections: %w: %s", err, out)
	}
	l.bootID = filepath.Join(l.Dir, "boot-id")
	return os.WriteFile(l.bootID, []byte(rand.Text()+"\n"), 0o600)
}

// asAfterReboot is a command line that runs a program where the kernel names the lab's boot.
func (l *Lab) asAfterReboot(program string, args []string) (string, []string) {
	const script = `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`
	return "unshare", append([]string{"--mount", "sh", "-c", script, l.bootID, program}, args...)
}
