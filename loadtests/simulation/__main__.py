"""See the package."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

from loadtests.simulation.comparing import CompareOptions, Comparison, compare
from loadtests.simulation.measuring import measure
from serve_app.planning.costs import shipped_costs, write_costs
from serve_app.planning.generation import generate, parse_generation
from serve_app.planning.search import sized_for
from serve_app.planning.shape import shape_of, speech_options
from serve_app.planning.simulation import RunOptions, simulate
from serve_app.planning.speech import DrawnSpeech
from serve_app.settings import Settings

_TOLERANCE = 0.15


def main() -> int:
    parser = argparse.ArgumentParser(description="The simulator against a real service.")
    commands = parser.add_subparsers(dest="command", required=True)
    comparison = commands.add_parser("compare", help="one trace through both")
    comparison.add_argument("--seconds", type=float, default=150.0)
    comparison.add_argument("--calibration-s", type=float, default=40.0)
    comparison.add_argument("--load", type=float, default=0.7)
    comparison.add_argument("--replicas", type=int, default=1)
    comparison.add_argument("--no-bursts", action="store_true")
    comparison.add_argument("--in-process", action="store_true", help="without Ray and HTTP")
    comparison.add_argument("--seed", type=int, default=1)
    comparison.add_argument("--costs-out", type=Path, help="write the measured costs here")
    comparison.add_argument("--keep", type=Path, help="write what the service did here")
    comparison.add_argument("--kept", type=Path, help="read it from here, run nothing")
    measuring = commands.add_parser("measure", help="costs of a profile's models")
    measuring.add_argument("--profile", default="demo")
    measuring.add_argument("--pack", help="recogniser pack instead of the profile's")
    measuring.add_argument("--punctuation-pack", help="likewise")
    measuring.add_argument("--repeats", type=int, default=5)
    measuring.add_argument("--out", type=Path, required=True)
    speed = commands.add_parser("speed", help="how fast the simulator is")
    speed.add_argument("--hours", type=float, default=1000.0)
    speed.add_argument("--replicas", type=int, default=0, help="0 for 60 %% load")
    arguments = parser.parse_args()
    return {"compare": _compare, "measure": _measure, "speed": _speed}[arguments.command](arguments)


def _measure(arguments: argparse.Namespace) -> int:
    values: dict[str, object] = {"profile": arguments.profile}
    if arguments.pack:
        values["recognizer"] = {"pack": arguments.pack}
    if arguments.punctuation_pack:
        values["punctuator"] = {"pack": arguments.punctuation_pack}
    costs = measure(
        Settings.model_validate(values), Path(arguments.profile).stem, arguments.repeats
    )
    write_costs(costs, arguments.out)
    print(json.dumps(asdict(costs), indent=2))
    return 0


def _speed(arguments: argparse.Namespace) -> int:
    settings = Settings.model_validate({"profile": "paraformer-large"})
    costs = shipped_costs("paraformer-large")
    trace = generate(parse_generation(f"day:{arguments.hours}h"), 1)
    speech = DrawnSpeech(speech_options(settings, costs.frame_s), 1)
    shape = sized_for(trace, shape_of(settings), costs)
    busiest = trace.between(*trace.busiest(3600.0))
    load = float(busiest.audio_s.sum()) / 3600 / costs.recognizer_rtfx
    num_replicas = arguments.replicas or max(1, round(load / 0.6))
    options = RunOptions(by_item=False, chunks_per_group=speech.mean_chunks_per_group)
    cpu_s = time.process_time()
    result = simulate(trace, shape.with_recognizers(num_replicas), costs, speech, options)
    cpu_s = time.process_time() - cpu_s
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    groups = result.item_delay.num
    print(f"{result.num_requests:,} requests, {result.audio_hours:,.0f} h, {groups:,} groups")
    print(
        f"{num_replicas} recognisers, {result.utilization:.0%} busy; "
        f"queue delay p95 {result.queue_delay.p95_s:.3f} s"
    )
    print(
        f"{cpu_s:.1f} CPU s, {result.elapsed_s:.1f} s: {result.audio_hours / cpu_s:,.0f} h of "
        f"audio, {groups / cpu_s:,.0f} groups and {result.num_events / cpu_s:,.0f} events per "
        f"CPU second; {memory_mib:,.0f} MiB"
    )
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    options = CompareOptions(
        arguments.seconds,
        arguments.calibration_s,
        arguments.load,
        arguments.replicas,
        not arguments.no_bursts,
        arguments.in_process,
        arguments.seed,
        arguments.keep,
        arguments.kept,
    )
    found = compare(options)
    if arguments.costs_out:
        arguments.costs_out.write_text(json.dumps(asdict(found.costs), indent=2) + "\n")
    return _report(found)


def _report(found: Comparison) -> int:
    print(f"recogniser busy {found.load:.0%}; others left {found.cores_left:.2f} cores")
    print(f"costs: {found.costs}")
    print("| time | percentile | real s | simulated s | ratio |")
    print("|---|---|---:|---:|---:|")
    held = True
    for name, real in found.real.items():
        simulated = found.simulated[name]
        for percentile in ("p50_s", "p95_s"):
            one, other = getattr(real, percentile), getattr(simulated, percentile)
            ratio = other / one if one > 0 else float("inf")
            if name.startswith("queue"):
                held = held and abs(ratio - 1.0) <= _TOLERANCE
            print(f"| {name} | {percentile[:3]} | {one:.4f} | {other:.4f} | {ratio:.2f} |")
    num = found.real["queue delay of a chunk"].num
    print(f"{num} chunks; queue delay within {_TOLERANCE:.0%}: {'yes' if held else 'no'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
