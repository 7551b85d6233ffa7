"""Synthetic conversations: who speaks when is drawn from a seed, and composed from phrases.

A speaker has a microphone's response and a level, a turn a pitch and a speed a little off the
speaker's own, the room an echo and noise. Turns follow each other after pauses, sometimes
before the other has finished, and some are a short word only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import fftconvolve

from loadtests.speakers.voices import BLENDS, Samples, Voice, played_at
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm
from serve_app.core.speakers import SpeakerTurn

SPEEDS = (0.88, 1.0, 1.12)
VOICES = tuple(Voice(f"{name} at {speed}", name, speed) for name in BLENDS for speed in SPEEDS)
PHRASES_PER_BLEND = 8

_MINUTES = (2.0, 20.0)
_SPEAKERS = (2, 6)
_OVERLAPPING = 0.1
"""Share of the turns that begin before the one before has ended."""
_INTERJECTIONS = 0.15
"""Share of the turns that are one short phrase."""
_PHRASES_PER_TURN = 6
_PEAK = 0.25


@dataclass(frozen=True, slots=True)
class Conversation:
    """Samples, and who speaks when; turns may overlap and speakers are numbered by voice."""

    pcm: Pcm
    turns: tuple[SpeakerTurn, ...]
    voices: tuple[Voice, ...]

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed decides before anything is composed."""

    seed: int
    voices: tuple[Voice, ...]
    duration_s: float
    shares: tuple[float, ...]

    @classmethod
    def drawn(
        cls,
        seed: int,
        likeness: Mapping[tuple[str, str], float],
        max_likeness: float = 0.6,
        max_minutes: float = _MINUTES[1],
    ) -> Plan:
        """Draws the speakers and the length.

        Args:
            seed: of the conversation.
            likeness: cosine of the embeddings of two voices by their names.
            max_likeness: voices that are more alike are not in one conversation, as people
                who talk to each other seldom are.
            max_minutes: the longest conversation.
        """
        rng = np.random.default_rng([seed, 1])
        num_speakers = int(rng.integers(_SPEAKERS[0], _SPEAKERS[1] + 1))
        voices: list[Voice] = []
        for index in rng.permutation(len(VOICES)):
            voice = VOICES[index]
            if all(likeness[voice.name, other.name] <= max_likeness for other in voices):
                voices.append(voice)
            if len(voices) == num_speakers:
                break
        shortest, longest = np.log([min(_MINUTES[0], max_minutes), max_minutes])
        minutes = float(np.exp(rng.uniform(shortest, longest)))
        # Nobody is silent: the least talkative has a fifth of an even share.
        shares = rng.dirichlet([3.0] * len(voices)) * 0.8 + 0.2 / len(voices)
        return cls(seed, tuple(voices), minutes * 60, tuple(map(float, shares)))


def composed(plan: Plan, phrases_of: Callable[[Voice], Sequence[Samples]]) -> Conversation:
    """Returns the conversation of a plan.

    Args:
        plan: who, and how long.
        phrases_of: the phrases of a voice at the speed of its blend.
    """
    rng = np.random.default_rng([plan.seed, 2])
    num_samples = round(plan.duration_s * SAMPLE_RATE_HZ)
    mixed = np.zeros(num_samples, np.float32)
    responses = [_response(rng) for _ in plan.voices]
    levels = _PEAK * 10 ** (rng.uniform(-9, 0, len(plan.voices)) / 20)
    turns: list[SpeakerTurn] = []
    at, last = round(rng.uniform(0.2, 1.0) * SAMPLE_RATE_HZ), -1
    while True:
        speaker = _next_speaker(rng, plan.shares, last)
        start = at
        for phrase in _turn(rng, plan.voices[speaker], phrases_of(plan.voices[speaker])):
            if at + len(phrase) >= num_samples:
                mixed += _noise(rng, num_samples)
                pcm = (np.clip(mixed, -1, 1) * 32_767).astype(np.int16)
                return Conversation(pcm, tuple(turns), plan.voices)
            sound = fftconvolve(phrase, responses[speaker])[: len(phrase)]
            mixed[at : at + len(phrase)] += sound * (levels[speaker] / np.abs(sound).max())
            turns.append(_spoken(at, at + len(phrase), speaker))
            at += len(phrase) + round(rng.uniform(0.05, 0.45) * SAMPLE_RATE_HZ)
        gap_s = rng.uniform(-0.8, -0.1) if rng.random() < _OVERLAPPING else rng.gamma(2, 0.3)
        at, last = max(start, at + round(gap_s * SAMPLE_RATE_HZ)), speaker


def merged(turns: Sequence[SpeakerTurn], max_gap_ms: int = 250) -> tuple[SpeakerTurn, ...]:
    """Returns turns with shorter gaps within a speaker closed, as annotators close them."""
    found: list[SpeakerTurn] = []
    latest: dict[int, int] = {}
    for turn in sorted(turns, key=lambda one: one.start_ms):
        index = latest.get(turn.speaker)
        if index is not None and turn.start_ms - found[index].end_ms <= max_gap_ms:
            end_ms = max(found[index].end_ms, turn.end_ms)
            found[index] = replace(found[index], end_ms=end_ms)
            continue
        latest[turn.speaker] = len(found)
        found.append(turn)
    return tuple(found)


def _next_speaker(rng: np.random.Generator, shares: Sequence[float], last: int) -> int:
    weights = np.array(shares)
    if last >= 0 and len(shares) > 1:
        weights[last] = 0
    return int(rng.choice(len(shares), p=weights / weights.sum()))


def _turn(rng: np.random.Generator, voice: Voice, phrases: Sequence[Samples]) -> list[Samples]:
    if rng.random() < _INTERJECTIONS:
        shortest = sorted(range(len(phrases)), key=lambda index: len(phrases[index]))
        chosen = [int(rng.choice(shortest[: max(1, len(phrases) // 4)]))]
    else:
        chosen = list(rng.integers(len(phrases), size=rng.integers(1, _PHRASES_PER_TURN + 1)))
    speed = round(voice.speed * rng.uniform(0.97, 1.03), 3)
    return [played_at(phrases[index], speed) for index in chosen]


def _response(rng: np.random.Generator) -> Samples:
    """Returns the impulse response of a microphone in a room: a tilt, and a short echo."""
    length = round(0.25 * SAMPLE_RATE_HZ)
    decay_s = rng.uniform(0.02, 0.06)
    echo = rng.normal(size=length) * np.exp(-np.arange(length) / SAMPLE_RATE_HZ / decay_s)
    response = echo / np.linalg.norm(echo) * rng.uniform(0.1, 0.4)
    response[0] = 1
    response[1] = rng.uniform(-0.4, 0.4)
    return response.astype(np.float32)


def _noise(rng: np.random.Generator, num_samples: int) -> Samples:
    level = _PEAK * 10 ** (rng.uniform(-50, -32) / 20)
    return rng.normal(scale=level, size=num_samples).astype(np.float32)


def _spoken(start: int, end: int, speaker: int) -> SpeakerTurn:
    per_ms = SAMPLE_RATE_HZ // 1000
    return SpeakerTurn(start // per_ms, end // per_ms, speaker)
