"""What does an honest caller feel while others attack?

    python -m loadtests attack [--seconds 20] [--only slow-bodies ...]

Starts the demo profile with its web page on this machine, with two API keys, and sends 3 s
clips of one key, one after another: first alone, then beside each attack, which uses the
other key or none. The attacker is a process of its own at the lowest priority (nice 19; the
service's processes have nice 15, the caller of the clips 0): it shares the machine with the
service, and a remote one would not take the service's processor time to make its requests.
It is not slowed down otherwise, and the table has the processor time that it took.
Everything stays on loopback and ends by itself. Exit code 0 if for every attack the clips'
p95 is at most twice that without one, all of them were answered right, and no process of the
service died.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.attack.sender import Sent, attacks, sender
from loadtests.attack.wire import Target
from loadtests.bench.tables import Cell, Table
from loadtests.load.clips import ClipLibrary
from loadtests.load.generator import Bounds, open_client
from loadtests.load.outcomes import Fate, percentiles
from loadtests.load.sending import Request, attempt
from loadtests.load.target import machine, own_settings, service
from loadtests.uploads.watching import replicas
from serve_app.client import AsyncParaserve, TranscriptionRequest
from serve_app.settings.keys import KeyEntry, add_key, hash_of, new_key

_CLIP_S = 3.0
_TARGET_RATIO = 2.0
_PAUSE_S = 0.1
_REST_S = 2.0
_NOWHERE = Path("/nonexistent")


@dataclass(frozen=True, slots=True)
class Felt:
    """What the honest caller felt during one attack.

    Attributes:
        latencies_s: of the clips that were answered right.
        num_refused: clips that were answered 429 or 503.
        num_wrong: clips that ended in any other way.
        sent: what the attacker did.
        num_died: processes of the service that ended.
    """

    latencies_s: tuple[float, ...]
    num_refused: int
    num_wrong: int
    sent: Sent
    num_died: int


def main(given: list[str] | None = None) -> int:
    options = _parser().parse_args(given)
    chosen = [name for name in attacks() if name in options.only]
    with tempfile.TemporaryDirectory() as directory:
        keys_file = Path(directory) / "keys.yaml"
        honest, hostile = new_key(), new_key()
        for name, key in (("honest", honest), ("hostile", hostile)):
            add_key(keys_file, KeyEntry(name=name, sha256=hash_of(key)))
        settings = own_settings(
            (
                "auth.mode=keys",
                f"auth.keys_file={keys_file}",
                "ui.enabled=true",
                "audio_url.enabled=true",
                'audio_url.allowed_hosts=["audio.example.com"]',
                'audio_url.s3_buckets=["allowed"]',
                *(options.set or ()),
            )
        )
        with service(None, settings) as url:
            target = Target(url, hostile, settings.ui.route_prefix)
            library = ClipLibrary(Path(directory))
            alone, felt = asyncio.run(run_attacks(target, honest, library, chosen, options.seconds))
    table, held = judge(alone, felt)
    print(f"\n{table.text()}")
    return 0 if held else 1


async def run_attacks(
    target: Target,
    key: str,
    library: ClipLibrary,
    chosen: Sequence[str],
    seconds: float,
) -> tuple[Felt, dict[str, Felt]]:
    """Sends clips alone, then beside each attack.

    Args:
        target: what is attacked.
        key: of the honest caller, "" for none.
        library: where the clip comes from.
        chosen: names of the attacks.
        seconds: that each lasts.
    """
    content = library.path(library.clip(_CLIP_S)).read_bytes()
    async with (
        AsyncParaserve(target.url, key) as service_client,
        open_client(target.url, Bounds()) as client,
    ):
        wanted = TranscriptionRequest(model="whisper-1")
        text = (await service_client.transcribe(content, wanted)).text
        request = Request(content, text, key or None)
        await _felt(client, request, _rest(seconds / 2))
        alone = await _felt(client, request, _rest(seconds))
        felt: dict[str, Felt] = {}
        with sender() as attacker:
            for name in chosen:
                await attacker.prepare(name)
                print(f"{name} for {seconds:.0f} s", flush=True)
                felt[name] = await _felt(client, request, attacker.attack(target, seconds))
                await asyncio.sleep(_REST_S)
    return alone, felt


async def _felt(client: httpx.AsyncClient, request: Request, attack: Awaitable[Sent]) -> Felt:
    """Sends clips while an attack runs."""
    clock = asyncio.get_running_loop().time
    before = replicas(_NOWHERE)
    latencies_s: list[float] = []
    num_refused = num_wrong = 0
    running = asyncio.ensure_future(attack)
    await asyncio.sleep(1.0)
    while not running.done():
        began_s = clock()
        tried, _ = await attempt(client, request, clock)
        if tried.fate is Fate.RIGHT:
            latencies_s.append(tried.ended_s - began_s)
        elif tried.fate in (Fate.REFUSED, Fate.UNAVAILABLE):
            num_refused += 1
        else:
            num_wrong += 1
            print(f"  a clip: {tried.fate} {tried.status} {tried.detail}", flush=True)
        await asyncio.sleep(_PAUSE_S)
    sent = await running
    num_died = len(set(before) - set(replicas(_NOWHERE)))
    return Felt(tuple(latencies_s), num_refused, num_wrong, sent, num_died)


async def _rest(seconds: float) -> Sent:
    await asyncio.sleep(seconds)
    return Sent({}, 0.0)


def judge(alone: Felt, felt: dict[str, Felt]) -> tuple[Table, bool]:
    """Returns the table, and whether every attack was borne."""
    idle_s = percentiles(alone.latencies_s).p95 or float("inf")
    rows: list[tuple[Cell, ...]] = [_row("none", alone, idle_s)[0]]
    held = not alone.num_refused and not alone.num_wrong
    for name, one in felt.items():
        row, borne = _row(name, one, idle_s)
        rows.append(row)
        held = held and borne
    columns = (
        *("attack", "clips", "p95 s", "x idle", "refused", "wrong", "died"),
        *("attacker got", "its CPU s", ""),
    )
    return Table("A 3 s clip beside attacks", columns, tuple(rows), (machine(),)), held


def _row(name: str, felt: Felt, idle_s: float) -> tuple[tuple[Cell, ...], bool]:
    p95_s = percentiles(felt.latencies_s).p95 or float("inf")
    borne = (
        p95_s <= _TARGET_RATIO * idle_s
        and not felt.num_refused
        and not felt.num_wrong
        and not felt.num_died
    )
    got = " ".join(f"{status}:{number}" for status, number in sorted(felt.sent.statuses.items()))
    figures = (len(felt.latencies_s), f"{p95_s:.3f}", f"{p95_s / idle_s:.2f}")
    counts = (felt.num_refused, felt.num_wrong, felt.num_died)
    attacker = (got or "-", f"{felt.sent.cpu_s:.1f}")
    return (name, *figures, *counts, *attacker, "held" if borne else "NOT HELD"), borne


def _parser() -> argparse.ArgumentParser:
    names = tuple(attacks())
    parser = argparse.ArgumentParser(prog="python -m loadtests attack", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=20.0, help="that each attack lasts")
    add("--only", nargs="+", choices=names, default=names, metavar="ATTACK", help=", ".join(names))
    add("--set", action="append", metavar="NAME=VALUE", help="setting of the service")
    return parser


if __name__ == "__main__":
    sys.exit(main())
