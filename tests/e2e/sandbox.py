"""Namespaces of their own for a node: what runs, is mounted or routed in them ends with them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Process 1 of the namespaces: reaps orphans, and ends when its input does, which is when
# the process that started it has ended, however that came about.
_FIRST_PROCESS = """
import os, signal, sys
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
print("up", flush=True)
sys.stdin.read()
"""
_LINK = "e2e-host"
NODE_IP = "10.245.0.1"
HOST_IP = "10.245.0.254"
_ROUTED = ("10.244.0.0/16", "10.96.0.0/24")


class Sandbox:
    """Mount, network and process namespaces, reached by this machine over one link.

    Args:
        enter: words before a command that is to run in them.
        work: directory for the logs.
    """

    def __init__(self, enter: Sequence[str], work: Path) -> None:
        self._enter = list(enter)
        self._work = work

    def with_own(self, directories: Sequence[str], folder: Path) -> Sandbox:
        """Returns a sandbox in which these directories are empty ones below the folder.

        Other mounts are common to both, so that a kubelet's volumes reach containerd's shims.
        """
        lines = []
        for directory in directories:
            own = folder / directory.strip("/")
            own.mkdir(parents=True)
            lines.append(f"mount --make-private {directory} && mount --bind {own} {directory}")
        apart = ("unshare", "--mount", "--propagation=unchanged", "sh", "-c")
        holder = subprocess.Popen(
            [*self._enter, *apart, " && ".join([*lines, "echo $$", "exec sleep infinity"])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        pid = holder.stdout.readline().strip()
        if not pid:
            raise RuntimeError(f"no mounts of its own for {folder}")
        return Sandbox([*self._enter, "nsenter", f"--target={pid}", "--mount", "--"], self._work)

    def run(self, *command: str, check: bool = True) -> str:
        """Runs a command in the namespaces and returns its output.

        Raises:
            RuntimeError: it failed; with its output.
        """
        done = subprocess.run([*self._enter, *command], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Starts a process in the namespaces; its output goes to `name`.log."""
        with (self._work / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*self._enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@contextmanager
def sandbox(work: Path) -> Iterator[Sandbox]:
    """Makes the namespaces for the length of the block. Needs root.

    The machine reaches addresses inside through NODE_IP, and is HOST_IP to them.
    """
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = subprocess.Popen(
        [*command, "/usr/bin/python3", "-c", _FIRST_PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"up\n":
            raise RuntimeError("no namespaces: is this root on Linux?")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        inside = Sandbox(
            ["nsenter", f"--target={children[0]}", "--mount", "--net", "--pid", "--"], work
        )
        # kubelet and containerd want mounts to propagate; sockets of shims lie in /run.
        inside.run("mount", "--make-rshared", "/")
        inside.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        for directory in ("/var/lib", "/var/log"):  # mounts, which can be made private
            inside.run("mount", "--bind", directory, directory)
        inside.run("ip", "link", "set", "lo", "up")
        _link(inside, int(children[0]))
        yield inside
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _link(inside: Sandbox, pid: int) -> None:
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    deadline = time.monotonic() + 10  # an earlier namespace takes its end of the link away late
    while Path("/sys/class/net", _LINK).exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    ip("link", "add", _LINK, "type", "veth", "peer", "name", "node0", "netns", str(pid))
    ip("address", "add", f"{HOST_IP}/24", "dev", _LINK)
    ip("link", "set", _LINK, "up")
    inside.run("ip", "address", "add", f"{NODE_IP}/24", "dev", "node0")
    inside.run("ip", "link", "set", "node0", "up")
    # Services' addresses are only rewritten for packets that have a route.
    inside.run("ip", "route", "add", "default", "via", HOST_IP)
    inside.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for network in _ROUTED:
        ip("route", "add", network, "via", NODE_IP)
