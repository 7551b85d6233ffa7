"""`paraserve plan`: estimates how many GPUs a trace needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from serve_app.cli.console import console_for, tell
from serve_app.cli.options import ProfileOption, SetOption
from serve_app.core.errors import ConfigurationError
from serve_app.planning.costs import Costs, read_costs, shipped_costs
from serve_app.planning.generation import generate, parse_generation
from serve_app.planning.report import (
    check_plotting,
    class_table,
    gpus_of,
    plot_trial,
    recognizers_of,
    trial_table,
    write_plan,
)
from serve_app.planning.results import RunResult
from serve_app.planning.search import Goal, Plan, Planner, Trial, sized_for
from serve_app.planning.service_config import ServiceShape, scaling_limits, shape_of, speech_options
from serve_app.planning.simulation import RunOptions
from serve_app.planning.speech import DrawnSpeech
from serve_app.planning.trace import Trace, read_trace, write_trace
from serve_app.settings import Settings, load_settings

_BY_ITEM_HOURS = 300.0
_WHOLE_HOURS = 3000.0


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Options of the command; its help explains them."""

    trace: Path | None
    generate: str | None
    goal: Goal
    costs: Path | None
    out: Path | None
    scale: float
    search_hours: float
    keep_sizes: bool
    autoscale: bool
    plots: bool
    mtbf_hours: float | None
    price: float | None
    seed: int
    labeled_share: float = 1.0


def run_plan(request: PlanRequest, settings: Settings, profile: str, console: Console) -> Plan:
    """Simulates services of several sizes and prints the smallest that meets the goal.

    Raises:
        ConfigurationError: the trace, the costs or the goal is invalid.
    """
    if request.plots and request.out is not None:
        check_plotting()
    trace = _trace(request)
    costs = read_costs(request.costs) if request.costs else shipped_costs(profile)
    shape = _shape(request, settings, trace, costs)
    drawn = speech_options(settings, costs.frame_s)
    by_item = trace.audio_hours <= _BY_ITEM_HOURS
    options = RunOptions(
        seed=request.seed,
        by_item=by_item,
        chunks_per_group=DrawnSpeech(drawn, request.seed).mean_chunks_per_group,
    )
    planner = Planner(
        trace,
        shape,
        costs,
        lambda: DrawnSpeech(drawn, request.seed),
        options,
        request.goal,
        lambda trial: _print_trial(trial, request.goal, console),
    )
    if trace.audio_hours > _WHOLE_HOURS or trace.span_s > 2 * request.search_hours * 3600:
        planner.search_in(request.search_hours * 3600)
    _print_workload(trace, shape, costs, by_item, console)
    plan = planner.plan(scaling_limits(settings) if request.autoscale else None)
    _report(plan, request, shape, costs, console)
    return plan


def _trace(request: PlanRequest) -> Trace:
    if (request.trace is None) == (request.generate is None):
        raise ConfigurationError("give either a trace file or --generate")
    if request.trace is not None:
        trace = read_trace(request.trace)
    else:
        trace = generate(parse_generation(request.generate or ""), request.seed)
    if not 0 < request.scale <= 1:
        raise ConfigurationError("--scale must be above 0 and at most 1")
    if request.scale < 1:
        trace = trace.thinned(request.scale, request.seed)
    if not len(trace):
        raise ConfigurationError("the trace has no requests")
    return trace


def _shape(request: PlanRequest, settings: Settings, trace: Trace, costs: Costs) -> ServiceShape:
    shape = replace(shape_of(settings), labeled_share=request.labeled_share)
    if shape.embedder is not None:
        costs.speaker_costs()
    if request.mtbf_hours is not None:
        shape = replace(shape, mtbf_s=request.mtbf_hours * 3600)
    return shape if request.keep_sizes else sized_for(trace, shape, costs)


def _print_workload(
    trace: Trace, shape: ServiceShape, costs: Costs, by_item: bool, console: Console
) -> None:
    console.print(
        f"{len(trace):,} requests, {trace.audio_hours:,.1f} h of audio over "
        f"{trace.span_s / 3600:.2f} h; {shape.num_ingresses} ingresses, "
        f"{shape.num_segmenters} segmenters{_embedders_of(shape)}; "
        f"simulated by {'chunk' if by_item else 'group'}",
        highlight=False,
    )
    console.print(f"costs: {costs.origin}", markup=False)
    for name, reason in costs.assumed.items():
        tell("warning", f"assumed, not measured: {name}: {reason}", console)


def _embedders_of(shape: ServiceShape) -> str:
    if shape.embedder is None:
        return ""
    return f", {shape.num_embedders} speaker embedders for {shape.labeled_share:.0%} of them"


