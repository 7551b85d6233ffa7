"""`paraserve models`: lists, downloads, verifies, exports and synthesizes model packs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serve_app.cli.console import console_for
from serve_app.cli.options import JsonOption, StoreOption
from serve_app.core.errors import PackError
from serve_app.packs import PackReport, PackStatus, PackStore, list_packs, pull, resolve, verify

models_app = typer.Typer(
    no_args_is_help=True, help="List, download, verify, export and synthesize model packs."
)

NameArgument = Annotated[
    str,
    typer.Argument(help="A registered name, ms:ORG/NAME\\[@REVISION], hf:... or dir:/PATH."),
]


@models_app.command("list")
def list_command(
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the known packs and whether they are on this machine."""
    packs = list_packs(_store(store))
    if as_json:
        typer.echo(json.dumps([asdict(pack) for pack in packs], indent=2))
        return
    console_for().print(_table(packs))


@models_app.command("pull")
def pull_command(
    name: Annotated[
        str | None,
        typer.Argument(help="A registered name, ms:ORG/NAME\\[@REVISION], hf:... or dir:/PATH."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", "-p", help="Download every pack that a profile needs."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Directory for the pack, instead of the store."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Download packs, verify them and print their directories.

    Mirrors: MODELSCOPE_ENDPOINT, HF_ENDPOINT. Proxy: HTTPS_PROXY. For a machine without a
    connection use --to, and copy the directory.
    """
    if (name is None) == (profile is None) or (profile is not None and to is not None):
        raise typer.BadParameter("give either a name, with or without --to, or --profile")
    pack_store = _store(store)
    names = [name] if name is not None else _packs_of(profile or "")
    with _errors_to_exit_code():
        for each in names:
            contents = pull(each, pack_store, _say, to=to)
            typer.echo(f"{each}: {contents.model_class} in {contents.directory}")
    if name is not None:
        _say_what_else(name, pack_store)


@models_app.command("verify")
def verify_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Packs to verify; by default all on this machine.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Verify the checksum of every file of packs. Exit code 1: one is wrong."""
    pack_store = _store(store)
    chosen = names or [pack.name for pack in list_packs(pack_store) if pack.present]
    failed = False
    for name in chosen:
        try:
            report = verify(name, pack_store)
        except PackError as error:
            typer.echo(str(error), err=True)
            failed = True
            continue
        _print_report(report)
        failed = failed or not report.ok
    if failed:
        raise typer.Exit(1)


@models_app.command("synth")
def synth_command(
    name: Annotated[
        str, typer.Argument(help="Name of the architecture; an unknown name lists all.")
    ],
    to: Annotated[Path, typer.Option("--to", help="Output directory; it must be empty.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random weights.")] = 0,
) -> None:
    """Write a pack of a published architecture with random weights, for benchmarks."""
    # Imports engines, which the other commands do not need.
    from serve_app.modeltools.random_packs import synthesize

    with _errors_to_exit_code():
        contents = synthesize(name, to, seed)
    typer.echo(f"{name}: random weights of a {contents.model_class} in {contents.directory}")


@models_app.command("export")
def export_command(
    name: NameArgument,
    to: Annotated[Path, typer.Argument(help="Output directory; it must be empty.")],
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="Precision of the large matrix products: int8 or float32."),
    ] = "int8",
    check: Annotated[
        bool, typer.Option(help="Compare both transcripts of the bundled recording.")
    ] = True,
    store: StoreOption = None,
) -> None:
    """Export a recognizer's pack to ONNX, for `recognizer.engine: onnx`."""
    # Imports engines, onnx and onnxruntime, which the other commands do not need.
    try:
        from serve_app.modeltools.onnx_export import export
        from serve_app.modeltools.onnx_export.check import check_export
    except ImportError as error:
        typer.echo(f"{error}; pip install 'paraserve[onnx]'", err=True)
        raise typer.Exit(1) from error

    with _errors_to_exit_code():
        original = resolve(name, _store(store))
        exported = export(original, to, dtype)
        typer.echo(f"{name}: {original.model_class} in {dtype} in {exported.directory}")
        if check:
            typer.echo(f"compared with PyTorch in float32: {check_export(original, exported)}")


def _packs_of(profile: str) -> list[str]:
    """Returns the names of a profile's packs, each once."""
    from serve_app.inference.loading import packs_of
    from serve_app.settings import load_settings

    return list(dict.fromkeys(each.name for each in packs_of(load_settings(profile))))


def _say_what_else(name: str, store: PackStore) -> None:
    """Names the packs that the profiles with this pack need and that are not here."""
    from serve_app.settings import profile_names

    known = {pack.name: pack for pack in list_packs(store)}
    for profile in profile_names():
        needed = _packs_of(profile)
        missing = [known[each] for each in needed if each in known and not known[each].present]
        if name in needed and missing:
            listed = ", ".join(f"{pack.name} ({_megabytes(pack.size_bytes)})" for pack in missing)
            command = f"paraserve models pull --profile {profile}"
            typer.echo(f"profile {profile} also needs {listed}: {command}", err=True)


def _store(root: Path | None) -> PackStore:
    return PackStore() if root is None else PackStore(root.expanduser().absolute())


@contextmanager
def _errors_to_exit_code() -> Iterator[None]:
    try:
        yield
    except PackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _say(activity: str, done_bytes: int, total_bytes: int | None) -> None:
    of_total = f" ({_megabytes(total_bytes)})" if total_bytes and not done_bytes else ""
    typer.echo(f"{activity}{of_total}", err=True)


def _print_report(report: PackReport) -> None:
    verdict = "ok" if report.ok else "WRONG"
    typer.echo(f"{report.name}: {verdict}, compared with {report.compared_with} checksums")
    for file in report.files:
        typer.echo(f"  {file.actual_sha256 or '-':64}  {file.path}  {file.problem or 'ok'}")
    if report.problem:
        typer.echo(f"  {report.problem}")


def _table(packs: tuple[PackStatus, ...]) -> Table:
    table = Table("name", "kind", "here", "size", "weights sha256", "source", "license")
    for pack in packs:
        table.add_row(
            pack.name,
            pack.kind.value if pack.kind else "?",
            "yes" if pack.present else "no",
            _megabytes(pack.size_bytes),
            pack.checksum[:12] if pack.checksum else "",
            pack.source,
            pack.license,
        )
    return table


def _megabytes(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"
