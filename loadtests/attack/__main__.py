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

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.attack.sender import Sent, attacks, sender
from loadtests.attack.wire import Target
from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import Probe, probe
from loadtests.harness.report import Report, parse, parser
from loadtests.harness.requests import Caller, Request, percentiles
from loadtests.harness.watch import replicas
from loadtests.serving import own_settings, service
from serve_app.settings.keys import KeyEntry, add_key, hash_of, new_key

COLUMNS = (
    *("attack", "clips", "p95 s", "x idle", "refused", "wrong", "died"),
    *("attacker got", "its CPU s", ""),
)
_CLIP_S = 3.0
_TARGET_RATIO = 2.0
_REST_S = 2.0


@dataclass(frozen=True, slots=True)
class Felt:
    """What the honest caller felt during one attack.

    Attributes:
        clips: that were sent meanwhile.
        sent: what the attacker did.
        num_died: processes of the service that ended.
    """

    clips: Probe
    sent: Sent
    num_died: int


def main(given: Sequence[str] | None = None) -> int:
    names = tuple(attacks())
    made = parser("attack", __doc__)
    add = made.add_argument
    add("--seconds", type=float, default=20.0, help="that each attack lasts")
    add("--only", nargs="+", choices=names, default=names, metavar="ATTACK", help=", ".join(names))
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="setting of the service")
    options = parse(made, given)
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
                *options.set,
            )
        )
        with service(None, settings) as url, Report("attack", options) as report:
            target = Target(url, hostile, settings.ui.route_prefix)
            content = ClipLibrary(Path(directory)).content(_CLIP_S)
            asyncio.run(run_attacks(report, target, honest, content, options.only, options.seconds))
    return report.exit_code


async def run_attacks(
    report: Report, target: Target, key: str, clip: bytes, chosen: Sequence[str], seconds: float
) -> dict[str, Felt]:
    """Sends clips alone, then beside each attack.

    Args:
        report: gets a row for each attack.
        target: what is attacked.
        key: of the honest caller, "" for none.
        clip: that the honest caller sends.
        chosen: names of the attacks.
        seconds: that each lasts.

    Returns:
        What the caller felt, by attack; "none" is without one.
    """
    report.table("A 3 s clip beside attacks", COLUMNS)
    felt: dict[str, Felt] = {}
    async with Caller(target.url, key) as caller:
        request = Request(clip, await caller.text(clip))
        await _felt(caller, request, _rest(seconds / 2))
        felt["none"] = await _felt(caller, request, _rest(seconds))
        judge(report, "none", felt)
        with sender() as attacker:
            for name in chosen:
                await attacker.prepare(name)
                report.say(f"{name} for {seconds:.0f} s")
                felt[name] = await _felt(caller, request, attacker.attack(target, seconds))
                judge(report, name, felt)
                await asyncio.sleep(_REST_S)
    return felt


async def _felt(caller: Caller, request: Request, attack: Awaitable[Sent]) -> Felt:
    """Sends clips while an attack runs."""
    before = {process.pid for process in replicas()}
    running = asyncio.ensure_future(attack)
    await asyncio.sleep(1.0)
    clips = await probe(caller, request, lambda _: not running.done())
    sent = await running
    return Felt(clips, sent, len(before - {process.pid for process in replicas()}))


async def _rest(seconds: float) -> Sent:
    await asyncio.sleep(seconds)
    return Sent({}, 0.0)


def judge(report: Report, name: str, felt: dict[str, Felt]) -> None:
    """Adds a row and a promise for one attack."""
    one = felt[name]
    idle_s = percentiles(felt["none"].clips.latencies_s).p95 or float("inf")
    p95_s = percentiles(one.clips.latencies_s).p95 or float("inf")
    counts = (one.clips.num_refused, one.clips.num_other, one.num_died)
    held = p95_s <= _TARGET_RATIO * idle_s and not any(counts)
    got = " ".join(f"{status}:{number}" for status, number in sorted(one.sent.statuses.items()))
    figures = (len(one.clips.latencies_s), f"{p95_s:.3f}", f"{p95_s / idle_s:.2f}")
    attacker = (got or None, f"{one.sent.cpu_s:.1f}")
    report.row(name, *figures, *counts, *attacker, "held" if held else "NOT HELD")
    refused, wrong, died = counts
    report.promise(
        f"{name}: p95 at most twice idle, all answered right",
        f"{p95_s / idle_s:.2f}, {refused} refused, {wrong} wrong, {died} died",
        held,
    )


if __name__ == "__main__":
    sys.exit(main())
