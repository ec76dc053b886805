// Command shop is the application that Serinus is shown and tested with: three small services that can be told to
// misbehave, and a load generator that records what callers saw. It needs nothing but itself, so that an image holds
// one file.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
)

// build is the version of the program; the image sets it with -ldflags "-X main.build=…".
var build = "dev"

const usage = `shop: the application that Serinus is shown and tested with

  shop serve --role front|cart|stock   one of the services, on :8080 (HTTP/1.1 and h2c)
  shop load --url URL --rate N --duration D
                                       constant load, and a report of what callers saw on :9100
  shop discover                        the pods that Prometheus reads, on 127.0.0.1:9101
  shop version                         what this program is

"shop serve --help" and "shop load --help" list the settings. Every setting of serve can also be an environment
variable: --error-rate is ERROR_RATE.
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	var err error
	switch command, args := os.Args[1], os.Args[2:]; command {
	case "serve":
		err = serve(args)
	case "load":
		err = load(args)
	case "discover":
		err = discover(args)
	case "version", "--version":
		fmt.Printf("shop %s %s %s/%s\n", build, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	case "help", "--help", "-h":
		fmt.Print(usage)
	default:
		fmt.Fprintf(os.Stderr, "shop: %q is not a command; write serve, load, discover or version\n", command)
		os.Exit(2)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintf(os.Stderr, "shop: %v\n", err)
		os.Exit(1)
	}
}
