"""The cluster and the release of the end-to-end tests, and their table."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import helm_python as helm
import pytest
from _pytest.capture import CaptureManager
from _pytest.terminal import TerminalReporter

from serve_app.packs import PackContents
from tests.deploy.cluster import assets
from tests.e2e.node import HOW_TO_GET_IT, missing, real_nodes
from tests.e2e.operator import OPERATOR_IMAGE, PlayedOperator, operator_pod
from tests.e2e.release import NAMESPACE, ReleaseUnderTest, Target
from tests.e2e.traffic import Row, Table, line, load

_TABLE = pytest.StashKey[Table]()
_STARTED = pytest.StashKey[float]()
_TAGS = ("e2e-1", "e2e-2")
_NUM_NODES = 2
# What a step takes, and the uninstall after it.
_STEP_S = 150.0


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = Table()
    config.stash[_STARTED] = time.monotonic()


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[_TABLE]
    if table.rows:
        terminalreporter.section("requests during each step")
        terminalreporter.write_line(table.text())


@pytest.fixture(scope="session")
def target(vad_pack: PackContents) -> Iterator[Target]:
    """A cluster: real nodes on this machine and a played operator, or one of yours."""
    if os.environ.get("E2E_OPERATOR") == "real":
        yield _your_cluster()
        return
    found = assets()
    lacks = ["KUBEBUILDER_ASSETS", "KUBERAY_CRDS"] if found is None else missing(found[0])
    if found is None or lacks:
        reason = f"{HOW_TO_GET_IT} Missing here: {', '.join(lacks)}."
        if os.environ.get("E2E_MUST_RUN"):
            pytest.fail(reason)
        pytest.skip(reason)
    # A run that is told to end takes its nodes down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    images = [*(f"docker.io/library/paraserve:{tag}" for tag in _TAGS), OPERATOR_IMAGE]
    with real_nodes(*found, vad_pack.directory, images, _NUM_NODES) as machine:
        for path, body in operator_pod():
            machine.api.create(path, body)
        operator = PlayedOperator(machine.api, NAMESPACE, cron_gate=True)
        with operator.running():
            yield Target(machine.kubeconfig, "paraserve", _TAGS, is_played=True)


def _your_cluster() -> Target:
    given = [os.environ.get(name) for name in ("KUBECONFIG", "E2E_IMAGE", "E2E_TAGS")]
    if not all(given):
        pytest.fail("give KUBECONFIG=..., IMAGE=... (without a tag) and TAGS=FIRST,SECOND")
    kubeconfig, repository, tags = (str(value) for value in given)
    first, last = tags.split(",")[0], tags.split(",")[-1]
    return Target(Path(kubeconfig), repository, (first, last), is_played=False)


@pytest.fixture(scope="session")
def release(target: Target) -> Iterator[ReleaseUnderTest]:
    """Helm and a namespace; the first test installs the release, the last removes it."""
    with helm.Config(kubeconfig_path=target.kubeconfig, namespace=NAMESPACE) as releases:
        found = ReleaseUnderTest(target, releases)
        found.kubectl("create", "namespace", NAMESPACE)
        try:
            found.prepare()
            yield found
        finally:
            if not target.is_played:
                with contextlib.suppress(helm.HelmError):
                    found.uninstall()
                found.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Steps:
    """Begins the steps, each a row of the table."""

    def __init__(self, release: ReleaseUnderTest, config: pytest.Config) -> None:
        self._release = release
        self._table = config.stash[_TABLE]
        self._plugins = config.pluginmanager
        self._rate = float(os.environ.get("E2E_RATE", "2"))
        budget_s = float(os.environ.get("E2E_BUDGET_S", "inf"))
        self._ends_at = config.stash[_STARTED] + budget_s

    def skip_without_time(self) -> None:
        """Skips a step that would begin too late to end within E2E_BUDGET_S."""
        if time.monotonic() + _STEP_S > self._ends_at:
            pytest.skip("NOT RUN: E2E_BUDGET_S is nearly over; run `make e2e` without it")

    @contextlib.contextmanager
    def step(self, name: str, *, under_load: bool = True) -> Iterator[Row]:
        """Sends requests for the length of the block; prints what came of them."""
        release = self._release
        row = Row(name, spoken=release.spoken)
        self._table.rows.append(row)
        command = release.kubectl_command
        try:
            if under_load:
                with load(command, release.url, self._rate, release.key, row):
                    yield row
            else:
                yield row
        except Exception as error:
            row.note = "FAILED"
            self._print(["", f"{name}: {error!r}"[:3000]])
            raise
        finally:
            failures = (*row.refused, *row.lost)
            kinds = sorted({f"    {one.status} {one.error}"[:300] for one in failures})
            self._print(["", line(row), *kinds[:8]])

    def _print(self, lines: list[str]) -> None:
        capture = self._plugins.get_plugin("capturemanager")
        terminal = self._plugins.get_plugin("terminalreporter")
        if isinstance(capture, CaptureManager) and isinstance(terminal, TerminalReporter):
            with capture.global_and_fixture_disabled():
                for text in lines:
                    terminal.write_line(text)


@pytest.fixture(scope="session")
def steps(release: ReleaseUnderTest, pytestconfig: pytest.Config) -> Steps:
    return Steps(release, pytestconfig)
