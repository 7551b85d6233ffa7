"""How the tests are spread over the workers, on made-up tests and workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests import workers as tested
from tests.workers import ClusterScheduling, group_of, scope_of

NUM_CLUSTER_WORKERS = 3

# Made-up files: a test of `c*` needs a cluster, in a group of its folder.
GROUPS = [f"tests/c{i}/test_it.py::test_{j}" for i in range(5) for j in range(i + 1)]
NAMED = ("service", "other-apps", "batch")
FILES = [f"tests/core/test_{i}.py::test_{j}" for i in range(7) for j in range(4)]


@pytest.fixture(autouse=True)
def made_up_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def group(path: str) -> str | None:
        folder = path.split("/")[1]
        needs_cluster = folder in NAMED or (folder.startswith("c") and folder != "core")
        return folder if needs_cluster else None

    monkeypatch.setattr(tested, "group_of", group)
    monkeypatch.setattr(tested, "NUM_CLUSTER_WORKERS", NUM_CLUSTER_WORKERS)
    monkeypatch.setattr(tested, "NUM_CLUSTER_WORKERS_AT_END", NUM_CLUSTER_WORKERS + 1)


@dataclass(eq=False)
class Worker:
    """Notes what it is to run."""

    tests: list[str]
    given: list[str] = field(default_factory=list)
    shutting_down: bool = False
    gateway: Any = field(default_factory=lambda: SimpleNamespace(id="gw"))

    def send_runtest_some(self, indices: list[int]) -> None:
        assert not self.shutting_down
        self.given += [self.tests[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True

    def kinds(self) -> set[bool]:
        return {scope_of(test).startswith("@") for test in self.given}


def scheduled(tests: list[str], num_workers: int) -> tuple[ClusterScheduling, list[Worker]]:
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=True, debug=False),
        getvalue=lambda name: ["popen"] * num_workers,
    )
    scheduling = ClusterScheduling(config)
    workers = [Worker(tests) for _ in range(num_workers)]
    for worker in workers:
        scheduling.add_node(cast(Any, worker))
        scheduling.add_node_collection(cast(Any, worker), tests)
    scheduling.schedule()
    return scheduling, workers


def run(tests: list[str], num_workers: int) -> list[Worker]:
    """Returns the workers after all have run what they were given, in turns."""
    scheduling, workers = scheduled(tests, num_workers)
    positions = [0] * num_workers
    while any(positions[i] < len(worker.given) for i, worker in enumerate(workers)):
        for i, worker in enumerate(workers):
            if positions[i] < len(worker.given):
                index = tests.index(worker.given[positions[i]])
                positions[i] += 1
                scheduling.mark_test_complete(cast(Any, worker), index)
    assert scheduling.tests_finished
    return workers


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("tests", [GROUPS + FILES, GROUPS, FILES, GROUPS[:1] + FILES[:1]])
def test_every_test_runs_once_and_every_worker_ends(tests: list[str], num_workers: int) -> None:
    workers = run(tests, num_workers)
    assert sorted(test for worker in workers for test in worker.given) == sorted(tests)
    assert all(worker.shutting_down for worker in workers)


@pytest.mark.parametrize("num_workers", [2, 5, 9])
def test_no_worker_runs_unit_tests_after_a_cluster(num_workers: int) -> None:
    workers = run(FILES + GROUPS, num_workers)
    kinds = [[scope_of(test).startswith("@") for test in worker.given] for worker in workers]
    assert all(each == sorted(each) for each in kinds)
    num_for_clusters = sum(all(each) for each in kinds)
    assert num_for_clusters == min(NUM_CLUSTER_WORKERS, num_workers - 1)


@pytest.mark.parametrize("num_workers", [3, 5, 9])
def test_one_more_worker_takes_groups_when_the_unit_tests_are_done(num_workers: int) -> None:
    many = [f"tests/c{i}/test_it.py::test_{j}" for i in range(40) for j in range(3)]
    workers = run(many + FILES, num_workers)
    num_with_groups = sum(True in worker.kinds() for worker in workers)
    assert num_with_groups == min(NUM_CLUSTER_WORKERS + 1, num_workers)


def test_worker_is_given_no_more_than_the_next_test_early() -> None:
    singles = [f"tests/c{i}/test_it.py::test_it" for i in range(8)]
    scheduling, workers = scheduled(singles, 2)
    for worker in workers:
        assert len(worker.given) == 2
        scheduling.mark_test_complete(cast(Any, worker), singles.index(worker.given[0]))
        assert len(worker.given) == 3


def test_file_and_group_stay_whole() -> None:
    grouped = [f"tests/c0/test_{i}.py::test_{j}" for i in range(3) for j in range(3)]
    workers = run(FILES + grouped, 5)
    (with_group,) = (worker for worker in workers if True in worker.kinds())
    assert with_group.given == grouped
    for name in {test.partition("::")[0] for test in FILES}:
        assert sum(any(t.startswith(name) for t in worker.given) for worker in workers) == 1


def test_work_of_a_worker_that_crashed_is_done_by_its_successor() -> None:
    tests = FILES + GROUPS
    scheduling, workers = scheduled(tests, 2)
    for worker in workers:
        scheduling.mark_test_complete(cast(Any, worker), tests.index(worker.given[0]))
    crashed = workers[0]
    assert scheduling.remove_node(cast(Any, crashed)) == crashed.given[1]
    successor = Worker(tests)
    scheduling.add_node(cast(Any, successor))
    scheduling.add_node_collection(cast(Any, successor), tests)
    scheduling.schedule()
    assert successor.kinds() == crashed.kinds()


def test_files_that_need_a_cluster_are_grouped() -> None:
    assert group_of("tests/service/test_streams.py") == "service"
    assert group_of("tests/service/test_models.py") == group_of("tests/service/test_faults.py")
    assert group_of("tests/ui/test_page.py") == "ui"
    assert group_of("tests/ui/test_gate.py") is None


def test_each_test_of_the_lifecycle_is_a_group() -> None:
    scopes = {scope_of(f"tests/service/test_lifecycle.py::test_{i}") for i in range(3)}
    assert len(scopes) == 3
    assert all(scope.startswith("@") for scope in scopes)


def test_each_file_that_starts_a_browser_of_its_own_is_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tested, "group_of", lambda path: path.split("/")[1])
    names = ("ui/test_page.py", "ui/test_files.py", "compatibility/test_cors.py")
    scopes = {scope_of(f"tests/{name}::test_{i}") for name in names for i in range(2)}
    assert scopes == {"@ui-page", "@ui-files", "@compatibility-cors"}


@pytest.mark.parametrize("num_for_clusters", [1, 3])
@pytest.mark.parametrize("num_workers", [2, 3, 5])
def test_no_worker_starts_a_cluster_of_its_own_after_the_shared_service(
    monkeypatch: pytest.MonkeyPatch, num_workers: int, num_for_clusters: int
) -> None:
    monkeypatch.setattr(tested, "NUM_CLUSTER_WORKERS", num_for_clusters)
    named = [f"tests/{folder}/test_it.py::test_{i}" for folder in NAMED for i in range(3)]
    for worker in run([*GROUPS, *named, *FILES], num_workers):
        scopes = [scope_of(test) for test in worker.given]
        after = scopes[scopes.index("@service") :] if "@service" in scopes else []
        assert not {"@batch"} & set(after)


def test_named_files_exist() -> None:
    root = Path(__file__).parents[1]
    assert all((root / path).is_file() for path in {*tested._GROUPS, *tested._EACH_TEST_BY_ITSELF})
