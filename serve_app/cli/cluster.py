"""`paraserve cluster`: inspects and operates a release on Kubernetes."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.cli.console import console_for
from serve_app.cli.options import JsonOption, with_options
from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops import logs as log_reading
from serve_app.ops.cluster_checks import examine, exit_code
from serve_app.ops.clusters import age_text
from serve_app.ops.dashboard import open_dashboard
from serve_app.ops.kube import Kube, KubeContext, connect
from serve_app.ops.restart import (
    Choose,
    RestartLimits,
    all_workers,
    restart_pods,
    workers_of_group,
    workers_with,
)
from serve_app.ops.rollout import progress_of, wait_for_rollout
from serve_app.ops.scale import scale_deployment, scale_group
from serve_app.ops.scale_plan import ScaleRequest
from serve_app.ops.serve_config import DEPLOYMENTS
from serve_app.ops.service import find_service, pods_of, read_state
from serve_app.ops.status import DeploymentRow, Status, read_status

cluster_app = typer.Typer(no_args_is_help=True, help="Inspect and operate a release on Kubernetes.")

_WATCH_S = 5.0
_CANNOT_TELL = 2


@dataclass(frozen=True, slots=True)
class Release:
    """The RayService that a command works on.

    Attributes:
        name: of the RayService or of its Helm release; None if there is only one.
        context: its cluster and namespace.
    """

    name: str | None
    context: KubeContext

    def named(self, name: str | None) -> Release:
        """Returns the release with the name that was given as an argument, if any.

        Raises:
            BadParameter: `--name` gives another one.
        """
        if name is None:
            return self
        if self.name not in (None, name):
            raise typer.BadParameter(f"two names: {name} and --name {self.name}")
        return Release(name, self.context)


@dataclass(frozen=True, slots=True)
class Target:
    """The arguments of a command that works on a part of a release.

    Attributes:
        name: of the RayService; None if not given.
        part: one of the words that the command knows, in lower case; None if not given.
        group: worker group; None if not given.
    """

    name: str | None
    part: str | None
    group: str | None


def parse_target(words: Sequence[str], known: Collection[str], usage: str) -> Target:
    """Returns the target that arguments such as `NAME recognizer` or `group gpu` select.

    Args:
        words: the arguments; NAME may stand before or after the part.
        known: parts that the command knows.
        usage: arguments of the command, for messages.

    Raises:
        BadParameter: there are too many words, or `group` without a name.
    """
    name = part = group = None
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "group" and "group" in known and part is None:
            if not rest:
                raise typer.BadParameter(f"group needs the name of a worker group: {usage}")
            part, group = word, rest.pop(0)
        elif word.lower() in known and part is None:
            part = word.lower()
        elif name is None:
            name = word
        else:
            raise typer.BadParameter(f"unexpected argument {word}: {usage}")
    return Target(name, part, group)


NameArgument: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="RayService or Helm release; optional if there is only one."
    ),
]


def release_options(
    name: Annotated[
        str | None,
        typer.Option("--name", help="RayService or Helm release, in place of the argument NAME."),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Namespace; that of the context by default."),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Path of the kubeconfig; $KUBECONFIG or ~/.kube/config by default."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Context of the kubeconfig; the current one by default.")
    ] = None,
    in_cluster: Annotated[
        bool, typer.Option("--in-cluster", help="Use the service account of this pod.")
    ] = False,
    request_timeout: Annotated[
        float,
        typer.Option("--request-timeout", min=0.1, help="Timeout of a Kubernetes API call in s."),
    ] = 10.0,
) -> Release:
    """Returns the release that the options select."""
    return Release(name, KubeContext(namespace, kubeconfig, context, in_cluster, request_timeout))


@cluster_app.command("status")
@with_options(release_options)
def status_command(
    release: Release,
    service: NameArgument = None,
    as_json: JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every 5 s until Ctrl-C.")
    ] = False,
) -> None:
    """Show conditions, clusters, replicas, queues and GPUs."""
    release = release.named(service)
    kube = connect(release.context)
    console = console_for()
    while True:
        status = read_status(kube, release.name)
        if watch:
            console.clear()
        if as_json:
            typer.echo(json.dumps(asdict(status), ensure_ascii=False))
        else:
            _show(status, console)
        if not watch:
            return
        time.sleep(_WATCH_S)


@cluster_app.command("scale")
@with_options(release_options)
def scale_command(
    release: Release,
    target: Annotated[
        list[str],
        typer.Argument(
            help="A stage (ingress, segmenter, recognizer or punctuator), or `group` and the name "
            "of a worker group; before it, optionally the RayService or Helm release.",
        ),
    ],
    replicas: Annotated[int | None, typer.Option(help="Number of replicas.")] = None,
    minimum: Annotated[
        int | None, typer.Option("--min", help="Minimum number of replicas.")
    ] = None,
    maximum: Annotated[
        int | None, typer.Option("--max", help="Maximum number of replicas.")
    ] = None,
) -> None:
    """Scale a deployment or worker group. Later helm upgrades keep the new size."""
    usage = "write `scale recognizer ...` or `scale group gpu ...`"
    chosen = parse_target(target, {*DEPLOYMENTS, "group"}, usage)
    if chosen.part is None:
        stages = ", ".join(DEPLOYMENTS)
        raise typer.BadParameter(f"{' '.join(target)} is none of {stages}, group: {usage}")
    release = release.named(chosen.name)
    kube = connect(release.context)
    request = ScaleRequest(minimum, maximum, replicas)
    if chosen.group is not None:
        told = scale_group(kube, release.name, chosen.group, request)
    else:
        told = scale_deployment(kube, release.name, chosen.part, request)
    for sentence in told:
        typer.echo(sentence)


@cluster_app.command("rollout")
@with_options(release_options)
def rollout_command(
    release: Release,
    target: Annotated[
        list[str] | None,
        typer.Argument(
            help="`status` shows the progress of the rollout, `wait` (the default) waits for its "
            "end; after it, optionally the RayService or Helm release.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.0, help="Maximum time to wait in s.")] = 1200.0,
) -> None:
    """Follow a rollout. Exit code 1: it failed or is not complete."""
    chosen = parse_target(target or (), {"status", "wait"}, "write `rollout status` or `rollout`")
    release = release.named(chosen.name)
    kube = connect(release.context)
    if chosen.part != "status":
        wait_for_rollout(lambda: read_state(find_service(kube, release.name)), typer.echo, timeout)
        return
    progress = progress_of(read_state(find_service(kube, release.name)))
    typer.echo(progress.told)
    raise typer.Exit(0 if progress.is_done else 1)


@cluster_app.command("restart")
@with_options(release_options)
def restart_command(
    release: Release,
    target: Annotated[
        list[str] | None,
        typer.Argument(
            help="The pods to replace: `all` (the default), those with replicas of a stage such as "
            "`recognizer`, or those of `group` and the name of a worker group; before it, "
            "optionally the RayService or Helm release.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Maximum time per pod in s; by default its grace period, in which it finishes its "
            "requests, and 300 s.",
        ),
    ] = None,
    allow_downtime: Annotated[
        bool,
        typer.Option(
            "--allow-downtime",
            help="Restart even if there is no room for an additional worker, so that requests "
            "wait or are refused meanwhile.",
        ),
    ] = False,
) -> None:
    """Replace worker pods one by one without losing a request.

    Each worker group temporarily gets one more worker, to which the replicas move.
    """
    usage = "write `restart`, `restart recognizer` or `restart group gpu`"
    chosen = parse_target(target or (), {*DEPLOYMENTS, "all", "group"}, usage)
    choose: Choose = all_workers
    if chosen.group is not None:
        choose = workers_of_group(chosen.group)
    elif chosen.part not in (None, "all"):
        choose = workers_with(_deployment(chosen.part or ""))
    release = release.named(chosen.name)
    kube = connect(release.context)
    limits = RestartLimits(timeout, allow_downtime)
    count = restart_pods(kube, release.name, choose, typer.echo, limits)
    typer.echo(f"replaced {count} worker pods; the RayService is unchanged")


@cluster_app.command("logs")
@with_options(release_options)
def logs_command(
    release: Release,
    service: NameArgument = None,
    stage: Annotated[
        str | None,
        typer.Option(help="ingress, segmenter, recognizer or punctuator; all by default."),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Print only lines of this request (X-Request-ID).")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option(min=1, help="Number of lines to read from the end of each log.")
    ] = 1000,
    containers: Annotated[
        bool, typer.Option("--containers", help="Print the output of the pods' containers instead.")
    ] = False,
    previous: Annotated[
        bool,
        typer.Option(
            "--previous", help="With --containers: print the output before the last restart."
        ),
    ] = False,
) -> None:
    """Print log lines of the replicas."""
    if containers and (follow or stage):
        raise typer.BadParameter("--containers cannot be combined with --follow or --stage")
    release = release.named(service)
    kube = connect(release.context)
    if containers:
        _print_containers(kube, release.name, lines, previous, request_id)
        return
    found = find_service(kube, release.name)
    state = read_state(found)
    dashboard = open_dashboard(kube, found, state.active or state.pending)
    deployment = None if stage is None else _deployment(stage)

    def files() -> list[log_reading.LogFile]:
        return log_reading.replica_logs(dashboard.applications(), deployment)

    for source, line in log_reading.read_logs(dashboard, files, lines, follow):
        if log_reading.matches(line, request_id):
            typer.echo(f"{source} {line}")


@cluster_app.command("doctor")
@with_options(release_options)
def doctor_command(
    release: Release,
    service: NameArgument = None,
    as_json: JsonOption = False,
    hub: Annotated[
        bool, typer.Option(help="Check that the model hubs can be reached from here.")
    ] = True,
) -> None:
    """Diagnose problems and suggest remedies. Exit codes: 0 healthy, 1 problems, 2 unknown."""
    console = console_for()
    release = release.named(service)
    try:
        kube = connect(release.context)
        findings = list(examine(kube, release.name, hub))
    except ClusterRefused as error:
        typer.echo(f"cannot tell: {error}", err=True)
        raise typer.Exit(_CANNOT_TELL) from None
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    else:
        for finding in findings:
            mark = Text("✗ ", "red") if finding.is_certain else Text("? ", "yellow")
            text = Text(f"{finding.problem}\n  → {finding.remedy}", "default")
            console.print(mark.append_text(text))
        if not findings:
            console.print("no problems found")
    raise typer.Exit(exit_code(findings))


def _deployment(stage: str) -> str:
    if stage.lower() not in DEPLOYMENTS:
        raise typer.BadParameter(f"{stage} is not one of {', '.join(DEPLOYMENTS)}")
    return DEPLOYMENTS[stage.lower()]


def _print_containers(
    kube: Kube, name: str | None, lines: int, previous: bool, request_id: str | None
) -> None:
    for pod in pods_of(kube, read_state(find_service(kube, name)).clusters):
        pod_name = pod.at("metadata", "name").text()
        for container in pod.at("spec", "containers").each():
            container_name = container.at("name").text()
            try:
                found = log_reading.container_logs(kube, pod_name, container_name, lines, previous)
            except ClusterError as error:
                typer.echo(f"{pod_name}/{container_name}: {error}", err=True)
                continue
            for line in found:
                if log_reading.matches(line, request_id):
                    typer.echo(f"{pod_name}/{container_name} {line}")


def _show(status: Status, console: Console) -> None:
    state = status.state
    told = "; ".join(status.problems) or progress_of(state).told
    console.print(Text(state.name, "bold").append_text(Text(f": {told}", "default")))
    for condition in state.conditions:
        console.print(f"  {condition.kind} {condition.status} ({condition.reason})")
    clusters = Table("cluster", "role", "age", "state", "workers", "cores", "waits for")
    for cluster in status.clusters:
        workers = f"{cluster.ready_workers} of {cluster.desired_workers}"
        clusters.add_row(
            cluster.name,
            cluster.role,
            age_text(cluster.age_s),
            cluster.state,
            workers,
            cluster.cpus,
            cluster.waits_for or "-",
        )
    if status.clusters:
        console.print(clusters)
    table = Table("application", "deployment", "status", "replicas", "bounds", "GPU each", "queue")
    for row in status.deployments:
        size = str(row.minimum) if row.minimum == row.maximum else f"{row.minimum}-{row.maximum}"
        gpus = f"{row.num_gpus:g}" if row.num_gpus else "-"
        table.add_row(
            row.application, row.name, row.status, _replicas(row), size, gpus, _waits(row)
        )
    console.print(table)
    groups = Table("worker group", "pods ready", "wanted", "bounds", "GPUs each")
    for group in status.groups:
        ready = "?" if group.ready is None else str(group.ready)
        bounds = f"{group.minimum}-{group.maximum}"
        groups.add_row(group.name, ready, str(group.replicas), bounds, str(group.gpus_per_pod))
    console.print(groups)
    console.print(f"GPUs: {status.gpus_needed} needed, up to {status.gpus_offered} available")
    for note in status.notes:
        console.print(f"? {note}", style="yellow")


def _replicas(row: DeploymentRow) -> str:
    running = "?" if row.running is None else str(row.running)
    return f"{running} of {'?' if row.target is None else row.target}"


def _waits(row: DeploymentRow) -> str:
    return "?" if row.waiting is None else f"{row.waiting:.0f} {row.waiting_unit}"
