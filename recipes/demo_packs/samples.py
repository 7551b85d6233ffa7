"""Make the demo recordings: `python -m recipes.demo_packs.samples`.

`demo.flac` is a minute of four voices in a meeting, `clip.flac` one sentence;
the JSON beside each says what is said, when and by which voice. No sentence of
them was trained on.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from recipes.demo_packs.augment import (
    add_noise,
    join_with_gaps,
    pad_with_silence,
    set_peak,
    trim_edges,
)
from recipes.demo_packs.noises import Samples, make_noise
from recipes.demo_packs.scripts import CLIP, MEETING, draw_script
from recipes.demo_packs.synthesizer import SAMPLE_RATE_HZ, Voice, shared_synthesizer

BUILTIN = Path(__file__).resolve().parents[2] / "serve_app" / "packs" / "builtin"
_SNR_DB = 30.0
_PEAK = 0.6
_MEETING_SEED, _CLIP_SEED = 1, 2


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence of a recording and where it lies in it."""

    text: str
    start_ms: int
    end_ms: int
    voice: str


def record(script: list[tuple[Voice, str]], seed: int) -> tuple[Samples, list[Line]]:
    """Speak a script with short pauses over a light background noise."""
    rng = random.Random(f"samples {seed}")
    spoken = [trim_edges(shared_synthesizer().speak(text, voice)) for voice, text in script]
    gaps_s = [round(rng.uniform(0.5, 1.2), 2) for _ in spoken[1:]]
    spoken = [replace(speech, samples=set_peak(speech.samples, _PEAK)) for speech in spoken]
    joined = pad_with_silence(join_with_gaps(spoken, gaps_s), 0.5, 0.6)
    lines: list[Line] = []
    first = 0
    for (voice, text), speech in zip(script, spoken, strict=True):
        spans = joined.spans[first : first + len(speech.spans)]
        first += len(speech.spans)
        start_ms, end_ms = (round(float(t) * 1_000) for t in (spans[0, 0], spans[-1, 1]))
        lines.append(Line(text, start_ms, end_ms, voice.variant))
    noise = make_noise("pink", len(joined.samples), np.random.default_rng(seed))
    return set_peak(add_noise(joined.samples, noise, _SNR_DB), _PEAK), lines


def write_recording(script: list[tuple[Voice, str]], path: Path, seed: int) -> None:
    """Write a recording as 16-bit FLAC and its lines as JSON beside it."""
    samples, lines = record(script, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    text = json.dumps([asdict(line) for line in lines], indent=2, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n")
    print(f"{path.name}: {len(samples) / SAMPLE_RATE_HZ:.2f} s, {len(lines)} sentences")


def write_samples(folder: Path) -> None:
    """Write both recordings."""
    write_recording(draw_script(MEETING, _MEETING_SEED), folder / "demo.flac", 1)
    write_recording(draw_script(CLIP, _CLIP_SEED), folder / "clip.flac", 2)


def main() -> None:
    """Write the recordings that ship with the packs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=BUILTIN / "samples")
    write_samples(parser.parse_args().out)


if __name__ == "__main__":
    main()
