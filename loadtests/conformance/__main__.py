"""Does the API answer as its OpenAPI document says, whatever it is sent?

    python -m loadtests conformance [--cases 2000] [--seed 0] [--url http://127.0.0.1:8000]

Starts the demo profile on this machine, unless an address is given, and has Schemathesis
send requests that it makes up from the document, well-formed ones and others. A fault is an
answer of 5xx, a status, content type or header that is not documented, or a body or header
that is not as its schema.
Exit code 0 if there was none, and at least as many cases were sent as were asked for.

Needs the extra `conformance`, or `--schemathesis` with the path of the command.
"""

from __future__ import annotations

import argparse
import sys

from loadtests.conformance.running import find_schemathesis, run
from loadtests.load.target import RemoteRefused, check_local, own_settings, service
from serve_app.core.errors import ConfigurationError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests conformance",
        description="Compares the API with its OpenAPI document.",
    )
    parser.add_argument("--cases", type=int, default=2000, help="Number of requests at least.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="Of a service that runs already.")
    parser.add_argument("--max-minutes", type=float, default=30.0)
    parser.add_argument("--schemathesis", help="Path of the command.")
    arguments = parser.parse_args()
    command = arguments.schemathesis or find_schemathesis()
    if command is None:
        print("schemathesis is missing: pip install 'paraserve[conformance]'", file=sys.stderr)
        return 2
    try:
        if arguments.url is not None:
            check_local(arguments.url, allow_remote=False)
        with service(arguments.url, own_settings()) as url:
            return run(command, url, arguments.cases, arguments.seed, arguments.max_minutes)
    except (RemoteRefused, ConfigurationError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
