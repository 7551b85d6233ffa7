"""The capacity simulator held against a service that really runs.

python -m loadtests simulation measure --out costs.json
python -m loadtests simulation compare
python -m loadtests simulation speed --hours 1000
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from loadtests.harness.report import Report, parse, parser
from loadtests.simulation.agreement import TOLERANCE
from loadtests.simulation.comparing import Comparison, agreements, compared, real_run
from loadtests.simulation.measuring import measure, with_speakers
from loadtests.simulation.service_run import RealRun
from serve_app.planning.costs import shipped_costs, write_costs
from serve_app.planning.generation import generate, parse_generation
from serve_app.planning.search import sized_for
from serve_app.planning.service_config import shape_of, speech_options
from serve_app.planning.simulation import RunOptions, simulate
from serve_app.planning.speech import DrawnSpeech
from serve_app.settings import Settings


def main(given: Sequence[str] | None = None) -> int:
    options = parse(_parser(), given)
    run = {"compare": _compare, "measure": _measure, "speed": _speed}[options.command]
    with Report(f"simulation-{options.command}", options) as report:
        run(options, report)
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    made = parser("simulation", __doc__)
    commands = made.add_subparsers(dest="command", required=True)
    add = commands.add_parser("compare", help="the same traces through both").add_argument
    add("--rounds", type=int, default=3, help="traces, each 5 minutes in all")
    add("--seconds", type=float, default=240.0, help="length of a trace")
    add("--replicas", type=int, default=1)
    add("--pack", help="recognizer pack instead of a made one")
    add("--seed", type=int, default=1, help="of the first trace")
    add("--keep", type=Path, help="directory for what the service did")
    add("--kept", type=Path, nargs="+", default=[], help="files of --keep; run nothing")
    add = commands.add_parser("measure", help="costs of a profile's models").add_argument
    add("--profile", default="demo")
    add("--pack", help="recognizer pack instead of the profile's")
    add("--punctuation-pack", help="likewise")
    add("--speaker-pack", help="likewise")
    add("--speakers-only", action="store_true", help="keep the profile's other costs")
    add("--repeats", type=int, default=5)
    add("--out", type=Path, required=True, dest="costs", help="file for the costs")
    add = commands.add_parser("speed", help="how fast the simulator is").add_argument
    add("--hours", type=float, default=1000.0)
    add("--replicas", type=int, default=0, help="0 for 60 %% load")
    return made


def _measure(options: argparse.Namespace, report: Report) -> None:
    values: dict[str, object] = {"profile": options.profile}
    if options.pack:
        values["recognizer"] = {"pack": options.pack}
    if options.punctuation_pack:
        values["punctuator"] = {"pack": options.punctuation_pack}
    if options.speaker_pack:
        values["speaker_embedder"] = {"pack": options.speaker_pack}
    settings = Settings.model_validate(values)
    name = Path(options.profile).stem
    if options.speakers_only:
        costs = with_speakers(shipped_costs(name), settings, options.repeats)
    else:
        costs = measure(settings, name, options.repeats)
    write_costs(costs, options.costs)
    report.table("Costs", ("of", "fixed s", "s a unit", "s an item"), (costs.origin,))
    for name, cost in (
        ("recognizer, a batch of frames", costs.recognizer),
        ("segmenter, a second of audio", costs.segmenter),
        ("punctuator, a batch of words", costs.punctuator),
        ("speaker embedder, a batch of windows", costs.embedder),
        ("clustering, the windows of a recording", costs.clustering),
    ):
        if cost is None:
            continue
        report.row(name, *(f"{value:.3g}" for value in (cost.fixed_s, cost.unit_s, cost.item_s)))
    report.note(f"written to {options.costs}")


def _speed(options: argparse.Namespace, report: Report) -> None:
    settings = Settings.model_validate({"profile": "paraformer-large"})
    costs = shipped_costs("paraformer-large")
    trace = generate(parse_generation(f"day:{options.hours}h"), 1)
    speech = DrawnSpeech(speech_options(settings, costs.frame_s), 1)
    shape = sized_for(trace, shape_of(settings), costs)
    busiest = trace.between(*trace.busiest(3600.0))
    load = float(busiest.audio_s.sum()) / 3600 / costs.recognizer_rtfx
    num_replicas = options.replicas or max(1, round(load / 0.6))
    run_options = RunOptions(by_item=False, chunks_per_group=speech.mean_chunks_per_group)
    cpu_s = time.process_time()
    result = simulate(trace, shape.with_recognizers(num_replicas), costs, speech, run_options)
    cpu_s = time.process_time() - cpu_s
    groups = result.item_delay.num
    report.table(
        f"{result.num_requests:,} requests, {result.audio_hours:,.0f} h, {groups:,} groups",
        ("recognizers", "busy", "queue delay p95 s", "wall s", "CPU s", "MiB"),
    )
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    busy, delay_s = f"{result.utilization:.0%}", f"{result.queue_delay.p95_s:.3f}"
    report.row(str(num_replicas), busy, delay_s, result.elapsed_s, cpu_s, f"{memory_mib:,.0f}")
    report.note(
        f"{result.audio_hours / cpu_s:,.0f} h of audio, {groups / cpu_s:,.0f} groups and "
        f"{result.num_events / cpu_s:,.0f} events per CPU second"
    )


def _compare(options: argparse.Namespace, report: Report) -> None:
    table = report.table(
        "Real and simulated service by trace",
        ("trace", "busy", "simulated", "chunks in a batch", "simulated", "batches over costs"),
        ("other programs: what they took of the recognizers' cores",),
    )
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    found: list[Comparison] = []
    seeds = range(options.seed, options.seed + options.rounds)
    for source in options.kept or seeds:
        if isinstance(source, Path):
            name, seed, real = source.name, options.seed, RealRun.kept(source)
        else:
            name, seed = f"seed {source}", source
            real = real_run(options.seconds, options.replicas, options.pack, seed)
            if options.keep is not None:
                real.keep(options.keep / f"trace-{seed}.json")
        found.append(compared(real, options.replicas, seed))
        one, result = found[-1], found[-1].result
        busy = (f"{one.busy:.0%}", f"{result.utilization:.0%}")
        items = (one.items_per_batch, result.mean_batch_items, f"{one.drift:.3f}")
        report.row(name, *busy, *items, table=table)
        report.note(
            f"{name}: other programs {one.intruded:.1%}; simulated over real, p50 and p95: queue "
            f"delay {' and '.join(f'{each.ratio:.2f}' for each in agreements([one]))}, latency "
            f"{result.latency.p50_s / one.latency.p50_s:.2f} and "
            f"{result.latency.p95_s / one.latency.p95_s:.2f}; costs: {one.costs}",
            table=table,
        )
    num_chunks = sum(len(each.waits.real.waited_s) for each in found)
    report.table(
        f"Queue delay of {num_chunks:,} chunks of {len(found)} traces",
        ("", "real s", "simulated s", "ratio", "95 % interval"),
    )
    for each in agreements(found):
        times_s = (f"{each.real_s:.3f}", f"{each.simulated_s:.3f}")
        interval = f"{each.low:.2f} to {each.high:.2f}"
        report.row(f"p{each.percent}", *times_s, each.ratio, interval)
        report.promise(
            f"queue delay p{each.percent} within {TOLERANCE:.0%}", f"{each.ratio:.2f}", each.holds
        )


if __name__ == "__main__":
    sys.exit(main())
