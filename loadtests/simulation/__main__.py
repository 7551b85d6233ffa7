"""See the package."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

from loadtests.simulation.agreement import TOLERANCE
from loadtests.simulation.comparing import (
    CompareOptions,
    Comparison,
    agreements,
    compare,
    compare_kept,
)
from loadtests.simulation.measuring import measure
from serve_app.planning.costs import shipped_costs, write_costs
from serve_app.planning.generation import generate, parse_generation
from serve_app.planning.search import sized_for
from serve_app.planning.service_config import shape_of, speech_options
from serve_app.planning.simulation import RunOptions, simulate
from serve_app.planning.speech import DrawnSpeech
from serve_app.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests simulation", description="The simulator against a real service."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    comparison = commands.add_parser("compare", help="the same traces through both")
    comparison.add_argument("--rounds", type=int, default=3, help="traces, each 5 minutes in all")
    comparison.add_argument("--seconds", type=float, default=240.0, help="length of a trace")
    comparison.add_argument("--replicas", type=int, default=1)
    comparison.add_argument("--pack", help="recognizer pack instead of a made one")
    comparison.add_argument("--seed", type=int, default=1, help="of the first trace")
    comparison.add_argument("--costs-out", type=Path, help="write the last round's costs here")
    comparison.add_argument("--keep", type=Path, help="directory for what the service did")
    comparison.add_argument("--kept", type=Path, nargs="+", help="files of --keep; run nothing")
    measuring = commands.add_parser("measure", help="costs of a profile's models")
    measuring.add_argument("--profile", default="demo")
    measuring.add_argument("--pack", help="recognizer pack instead of the profile's")
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
        f"{num_replicas} recognizers, {result.utilization:.0%} busy; "
        f"queue delay p95 {result.queue_delay.p95_s:.3f} s"
    )
    print(
        f"{cpu_s:.1f} CPU s, {result.elapsed_s:.1f} s: {result.audio_hours / cpu_s:,.0f} h of "
        f"audio, {groups / cpu_s:,.0f} groups and {result.num_events / cpu_s:,.0f} events per "
        f"CPU second; {memory_mib:,.0f} MiB"
    )
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    keep: Path | None = arguments.keep
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    options = [
        CompareOptions(
            arguments.seconds,
            arguments.replicas,
            arguments.pack,
            seed,
            keep / f"trace-{seed}.json" if keep is not None else None,
        )
        for seed in range(arguments.seed, arguments.seed + arguments.rounds)
    ]
    found: list[Comparison] = []
    for path in arguments.kept or ():
        found.append(compare_kept(path, options[0]))
        _tell(path.name, found[-1])
    for each in options if not found else ():
        found.append(compare(each))
        _tell(f"seed {each.seed}", found[-1])
    if arguments.costs_out:
        write_costs(found[-1].costs, arguments.costs_out)
    return _report(found)


def _tell(name: str, found: Comparison) -> None:
    costs, result = found.costs, found.result
    print(f"{name}: costs, of every other stretch: {costs}")
    print(
        f"recognizer busy {found.busy:.0%}, simulated {result.utilization:.0%}; chunks in a batch "
        f"{found.items_per_batch:.2f}, {result.mean_batch_items:.2f}; batches took "
        f"{found.drift:.3f} of what the costs say; other programs took {found.intruded:.1%} of the "
        f"recognizers' cores; p50 and p95, simulated over real: queue delay "
        f"{' and '.join(f'{each.ratio:.2f}' for each in agreements([found]))}, requests' latency "
        f"{result.latency.p50_s / found.latency.p50_s:.2f} and "
        f"{result.latency.p95_s / found.latency.p95_s:.2f}",
        flush=True,
    )


def _report(found: list[Comparison]) -> int:
    num_chunks = sum(len(each.waits.real.waited_s) for each in found)
    print(f"queue delay of {num_chunks:,} chunks of {len(found)} traces")
    print("| | real s | simulated s | ratio | 95 % interval | within 15 % |")
    print("|---|---:|---:|---:|---|---|")
    queue = agreements(found)
    for each in queue:
        print(
            f"| p{each.percent} | {each.real_s:.3f} | {each.simulated_s:.3f} | {each.ratio:.2f} "
            f"| {each.low:.2f} to {each.high:.2f} | {'yes' if each.holds else 'no'} |"
        )
    held = all(each.holds for each in queue)
    print(f"queue delay p50 and p95 within {TOLERANCE:.0%}: {'yes' if held else 'no'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
