// Command printvalidate writes protovalidate's validate.proto below the directory that its argument
// names, from the descriptor in its generated Go module: buf then lints and generates without a
// network registry.
package main

import (
	"fmt"
	"os"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/desc"
	"github.com/jhump/protoreflect/desc/protoprint"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: printvalidate DIRECTORY")
		os.Exit(2)
	}
	file, err := desc.WrapFile(validate.File_buf_validate_validate_proto)
	if err == nil {
		err = (&protoprint.Printer{}).PrintProtosToFileSystem([]*desc.FileDescriptor{file}, os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "print validate.proto:", err)
		os.Exit(1)
	}
}
