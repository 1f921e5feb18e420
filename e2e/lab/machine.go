package lab

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is a Debian system on a namespace's network. Its files, mounts and processes are its own, and go with the
// lab. No systemd runs there: what packages and operators ask of systemctl, a script does as units say.
type Machine struct {
	// Root is where this process sees the machine's root directory.
	Root string
	pid  int
}

//go:embed systemctl.sh
var systemctl []byte

// machinePath is where its programs are found.
const machinePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// boot mounts what a machine has, over the base, and becomes its first process, which waits for whatever ends.
const boot = `set -e
base=$1 dir=$2 name=$3
mount -t tmpfs machine "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$base,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount --rbind /dev dev
mount -t tmpfs run run
hostname "$name"
echo "$name" >etc/hostname
printf '127.0.0.1\tlocalhost %s\n' "$name" >etc/hosts
mkdir -p run/systemd/system
install -m 0755 "$dir/../systemctl.sh" usr/bin/systemctl
exec chroot . /bin/sh -c 'echo $$ >/run/booted; while :; do sleep 3600 & wait $!; done'
`

// NewMachine starts a machine from a directory that has a Debian system, which stays as it is.
func (l *Lab) NewMachine(ctx context.Context, at *Namespace, name, base string) (*Machine, error) {
	home := filepath.Join(l.Dir, name)
	dir := filepath.Join(home, "machine")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // users of the machine look into it
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(home, "systemctl.sh"), systemctl, 0o600); err != nil {
		return nil, err
	}
	process, err := l.Start(ctx, at, name, "unshare", "--mount", "--propagation", "private", "--pid", "--uts", "--fork", "--kill-child",
		"sh", "-c", boot, "boot", base, dir, name)
	if err != nil {
		return nil, err
	}
	m := &Machine{}
	return m, process.await(ctx, "has booted", func() error {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", process.PID()))
		if err != nil {
			return err
		}
		if m.pid, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
			return fmt.Errorf("its first process: %w", err)
		}
		m.Root = fmt.Sprintf("/proc/%d/root", m.pid)
		_, err = os.Stat(m.Path("/run/booted"))
		return err
	})
}

// Path is where this process sees a file of the machine.
func (m *Machine) Path(path string) string { return filepath.Join(m.Root, path) }

// Command is a command that runs on the machine, with nothing of this process's environment.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(m.pid), "--mount", "--pid", "--uts", "--net", "--root", "--wdns=/", "--",
		"/usr/bin/env", "-i", "PATH=" + machinePath, "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		name,
	}, args...)...)
}

// Run runs a command on the machine and returns what it printed, on both outputs.
func (m *Machine) Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := m.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Serving returns the number of the process of a unit, 0 while none runs.
func (m *Machine) Serving(unit string) int {
	text, err := os.ReadFile(m.Path("/run/" + unit + ".pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || unix.Access(m.Path(fmt.Sprintf("/proc/%d", pid)), unix.F_OK) != nil {
		return 0
	}
	return pid
}
