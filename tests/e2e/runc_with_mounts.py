"""`runc_with_mounts.py MOUNTS.json ARGUMENTS...`: runc, with more read-only mounts.

containerd runs it in runc's place; see host_image.py. It uses nothing but the standard
library, as the interpreter is the machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path


def add_mounts(bundle: Path, mounts: dict[str, str]) -> None:
    """Puts the mounts before those of the pod, which may lie within them."""
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    ours = [
        {"destination": inside, "type": "bind", "source": here, "options": ["rbind", "ro"]}
        for inside, here in sorted(mounts.items())
    ]
    config["mounts"] = ours + config["mounts"]
    path.write_text(json.dumps(config))


def main() -> None:
    listed, *arguments = sys.argv[1:]
    if "create" in arguments and "--bundle" in arguments:
        bundle = Path(arguments[arguments.index("--bundle") + 1])
        add_mounts(bundle, json.loads(Path(listed).read_text()))
    program = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise SystemExit("runc is not installed")
    os.execv(program, ["runc", *arguments])


if __name__ == "__main__":
    main()
