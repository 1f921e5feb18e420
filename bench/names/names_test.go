package names

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	const text = "# the most popular\n1,Example.com\n2,bücher.example\n\nexample.com.\n*.wild.example\nnot..a.name\napi.example.com\r\n"
	want := []string{"example.com", "xn--bcher-kva.example", "api.example.com"}
	for _, file := range []string{"names.txt", "names.csv.gz"} {
		list, leftOut, err := Read(write(t, file, text))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(list, want) || leftOut != 3 {
			t.Errorf("%s: names %q, %d left out", file, list, leftOut)
		}
	}
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	for file, want := range map[string]string{
		write(t, "empty.txt", "# nothing\n"):             "no domain name in it",
		filepath.Join(t.TempDir(), "missing.txt"):        "no such file",
		write(t, "plain.txt", "example.com\n") + ".none": "no such file",
	} {
		if _, _, err := Read(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", file, err, want)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if !strings.HasSuffix(name, ".gz") {
		_, err = f.WriteString(text)
	} else {
		zipped := gzip.NewWriter(f)
		if _, err = zipped.Write([]byte(text)); err == nil {
			err = zipped.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestGenerate(t *testing.T) {
	const count = 50_000
	list := Generate(count)
	if again := Generate(count); !slices.Equal(list, again) {
		t.Error("another run has other names")
	}
	bytes, labels := 0, 0
	known := make(map[string]bool)
	for _, name := range list {
		if canonical, ok := canonical(name); !ok || canonical != name {
			t.Fatalf("%q is no canonical name", name)
		}
		bytes += len(name)
		labels += strings.Count(name, ".") + 1
		known[name] = true
	}
	if len(known) != count {
		t.Errorf("%d names, %d of them differ", count, len(known))
	}
	// Lists of popular names have 15 to 25 bytes a name, and between 2 and 4 labels.
	if mean := float64(bytes) / count; mean < 15 || mean > 25 {
		t.Errorf("a name has %.1f bytes on average: %q", mean, list[:20])
	}
	if mean := float64(labels) / count; mean < 2.3 || mean > 3.5 {
		t.Errorf("a name has %.1f labels on average: %q", mean, list[:20])
	}
}
