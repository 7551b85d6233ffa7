"""Make the demo packs: `python -m recipes.demo_packs.train --minutes 80`.

One command draws sentences from the templates, speaks them with espeak-ng,
trains the punctuator and the recognizer, exports both in FunASR's format,
measures them on held-out sentences, writes their model cards and records the
demo clips. It needs libespeak-ng (Debian: libespeak-ng1), funasr and one CPU core
beside a light helper process. The packs that ship took 80 minutes of a busy core;
their cards say in which runs. Give every process one thread that does not spin:

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 \\
        python -m recipes.demo_packs.train --minutes 80 --out packs

The averaged weights are saved every two minutes in the work folder; with
`--export-only` the command exports and measures what lies there, with `--resume`
it first trains that recognizer on.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recipes.demo_packs.card import Making, punctuator_card, recognizer_card
from recipes.demo_packs.evaluate import measure_punctuator, measure_recognizer
from recipes.demo_packs.exporting import export_punctuator, export_recognizer
from recipes.demo_packs.features import Matrix
from recipes.demo_packs.fitting import FitSettings, fit_recognizer
from recipes.demo_packs.measuring import Listener, speech_errors, wordless_characters
from recipes.demo_packs.punctuator import build_punctuator, fit_punctuator
from recipes.demo_packs.recognizer import build_recognizer
from recipes.demo_packs.samples import write_samples
from recipes.demo_packs.vocabulary import speech_tokens

log = logging.getLogger(__name__)
_MODULE = "recipes.demo_packs.train"
_PENDING = "Exported, not measured yet.\n"


@dataclass(frozen=True, slots=True)
class Order:
    """What to make.

    Attributes:
        out: folder that receives both packs and the samples.
        work: folder of the checkpoints.
        punctuation_steps: training steps of the punctuator.
        num_sentences: held-out sentences to measure on.
        num_clips: wordless clips of each kind to measure on.
    """

    out: Path
    work: Path
    punctuation_steps: int
    num_sentences: int
    num_clips: int


def train(order: Order, settings: FitSettings, resume: bool) -> None:
    """Train both models and leave their checkpoints in the work folder."""
    order.work.mkdir(parents=True, exist_ok=True)
    if not resume:
        punctuator = fit_punctuator(order.punctuation_steps, settings.seed)
        state = {"model": punctuator.state_dict(), "steps": order.punctuation_steps}
        torch.save(state, order.work / "punctuator.pt")
    fit_recognizer(settings, order.work / "recognizer.pt", _progress, resume)


def export(order: Order) -> None:
    """Export the checkpoints, measure the packs and write their cards."""
    heard = torch.load(order.work / "recognizer.pt", weights_only=True)
    marked = torch.load(order.work / "punctuator.pt", weights_only=True)
    recognizer, cmvn = build_recognizer(len(speech_tokens())), heard["cmvn"].numpy()
    recognizer.load_state_dict(heard["model"])
    punctuator = build_punctuator()
    punctuator.load_state_dict(marked["model"])
    making = _describe(heard["runs"], marked["steps"])
    pack = export_recognizer(recognizer, cmvn, _PENDING, order.out)
    figures = measure_recognizer(pack, order.num_sentences, order.num_clips)
    log.info("recognizer %s", json.dumps(figures))
    (pack / "MODEL_CARD.md").write_text(recognizer_card(making, figures))
    pack = export_punctuator(punctuator, _PENDING, order.out)
    figures = measure_punctuator(pack, 4 * order.num_sentences)
    log.info("punctuator %s", json.dumps(figures, ensure_ascii=False))
    (pack / "MODEL_CARD.md").write_text(punctuator_card(making, figures))


def _progress(model: nn.Module, cmvn: Matrix) -> dict[str, float]:
    listener = Listener(model, cmvn, speech_tokens())
    return {**speech_errors(listener, 48, seed=7), **wordless_characters(listener, 20, seed=7)}


def _describe(runs: list[dict[str, Any]], punctuation_steps: int) -> Making:
    commands, texts = [], []
    for i, run in enumerate(runs):
        options = f"--seed {run['seed']} --minutes {run['minutes']:g}"
        options += f" --peak-rate {run['peak_rate']:g} --fall-from {run.get('fall_from', 0.5):g}"
        commands.append(f"python -m {_MODULE} {options}" + (" --resume" if i else ""))
        texts.append(
            f"{run['steps']:,} steps ({run['hours_heard']:.0f} hours of speech) in "
            f"{run['minutes']:g} minutes"
        )
    # What the command alone would not tell, for instance an older recipe's part.
    remarks = [run["remark"] for run in runs if "remark" in run]
    return Making(
        command="\n".join(commands),
        recognizer_run="Trained for "
        + ", then for\n".join(texts)
        + "\n".join((", on one busy CPU thread.", *remarks)),
        punctuator_run=f"Trained for {punctuation_steps:,} steps on one CPU thread.",
    )


def main() -> int:
    """Run the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=80.0, help="budget of the recognizer")
    parser.add_argument("--out", type=Path, default=Path("packs"), help="where the packs go")
    parser.add_argument("--work", type=Path, help="checkpoints (default: OUT/work)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--punctuation-steps", type=int, default=3_200)
    parser.add_argument("--peak-rate", type=float, default=1.5e-3, help="learning rate")
    parser.add_argument("--fall-from", type=float, default=0.5, help="share at constant rate")
    parser.add_argument("--resume", action="store_true", help="go on from the work folder")
    parser.add_argument("--sentences", type=int, default=360, help="held-out, to measure on")
    parser.add_argument("--clips", type=int, default=100, help="wordless, of each kind")
    parser.add_argument("--export-only", action="store_true", help="do not train")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    order = Order(
        out=given.out,
        work=given.work or given.out / "work",
        punctuation_steps=given.punctuation_steps,
        num_sentences=given.sentences,
        num_clips=given.clips,
    )
    if not given.export_only:
        settings = FitSettings(
            minutes=given.minutes,
            seed=given.seed,
            peak_rate=given.peak_rate,
            fall_from=given.fall_from,
        )
        train(order, settings, given.resume)
    export(order)
    write_samples(order.out / "samples")
    return 0


if __name__ == "__main__":
    sys.exit(main())
