"""`paraserve bench`: measures memory and speed on this machine."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.options import JsonOption, StoreOption
from serve_app.core.errors import PackError, ParaserveError
from serve_app.core.paths import default_pack_dir
from serve_app.modeltools.memory_bench import (
    choose_packs,
    markdown,
    measure_rows,
    rows_of,
)
from serve_app.modeltools.memory_bench.rows import choose_rows, roles_of
from serve_app.packs import PackStore

bench_app = typer.Typer(no_args_is_help=True, help="Measure on this machine.")


@bench_app.callback()
def bench() -> None:
    """Makes Typer keep `memory` as a subcommand although it is the only one."""


@bench_app.command("memory")
def memory_command(
    packs: Annotated[
        list[str] | None,
        typer.Option(
            "--packs",
            help="Pack for a role, such as asr=dir:/PATH; repeatable. Roles: vad, asr, "
            "punctuation, speakers, small_asr, small_punctuation, onnx.",
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", help="Measure only this row, such as asr; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: cpu or cuda.")] = "cpu",
    seconds: Annotated[
        float, typer.Option(min=1, help="Duration of the synthesized audio in s.")
    ] = 60.0,
    num_threads: Annotated[
        int, typer.Option(min=1, help="Number of compute threads per stage.")
    ] = 1,
    synth_dir: Annotated[
        Path | None,
        typer.Option(help="Directory of packs with random weights; they are reused."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure memory, load time and speed of each stage, alone and together.

    Each row runs in a new process. Packs that are not on this machine are replaced by
    random weights of the published architecture (about 2.7 GB on disk).
    """
    pack_dir = default_pack_dir() if store is None else store.expanduser().absolute()
    random_dir = pack_dir.parent / "bench-packs" if synth_dir is None else synth_dir.expanduser()
    needed = roles_of(rows or [], device)
    try:
        chosen = choose_packs(_roles(packs), PackStore(pack_dir), random_dir, _say, needed)
    except (PackError, ParaserveError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    measured = list(
        measure_rows(
            choose_rows(rows_of(chosen, device), rows or []),
            device=device,
            num_threads=num_threads,
            seconds=seconds,
            pack_dir=pack_dir,
            before=lambda row: _say(f"measuring {row.title}"),
        )
    )
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in measured], indent=2))
    else:
        threads = "1 thread" if num_threads == 1 else f"{num_threads} threads"
        typer.echo(f"{_machine()}; {threads}, {seconds:g} s of audio\n")
        typer.echo(markdown(measured))
    if any(row.problem for row in measured):
        raise typer.Exit(1)


def _roles(given: list[str] | None) -> dict[str, str]:
    roles: dict[str, str] = {}
    for assignment in given or []:
        role, separator, name = assignment.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{assignment!r} is not of the form role=pack")
        path = Path(name).expanduser()
        roles[role] = f"dir:{path.absolute()}" if path.is_dir() else name
    return roles


def _machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}"


def _say(message: str) -> None:
    typer.echo(message, err=True)
