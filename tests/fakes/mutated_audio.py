"""Damaged copies of a valid file, as broken recorders and attackers send them.

A mutation is a function of the file and a seed alone, so that a case which
breaks something is repeated by its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

HEAD_BYTES = 200
_MAX_INSERTED_BYTES = 24
# Where lengths and counts overflow.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutate(file: bytes, seed: int, head_bytes: int = HEAD_BYTES) -> bytes:
    """Returns a copy with one to four mutations within its first head_bytes.

    Only a truncation, one mutation in ten, may reach beyond them.
    """
    random_ = random.Random(seed)
    mutated = bytearray(file)
    for _ in range(random_.randint(1, 4)):
        if len(mutated) > 8:
            random_.choice(_MUTATIONS)(mutated, random_, min(head_bytes, len(mutated)))
    if random_.random() < 0.1:
        del mutated[random_.randrange(len(mutated) + 1) :]
    return bytes(mutated)


def _flip_bit(file: bytearray, random_: random.Random, head_bytes: int) -> None:
    file[random_.randrange(head_bytes)] ^= 1 << random_.randrange(8)


def _replace_byte(file: bytearray, random_: random.Random, head_bytes: int) -> None:
    file[random_.randrange(head_bytes)] = random_.randrange(256)


def _write_edge(file: bytearray, random_: random.Random, head_bytes: int) -> None:
    """Overwrites two, four or eight bytes with a number where arithmetic breaks."""
    num_bytes = random_.choice((2, 4, 8))
    number = random_.choice(_EDGES) % (1 << 8 * num_bytes)
    start = random_.randrange(max(head_bytes - num_bytes, 1))
    order = random_.choice(("little", "big"))
    written = number.to_bytes(num_bytes, "little")
    file[start : start + num_bytes] = written if order == "little" else written[::-1]


def _insert(file: bytearray, random_: random.Random, head_bytes: int) -> None:
    start = random_.randrange(head_bytes)
    file[start:start] = random_.randbytes(random_.randint(1, _MAX_INSERTED_BYTES))


def _delete(file: bytearray, random_: random.Random, head_bytes: int) -> None:
    start = random_.randrange(head_bytes)
    del file[start : start + random_.randint(1, _MAX_INSERTED_BYTES)]


def _repeat(file: bytearray, random_: random.Random, head_bytes: int) -> None:
    start = random_.randrange(head_bytes)
    file[start:start] = file[start : start + random_.randint(1, _MAX_INSERTED_BYTES)]


_MUTATIONS: tuple[Callable[[bytearray, random.Random, int], None], ...] = (
    _flip_bit,
    _replace_byte,
    _write_edge,
    _insert,
    _delete,
    _repeat,
)
