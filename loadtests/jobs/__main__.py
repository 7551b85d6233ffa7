"""Jobs over HTTP: what is lost when processes die, and what jobs cost the requests beside them.

python -m loadtests jobs chaos      every kind of process is killed while jobs run
python -m loadtests jobs takeover   the runner of a long job is killed near its end
python -m loadtests jobs beside     clips over HTTP, with and without jobs beside them
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from loadtests.jobs import beside, chaos, queue, stoppage, takeover

_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "chaos": chaos.main,
    "takeover": takeover.main,
    "beside": beside.main,
    "queue": queue.main,
    "stoppage": stoppage.main,
}


def main(given: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if given is None else list(given)
    command = _COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        print(__doc__)
        return 0 if arguments[:1] in (["--help"], ["-h"]) else 2
    return command(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
