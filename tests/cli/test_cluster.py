"""The arguments of `paraserve cluster`."""

from __future__ import annotations

import pytest
import typer

from serve_app.cli.cluster import Release, Target, parse_target
from serve_app.ops.kube import KubeContext

KNOWN = {"recognizer", "all", "group"}


@pytest.mark.parametrize(
    ("words", "target"),
    [
        ([], Target(None, None, None)),
        (["speech"], Target("speech", None, None)),
        (["recognizer"], Target(None, "recognizer", None)),
        (["Recognizer", "speech"], Target("speech", "recognizer", None)),
        (["speech", "recognizer"], Target("speech", "recognizer", None)),
        (["group", "gpu"], Target(None, "group", "gpu")),
        (["group", "all", "speech"], Target("speech", "group", "all")),
        (["speech", "group", "gpu"], Target("speech", "group", "gpu")),
    ],
)
def test_name_may_stand_before_or_after_the_part(words: list[str], target: Target) -> None:
    assert parse_target(words, KNOWN, "usage") == target


@pytest.mark.parametrize("words", [["group"], ["speech", "group"], ["a", "b"], ["all", "a", "b"]])
def test_arguments_that_mean_nothing_are_refused(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match="usage"):
        parse_target(words, KNOWN, "usage")


def test_two_different_names_are_refused() -> None:
    release = Release("speech", KubeContext())
    assert release.named("speech") == release.named(None) == release
    with pytest.raises(typer.BadParameter, match="two names"):
        release.named("other")
