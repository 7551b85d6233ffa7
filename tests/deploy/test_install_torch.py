"""Which build of PyTorch a fresh machine gets; pip and the driver are stand-ins."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.charting import ROOT

SCRIPT = ROOT / "deploy" / "install-torch.sh"
NOTHING_LISTENS = "http://127.0.0.1:9/whl/cpu"


class Index(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html></html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
        server.shutdown()
        thread.join()


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that writes down what pip is told, and fails where a test says so."""
    fake = tmp_path / "python"
    fake.write_text(
        f"""#!/bin/sh
if [ "$1" = -m ]; then
    echo "$@" >> {tmp_path}/told
    case "$*" in *--index-url*) exit ${{FAILS:-0}} ;; esac
    exit 0
fi
exec {sys.executable} "$@"
"""
    )
    fake.chmod(0o755)
    return fake


def install(python: Path, **environment: str) -> tuple[str, list[list[str]]]:
    """Returns what is printed, and the words of each of pip's commands."""
    inherited = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    done = subprocess.run(
        [SCRIPT, python, "torch==2.13.0"],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = (python.parent / "told").read_text().splitlines()
    return done.stdout, [line.split() for line in told]


def test_cpu_build_comes_from_pytorch_s_own_index(python: Path, index: str) -> None:
    printed, told = install(python, TORCH_DEVICE="cpu", TORCH_INDEX=index)
    assert len(told) == 1
    assert told[0][told[0].index("--index-url") + 1] == index
    assert told[0][-1] == "torch==2.13.0"
    assert len(printed.splitlines()) == 1
    assert "0.2 GB to download" in printed


def test_index_that_cannot_be_reached_is_not_waited_for(python: Path) -> None:
    printed, told = install(python, TORCH_DEVICE="cpu", TORCH_INDEX=NOTHING_LISTENS)
    assert len(told) == 1
    assert "--index-url" not in told[0]
    assert told[0][-1] == "torch==2.13.0"
    assert len(printed.splitlines()) == 1
    assert "default index (about 3 GB" in printed or sys.platform != "linux"
    assert "refused" in printed


def test_index_without_the_build_falls_back_as_well(python: Path, index: str) -> None:
    printed, told = install(python, TORCH_DEVICE="cpu", TORCH_INDEX=index, FAILS="1")
    assert ["--index-url" in words for words in told] == [True, False]
    assert "could not be installed from it" in printed


def test_driver_gets_the_build_of_the_default_index(python: Path, tmp_path: Path) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\nexit 0\n")
    smi.chmod(0o755)
    printed, told = install(python, PATH=f"{smi.parent}:{os.environ['PATH']}")
    assert "--index-url" not in told[0]
    assert "an NVIDIA driver was found" in printed


def test_makefile_and_image_install_the_same_release_of_pytorch() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    image = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert "TORCH := torch==2.13.0\n" in makefile
    assert "ARG TORCH=torch==2.13.0\n" in image
    assert makefile.index("install-torch.sh $(BIN)/python") < makefile.index("--editable")
    # The locks of the image hold no PyTorch for CPUs, and no package there pulls another.
    assert './install-torch.sh /opt/venv/bin/python "${TORCH}"' in image
    assert "--no-deps --requirement locks/requirements.txt" in image
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    assert "!deploy/install-torch.sh" in ignored
