package peers

import (
	_ "embed"

	"github.com/retriable-kafka/retriable-go/integration/interop"
)

// PythonClient is the version of retriable-kafka-client.
const PythonClient = interop.Version

//go:embed contestant.py
var python string

// Python returns the command line for the Python client, less the job. It needs Python 3.13 and, the first time, PyPI.
func Python() ([]string, error) {
	interpreter, err := interop.Interpreter()
	if err != nil {
		return nil, err
	}
	return []string{interpreter, "-c", python}, nil
}
