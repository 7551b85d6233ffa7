"""The image holds what the program may be told to do with it, from locked releases."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serve_app.core.errors import ConfigurationError
from serve_app.settings import Settings, profile_names
from serve_app.settings.assignments import load_settings
from serve_app.settings.stages import RecognizerSettings
from tests.deploy.charting import ROOT

# What runs packs, and the extra that brings it.
ENGINES = {"paraformer": None, "onnx": "onnx", "whispercpp": "whisper", "hybrid": "whisper"}
# What is run by developers, and by operators from their own machines.
NOT_IN_THE_IMAGE = {
    *("ops", "funasr", "test", "bench", "deploy", "dev", "compat", "conformance"),
    # Callers' own.
    *("live", "microphone"),
}
LOCKS = ROOT / "deploy" / "locks"
_PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)
# The image's Python and platform, by which markers are read.
_ENVIRONMENT = {"python_version": "3.11", "python_full_version": "3.11.13", "extra": ""}


def dockerfile() -> str:
    return (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


def argument(name: str) -> str:
    """Returns the default of a build argument."""
    (default,) = re.findall(rf"^ARG {name}=(\S+)$", dockerfile(), flags=re.MULTILINE)
    return str(default)


def extras_of_the_image() -> set[str]:
    return set(argument("EXTRAS").split(","))


def project() -> dict[str, object]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, object] = content["project"]
    return found


def extras_of_the_project() -> dict[str, list[str]]:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    return extras


def pins(*names: str) -> dict[str, str]:
    """Returns the locked version of each package."""
    found: dict[str, str] = {}
    for name in names:
        text = (LOCKS / name).read_text(encoding="utf-8")
        found |= {canonicalize_name(pin[0]): pin[1] for pin in _PIN.findall(text)}
    return found


def all_pins() -> dict[str, str]:
    return pins("requirements.txt", "requirements-cuda.txt")


def direct_requirements() -> Iterator[Requirement]:
    """Yields what pyproject.toml asks for: for the program and for the extras of the image."""
    base = project()["dependencies"]
    assert isinstance(base, list)
    texts = list(base)
    for extra in extras_of_the_image():
        texts += extras_of_the_project()[extra]
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(_ENVIRONMENT):
            yield requirement


def test_every_engine_has_its_place_in_the_table() -> None:
    assert set(get_args(RecognizerSettings.model_fields["engine"].annotation)) == set(ENGINES)


def test_image_runs_the_engine_of_every_profile() -> None:
    engines = {Settings(profile=name).recognizer.engine for name in profile_names()}
    assert {"onnx", "hybrid"} <= engines
    needed = {extra for engine in engines if (extra := ENGINES[engine]) is not None}
    assert needed <= extras_of_the_image()


def test_image_runs_jobs_the_page_and_traces_and_reads_buckets() -> None:
    assert {"batch", "s3", "tracing", "ui", "modelscope", "huggingface"} <= extras_of_the_image()


def test_extra_is_in_the_image_or_said_not_to_be() -> None:
    assert extras_of_the_image() | NOT_IN_THE_IMAGE == set(extras_of_the_project())


def test_buckets_of_the_docs_have_their_file_system_in_an_extra() -> None:
    page = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
    assert "paraserve[batch,s3]" in page
    assert any(entry.startswith("s3fs") for entry in extras_of_the_project()["s3"])


def test_locks_have_every_direct_requirement_in_a_release_that_pyproject_takes() -> None:
    locked = all_pins()
    wrong = {
        str(requirement): locked.get(canonicalize_name(requirement.name))
        for requirement in direct_requirements()
        if not requirement.specifier.contains(
            locked.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    }
    assert wrong == {}, "run deploy/lock.sh"


def test_locks_have_all_that_their_packages_require() -> None:
    locked = all_pins()
    missing: set[str] = set()
    for name, version in locked.items():
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if found.version != version:
            continue
        for text in found.requires or ():
            requirement = Requirement(text)
            applies = requirement.marker is None or requirement.marker.evaluate(_ENVIRONMENT)
            if applies and canonicalize_name(requirement.name) not in locked:
                missing.add(f"{name}: {text}")
    assert missing == set()


@pytest.mark.parametrize("name", sorted(path.name for path in LOCKS.glob("*.txt")))
def test_every_line_of_a_lock_is_a_version_with_its_hashes(name: str) -> None:
    text = (LOCKS / name).read_text(encoding="utf-8")
    rest = _PIN.sub("", text)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert pins(name)


def test_pytorch_is_the_same_release_for_both_devices_and_apart_from_the_rest() -> None:
    cuda = pins("requirements-cuda.txt")
    assert f"torch=={cuda['torch']}" == argument("TORCH")
    assert not {"torch", "triton"} & set(pins("requirements.txt"))
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in cuda)


def test_every_install_of_the_image_is_by_hash_or_of_its_own_wheel() -> None:
    text = dockerfile().replace("\\\n", " ")
    installs = re.findall(r"\bpip [^&;\n]*\binstall\b[^&;\n]*", text)
    assert len(installs) >= 5
    for install in installs:
        assert "--require-hashes" in install or "/wheels/*.whl" in install, install


def test_stages_have_names_that_every_builder_knows_before_it_starts() -> None:
    text = dockerfile()
    assert not text.startswith("# syntax=")
    bases = re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE)
    assert [base for base in bases if "$" in base and base != "${BASE}"] == []
    assert argument("DEVICE") == "cpu"


def test_change_of_the_program_leaves_the_layer_of_its_dependencies() -> None:
    stages = re.split(r"^FROM ", dockerfile(), flags=re.MULTILINE)[1:]
    named = {re.match(r"\S+ AS (\S+)", stage)[1]: stage for stage in stages}  # type: ignore[index]
    copied = re.findall(r"^COPY (?!--from)(.*)", named["dependencies"], flags=re.MULTILINE)
    sources = {source for line in copied for source in line.split()[:-1]}
    assert sources == {"deploy/locks", "deploy/install-torch.sh", "deploy/slim.sh"}
    service = named["service"]
    assert service.index("COPY --from=dependencies /opt/venv") < service.index(
        "COPY --from=program"
    )


def test_image_carries_its_bill_of_materials_and_licenses() -> None:
    text = dockerfile()
    assert "cyclonedx-py environment" in text
    for name in ("sbom.cdx.json", "LICENSE NOTICE docs/licenses.md"):
        assert re.search(rf"^COPY .*{re.escape(name)} /usr/share/doc/paraserve/", text, re.M)


def command_of_the_image() -> list[str]:
    (command,) = re.findall(r"^CMD (\[.*\])$", dockerfile(), flags=re.MULTILINE)
    words: list[str] = json.loads(command)
    return words


def settings_of_the_command() -> Settings:
    words = command_of_the_image()
    assert words[:2] == ["paraserve", "serve"]
    assert words[2::2] == ["--set"] * (len(words[2:]) // 2)
    settings = load_settings("demo", words[3::2])
    assert settings.http.host == "0.0.0.0"
    return settings


def test_command_starts_without_keys_where_the_documented_variable_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (assignment,) = re.findall(r"-e PARASERVE_(\S+)=(\S+)", dockerfile())
    monkeypatch.setenv(f"PARASERVE_{assignment[0]}", assignment[1])
    settings = settings_of_the_command()
    auth = settings.auth.resolved(settings.http.host)
    settings.model_copy(update={"auth": auth}).check_access()


def test_command_starts_with_the_keys_that_are_mounted_as_documented(tmp_path: Path) -> None:
    assert '-v "$PWD:/etc/paraserve/keys:ro"' in dockerfile()
    settings = settings_of_the_command()
    assert settings.auth.keys_file == Path("/etc/paraserve/keys/keys.yaml")
    keys = tmp_path / "keys.yaml"
    new = [sys.executable, "-m", "serve_app.cli.main", "keys", "new", "--name", "me"]
    subprocess.run([*new, "--file", str(keys)], check=True, capture_output=True)
    auth = settings.auth.model_copy(update={"keys_file": keys}).resolved(settings.http.host)
    settings.model_copy(update={"auth": auth}).check_access()


def test_command_refuses_to_serve_everybody_unless_it_is_told_to() -> None:
    settings = settings_of_the_command()
    auth = settings.auth.resolved(settings.http.host)
    with pytest.raises(ConfigurationError):
        settings.model_copy(update={"auth": auth}).check_access()


_REFUSE = """
import sys

class Removed:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("ray.rllib", "torch.test.", "onnx.backend.test", "pandas.tests")):
            raise AssertionError(f"{name} is not in the image")

sys.meta_path.insert(0, Removed())
import serve_app.app, serve_app.batch, serve_app.cli.main, serve_app.ui
import ray.data, ray.serve, torch, onnx, onnxruntime, pandas, pyarrow.parquet, matplotlib.pyplot
"""


@pytest.mark.slow
def test_program_imports_nothing_that_was_removed_from_the_image() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _REFUSE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_script_that_slims_keeps_what_pytorch_starts(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("torch/bin/torch_shm_manager", "torch/bin/test_api", "torch/include/a.h"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    subprocess.run([str(ROOT / "deploy" / "slim.sh"), str(tmp_path)], check=True)
    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    assert left == {"torch/bin/torch_shm_manager"}
