"""`python -m loadtests NAME`: runs one of the load tests."""

from __future__ import annotations

import runpy
import sys

COMMANDS = {
    "attack": "latency of an honest caller while others attack",
    "batch": "batch jobs that are killed, and jobs beside online traffic",
    "bench": "engines and stages against their peers",
    "chaos": "requests while replicas and nodes are killed at random",
    "conformance": "generated requests against the OpenAPI document",
    "damage": "damaged recordings against what FFmpeg recovers",
    "drain": "requests in flight when the service gets SIGTERM",
    "fairness": "a short clip beside long files",
    "gpu": "the engines on a GPU against AutoModel",
    "jobs": "jobs over HTTP while processes are killed",
    "live": "sessions of live transcription at real-time pace",
    "load": "open-loop traffic of mixed lengths",
    "long-audio": "memory over the length of a recording",
    "outages": "what the loss of each kind of process costs a client that retries",
    "overload": "several times the load that the service can take",
    "redeploy": "a slow upload while the service is scaled and redeployed",
    "simulation": "the capacity simulator against a real run",
    "speakers": "who spoke when, against FunASR's pipeline",
    "square-wave": "autoscaling under load that comes and goes",
    "start": "the time until the service is ready, by process",
    "uploads": "malformed uploads by the thousand",
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        print(__doc__, *(f"  {one:12} {what}" for one, what in COMMANDS.items()), sep="\n")
        raise SystemExit(0 if name in ("-h", "--help") else 2)
    del sys.argv[1]
    module = f"loadtests.{name.replace('-', '_')}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
