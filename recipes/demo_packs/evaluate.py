"""Measure the demo packs: `python -m recipes.demo_packs.evaluate`.

Prints a table and writes the same figures as JSON. Speech is synthesized from
held-out sentences (none was trained on) with every voice of the recipe; each
utterance is decoded alone, in float32, greedily. The figures say what the packs
do on this synthetic speech and nothing about real recordings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from recipes.demo_packs.loading import load_punctuator, load_recognizer
from recipes.demo_packs.measuring import Listener, speech_errors, wordless_characters
from recipes.demo_packs.punctuator import MARK_LIST, punctuate, split_marks
from recipes.demo_packs.sentences import held_out_sentences
from recipes.demo_packs.vocabulary import token_ids

BUILTIN = Path(__file__).resolve().parents[2] / "serve_app" / "packs" / "builtin"
_MEANINGS = {
    "sentences": "held-out sentences spoken",
    "cer_clean": "CER, clean, all voices (%)",
    "cer_worst_voice": "CER, clean, the worst voice (%)",
    "exact_clean": "sentences without an error (%)",
    "cer_noise_15_db": "CER with noise, 15 dB SNR (%)",
    "cer_joined": "CER, three sentences with 0.8 s gaps (%)",
    "said_on_silence": "characters said on clips of silence",
    "said_on_noise": "characters said on clips of noise",
    "said_on_music": "characters said on clips of music",
    "said_on_mixture": "characters said on clips of the training mixture",
    "wordless_clips": "clips of each of these",
    "start_error_ms": "mean error of a character's start (ms)",
    "start_bias_ms": "mean signed error of a character's start (ms)",
    "center_error_ms": "mean error of a character's center (ms)",
    "punctuated_sentences": "held-out sentences punctuated, in passages of four",
}


def measure_recognizer(folder: Path, num_sentences: int, num_clips: int) -> dict[str, float]:
    """Measure a recognizer's pack."""
    listener = Listener(*load_recognizer(folder))
    with torch.inference_mode():
        speech = speech_errors(listener, num_sentences, seed=11)
        wordless = wordless_characters(listener, num_clips, seed=11)
    return {"sentences": num_sentences, **speech, **wordless, "wordless_clips": num_clips}


def measure_punctuator(folder: Path, num_sentences: int) -> dict[str, float]:
    """F1 of every mark over passages of four held-out sentences."""
    model, tokens = load_punctuator(folder)
    ids = token_ids(tokens)
    stream = held_out_sentences(12, drill_share=0.0)
    counts = {mark: [0, 0, 0] for mark in MARK_LIST[2:]}  # right, wanted, given
    for _ in range(num_sentences // 4):
        passage = split_marks("".join(next(stream) for _ in range(4)))
        given = punctuate(model, passage.characters, ids)
        for mark, count in counts.items():
            wanted_id = MARK_LIST.index(mark)
            pairs = list(zip(passage.marks, given, strict=True))
            count[0] += sum(a == b == wanted_id for a, b in pairs)
            count[1] += sum(a == wanted_id for a, _ in pairs)
            count[2] += sum(b == wanted_id for _, b in pairs)
    scores = {
        f"f1_{mark}": 200.0 * right / max(1, wanted + given)
        for mark, (right, wanted, given) in counts.items()
    }
    return {"punctuated_sentences": num_sentences // 4 * 4, **scores}


def tabulate(figures: dict[str, float]) -> str:
    """Figures as a Markdown table."""
    rows = ["| what | figure |", "|---|---|"]
    for key, value in figures.items():
        name = _MEANINGS.get(key, key.replace("f1_", "F1 of ") + " (%)")
        rows.append(f"| {name} | {value:.2f} |" if value % 1 else f"| {name} | {value:.0f} |")
    return "\n".join(rows)


def main() -> None:
    """Measure both packs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packs", type=Path, default=BUILTIN, help="folder of both packs")
    parser.add_argument("--sentences", type=int, default=360, help="held-out sentences")
    parser.add_argument("--clips", type=int, default=100, help="wordless clips of each kind")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        **measure_recognizer(given.packs / "paraformer-demo", given.sentences, given.clips),
        **measure_punctuator(given.packs / "ct-punc-demo", 4 * given.sentences),
    }
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    print(tabulate(figures), text, sep="\n\n")
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