def _print_trial(trial: Trial, goal: Goal, console: Console) -> None:
    waits = goal.measured(trial.result)
    console.print(
        f"{recognizers_of(trial)} recognizers, "
        f"{'whole trace' if trial.whole else 'busiest period'}: p95 {waits.p95_s:.2f} s, "
        f"refused {trial.result.refused_share:.2%} ({trial.result.elapsed_s:.1f} s)",
        style="dim",
    )


def _report(
    plan: Plan, request: PlanRequest, shape: ServiceShape, costs: Costs, console: Console
) -> None:
    console.print(trial_table(plan.trials, request.goal, shape))
    for trial in (plan.fixed, plan.scaled):
        if trial is None:
            continue
        result = trial.result
        cost = f", {result.gpu_hours * request.price:,.2f} at the price" if request.price else ""
        text = Text(
            f"{recognizers_of(trial)} recognizers"
            f"{' that follow the load' if trial.mode == 'scaled' else ''}: "
            f"{gpus_of(trial, shape)} GPUs at the peak, {result.gpu_hours:,.1f} GPU hours, "
            f"{result.replica_hours:,.1f} replica hours{cost}{_embedding_of(shape, result)}",
            "bold",
        )
        changes = (
            f"; {result.num_scalings} changes of size, {result.num_reversals} of them reversals"
        )
        console.print(text.append(changes, "default"))
        console.print(class_table(result))
    if request.autoscale and plan.scaled is None:
        console.print("no autoscaled service within these limits meets the goal")
    if request.out is not None:
        _write(plan, request, shape, costs, request.out, console)


def _embedding_of(shape: ServiceShape, result: RunResult) -> str:
    if shape.embedder is None:
        return ""
    return f"; speaker embedders {result.embedder_utilization:.0%} busy"


def _write(
    plan: Plan,
    request: PlanRequest,
    shape: ServiceShape,
    costs: Costs,
    out: Path,
    console: Console,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_plan(plan, request.goal, shape, costs, request.price, out / "plan.json")
    written = ["plan.json"]
    for trial in (plan.fixed, plan.scaled):
        if trial is not None and request.plots:
            name = f"plan-{trial.mode}.png"
            plot_trial(trial, f"{recognizers_of(trial)} recognizers", out / name)
            written.append(name)
    console.print(f"wrote {', '.join(written)} in {out}", markup=False)


def plan_command(
    trace: Annotated[
        Path | None, typer.Argument(help="CSV file with columns arrival_s,audio_s[,key[,weight]].")
    ] = None,
    p95_s: Annotated[
        float, typer.Option(min=0.0, help="Goal: 95th percentile of the waiting time in s.")
    ] = 10.0,
    of: Annotated[
        Literal["queue", "latency"],
        typer.Option(help="Time to limit: in queues, or from arrival to response."),
    ] = "queue",
    max_refused: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Maximum share of refused requests.")
    ] = 0.001,
    profile: ProfileOption = "paraformer-large",
    set_: SetOption = None,
    costs: Annotated[
        Path | None,
        typer.Option(help="File of measured costs; those of the profile by default."),
    ] = None,
    generate_: Annotated[
        str | None,
        typer.Option(
            "--generate", help="Generate a trace, such as day:100000h or poisson:500h/2h."
        ),
    ] = None,
    save_trace: Annotated[
        Path | None, typer.Option(help="Write the generated trace to this file and exit.")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Share of the requests to simulate, drawn at random.")
    ] = 1.0,
    search_hours: Annotated[
        float, typer.Option(min=0.01, help="Search on the busiest period of this many hours.")
    ] = 1.5,
    keep_sizes: Annotated[
        bool, typer.Option(help="Keep the profile's numbers of segmenters and ingresses.")
    ] = False,
    autoscale: Annotated[bool, typer.Option(help="Plan with autoscaling as well.")] = True,
    labeled: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the requests that ask for speaker labels, where the profile has the "
            "stage speakers.",
        ),
    ] = 1.0,
    mtbf_hours: Annotated[
        float | None,
        typer.Option(min=0.001, help="Mean time between failures of a recognizer, in hours."),
    ] = None,
    price: Annotated[float | None, typer.Option(min=0.0, help="Price of one GPU hour.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory for plan.json and plots.")
    ] = None,
    plots: Annotated[bool, typer.Option(help="Write plots to --out.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
) -> None:
    """Estimate how many GPUs a trace needs to keep its waiting time."""
    console = console_for()
    if save_trace is not None:
        made = generate(parse_generation(generate_ or ""), seed)
        write_trace(made, save_trace)
        size = f"{len(made):,} requests, {made.audio_hours:,.1f} h"
        console.print(f"wrote {size}, to {save_trace}", markup=False)
        return
    goal = Goal(p95_s, of, max_refused)
    request = PlanRequest(
        trace, generate_, goal, costs, out, scale, search_hours, keep_sizes, autoscale, plots,
        mtbf_hours, price, seed, labeled,
    )  # fmt: skip
    run_plan(request, load_settings(profile, set_), Path(profile).stem, console)
