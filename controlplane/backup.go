package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
)

const (
	// socketName is the server's own socket, in its data directory: who may read that may ask for a backup.
	socketName = "server.sock"
	backupPath = "/backup"
	// stallTimeout is how long a reader of a backup may take for a part of it: as long as it reads, no page of the
	// database that it may still need is used again, and the file grows.
	stallTimeout = time.Minute
)

// backupServer gives a backup to whoever asks on the socket in the data directory.
type backupServer struct {
	backend  *bolt.Backend
	listener net.Listener
	dir      *os.File
	log      *slog.Logger
	// running holds a token while a backup is written.
	running chan struct{}
}

// listenForBackups opens the socket. The data directory must be the caller's alone, as the storage makes it.
func listenForBackups(ctx context.Context, dataDir string, backend *bolt.Backend, log *slog.Logger) (*backupServer, error) {
	dir, path, err := socketIn(dataDir)
	if err != nil {
		return nil, err
	}
	// What a server left that was killed: the storage is locked, so no other one serves it.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		err = os.Remove(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("remove socket: %w", err), dir.Close())
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for backups: %w", err), dir.Close())
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), listener.Close(), dir.Close())
	}
	return &backupServer{backend: backend, listener: listener, dir: dir, log: log, running: make(chan struct{}, 1)}, nil
}

// socketIn returns a path of the socket that has room in a socket's address, however long that of the directory is. It
// holds as long as the directory is open.
func socketIn(dataDir string) (dir *os.File, path string, err error) {
	if dir, err = os.Open(dataDir); err != nil { //nolint:gosec // the operator names it
		return nil, "", fmt.Errorf("open data directory: %w", err)
	}
	return dir, fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName), nil
}

// run serves until ctx ends, and removes the socket.
func (s *backupServer) run(ctx context.Context) error {
	if s == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+backupPath, s.serve)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(s.listener)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	if err := errors.Join(err, s.dir.Close()); err != nil {
		return fmt.Errorf("serve backups: %w", err)
	}
	return nil
}

func (s *backupServer) serve(w http.ResponseWriter, _ *http.Request) {
	select {
	case s.running <- struct{}{}:
		defer func() { <-s.running }()
	default:
		http.Error(w, "another backup is being taken", http.StatusServiceUnavailable)
		return
	}
	s.log.Info("backup begun")
	began := time.Now()
	size, err := s.backend.WriteTo(&patientWriter{w: w, control: http.NewResponseController(w)})
	if err != nil {
		s.log.Warn("backup broke off", "err", err)
		// The reader shall not take a part for the whole.
		panic(http.ErrAbortHandler)
	}
	s.log.Info("backup taken", "bytes", size, "took", time.Since(began))
}

// patientWriter lets each part of a response take its time, but not for ever.
type patientWriter struct {
	w       io.Writer
	control *http.ResponseController
}

// Write writes a part.
func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, fmt.Errorf("bound write: %w", err)
	}
	return p.w.Write(b) //nolint:wrapcheck // of the connection
}

// Backup writes a backup of a data directory, whether a server runs on it or not: all that was acknowledged before the
// call, as of one revision.
func Backup(ctx context.Context, dataDir string, w io.Writer) error {
	if err := bolt.Backup(dataDir, w); !errors.Is(err, bolt.ErrInUse) {
		return err //nolint:wrapcheck // names the directory
	}
	dir, path, err := socketIn(dataDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server"+backupPath, nil)
	if err != nil {
		return fmt.Errorf("ask for backup: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the server that has %s open: %w", dataDir, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1024))
		return fmt.Errorf("ask the server that has %s open: %s: %s", dataDir, response.Status, text)
	}
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	return nil
}

// BackupTo writes a backup to a file, which is there when the backup is whole and was found good.
func BackupTo(ctx context.Context, dataDir, path string) (meta storage.Meta, err error) {
	partial, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.partial") // for the owner alone
	if err != nil {
		return meta, fmt.Errorf("make backup: %w", err)
	}
	defer func() {
		if removeErr := os.Remove(partial.Name()); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove %s: %w", partial.Name(), removeErr))
		}
	}()
	err = errors.Join(Backup(ctx, dataDir, partial), partial.Sync(), partial.Close())
	if err != nil {
		return meta, err
	}
	if meta, err = bolt.Check(partial.Name()); err != nil {
		return meta, fmt.Errorf("check backup: %w", err)
	}
	if err := os.Rename(partial.Name(), path); err != nil {
		return meta, fmt.Errorf("name backup: %w", err)
	}
	return meta, nil
}

// Restore makes the store of a data directory that of a backup; see bolt.Restore.
func Restore(dataDir string, backup io.Reader, replace bool) (storage.Meta, error) {
	return bolt.Restore(dataDir, backup, replace) //nolint:wrapcheck // names the directory
}
