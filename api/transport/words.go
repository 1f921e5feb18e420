package transport

import (
	"errors"
	"strings"

	"google.golang.org/grpc/status"
)

// Words returns what an error of a call says, without the layers that gRPC puts around a connection that failed.
func Words(err error) string {
	if err == nil {
		return ""
	}
	message := err.Error()
	for _, layer := range []string{"rror while dialing: ", "authentication handshake failed: ", "error reading server preface: "} {
		if _, inner, found := strings.Cut(message, layer); found {
			return strings.ReplaceAll(strings.TrimSuffix(inner, `"`), `\"`, `"`)
		}
	}
	var answer interface{ GRPCStatus() *status.Status }
	if errors.As(err, &answer) {
		return answer.GRPCStatus().Message()
	}
	return message
}
