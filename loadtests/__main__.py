"""`python -m loadtests NAME`: runs one of the load tests."""

from __future__ import annotations

import runpy
import sys

NAMES = {
    "attack": "what an honest caller feels while others attack",
    "batch": "batch jobs that are killed, and jobs beside online traffic",
    "bench": "engines and stages against their peers",
    "chaos": "requests while processes are killed",
    "conformance": "generated requests against the OpenAPI document",
    "damage": "damaged recordings against what FFmpeg recovers",
    "drain": "requests under way when the service is told to stop",
    "fairness": "a short clip beside long files",
    "gpu": "the engines on a GPU against AutoModel",
    "load": "open-loop traffic of a mix of lengths",
    "long_audio": "memory over the length of a recording",
    "overload": "more than the service can do",
    "redeploy": "a slow upload while the service is scaled and redeployed",
    "simulation": "the capacity simulator against a real run",
    "square_wave": "autoscaling under load that comes and goes",
    "uploads": "mutated uploads",
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in NAMES:
        print(__doc__, *(f"  {one:12} {what}" for one, what in NAMES.items()), sep="\n")
        raise SystemExit(0 if name in ("-h", "--help") else 2)
    del sys.argv[1]
    runpy.run_module(f"loadtests.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
