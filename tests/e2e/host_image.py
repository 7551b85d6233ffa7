"""An image of a few kilobytes whose programs are this machine's, mounted read-only.

Building, saving and importing the image of deploy/Dockerfile takes ten minutes and more; a
node that mounts the environment of the tests into every container has a change at once.
The image holds only a user, directories and the Dockerfile's variables. `runc` is wrapped
by `runc_with_mounts.py`, which adds the mounts to each container.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

from tests.deploy.charting import Json

ROOT = Path(__file__).parents[2]
PAUSE = "localhost/pause:1"
_USER = 10001
_SOURCE = "/opt/paraserve"
# As in deploy/Dockerfile, but for the place of the program.
_VARIABLES = {
    "PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin",
    "PYTHONPATH": _SOURCE,
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.api.flow.http_middlewares",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_BINARY_PATH": "/opt/venv/bin/paraserve-haproxy",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def mounts(vad_pack: Path) -> dict[str, str]:
    """Returns what every container sees of this machine: path inside, path here."""
    found = {
        "/usr": "/usr",
        "/etc/alternatives": "/etc/alternatives",
        "/etc/ld.so.cache": "/etc/ld.so.cache",
        "/opt/venv": sys.prefix,
        sys.prefix: sys.prefix,
        sys.base_prefix: sys.base_prefix,
        f"{_SOURCE}/serve_app": str(ROOT / "serve_app"),
        f"/models/{vad_pack.name}": str(vad_pack),
    }
    found |= {name: name for name in _top_directories() if not Path(name).is_symlink()}
    return {inside: here for inside, here in found.items() if Path(here).exists()}


def _top_directories() -> list[str]:
    return [name for name in ("/bin", "/sbin", "/lib", "/lib64") if Path(name).exists()]


def write_runc(folder: Path, vad_pack: Path) -> Path:
    """Writes a runc that adds the mounts; returns its path."""
    listed = folder / "mounts.json"
    listed.write_text(json.dumps(mounts(vad_pack)))
    program = folder / "runc"
    script = Path(__file__).parent / "runc_with_mounts.py"
    words = shlex.join(["/usr/bin/python3", "-I", str(script), str(listed)])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    return program


def write_image(path: Path, name: str, command: list[str]) -> None:
    """Writes an archive for `ctr images import`.

    Args:
        path: of the archive.
        name: of the image, with its tag; two names are two images of the same content.
        command: that a container runs when its pod names none.
    """
    layer = _layer()
    configuration: Json = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": [f"{key}={value}" for key, value in _VARIABLES.items()],
            "Cmd": command,
            "User": f"{_USER}:{_USER}",
            "WorkingDir": "/tmp",
            "Labels": {"name": name},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
    }
    described = json.dumps(configuration).encode()
    config_name = f"{sha256(described).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for file, content in (
            ("layer.tar", layer),
            (config_name, described),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add(archive, file, content)


def _layer() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for directory in ("etc", "opt", "proc", "sys", "dev", "root", "run", "var", "models"):
            _add_directory(archive, directory, 0o755)
        for directory in ("tmp", "spool", "var/tmp"):
            _add_directory(archive, directory, 0o1777)
        for name in _top_directories():
            if Path(name).is_symlink():
                link = tarfile.TarInfo(name.strip("/"))
                link.type, link.linkname = tarfile.SYMTYPE, os.readlink(name)
                archive.addfile(link)
        users = f"root:x:0:0::/root:/bin/bash\nparaserve:x:{_USER}:{_USER}::/tmp:/bin/bash\n"
        _add(archive, "etc/passwd", users.encode())
        _add(archive, "etc/group", f"root:x:0:\nparaserve:x:{_USER}:\n".encode())
    return written.getvalue()


def _add_directory(archive: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))
