"""Training the recognizer within a number of minutes."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from recipes.demo_packs.batches import start_batches
from recipes.demo_packs.examples import ExampleStream
from recipes.demo_packs.features import ROW_S, Matrix
from recipes.demo_packs.recognizer import Losses, Trainee
from recipes.demo_packs.vocabulary import END_ID, speech_tokens, token_ids

log = logging.getLogger(__name__)
_CMVN_EXAMPLES = 400
_MIN_STD = 0.1


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How long and how to train.

    Attributes:
        minutes: wall-clock budget; the schedule is a function of its share spent.
        seed: of the data and the weights.
        max_rows: rows (60 ms each) in a batch.
        peak_rate: AdamW's learning rate between warm-up and fall.
        fall_from: share of the budget after which the rate falls, to 2 % at the end.
        warm_up_steps: steps of linear warm-up.
        sampling_from: share of the budget after which the sampler helps the decoder.
        average_decay: of the exponential moving average of the weights.
        save_every_s: seconds between checkpoints.
        measure_every_s: seconds between measurements.
    """

    minutes: float
    seed: int = 1
    max_rows: int = 480
    peak_rate: float = 1.5e-3
    fall_from: float = 0.5
    warm_up_steps: int = 200
    sampling_from: float = 0.33
    average_decay: float = 0.999
    save_every_s: float = 120.0
    measure_every_s: float = 300.0


def learning_rate(step: int, spent: float, settings: FitSettings) -> float:
    """Warm up, stay constant, then fall linearly to 2 %."""
    warm = min(1.0, (step + 1) / settings.warm_up_steps)
    left = (1.0 - spent) / (1.0 - settings.fall_from)
    fall = min(1.0, max(0.02, 0.02 + 0.98 * left))
    return settings.peak_rate * warm * fall


def measure_cmvn(seed: int) -> Matrix:
    """Shift and scale, float32 (2, 560), over a few hundred examples."""
    stream = ExampleStream(token_ids(speech_tokens()), seed + 1_000_003)
    rows = np.concatenate([stream.draw().rows for _ in range(_CMVN_EXAMPLES)])
    scale = 1.0 / np.maximum(rows.std(axis=0), _MIN_STD)
    return np.stack([-rows.mean(axis=0), scale]).astype(np.float32)


class MovingAverage:
    """An exponential moving average of a module's weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from the module's weights."""
        self.module = copy.deepcopy(module).eval()
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move toward the module; faster at first, when its weights are noise."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for mine, theirs in zip(self.module.parameters(), module.parameters(), strict=True):
            mine.lerp_(theirs, 1.0 - decay)


def save_checkpoint(
    path: Path, average: nn.Module, cmvn: Matrix, runs: list[dict[str, Any]]
) -> None:
    """Write the averaged weights atomically."""
    partial = path.with_suffix(".partial")
    state = {"model": average.state_dict(), "cmvn": torch.from_numpy(cmvn), "runs": runs}
    torch.save(state, partial)
    partial.replace(path)


def fit_recognizer(
    settings: FitSettings,
    checkpoint: Path,
    measure: Callable[[nn.Module, Matrix], dict[str, float]],
    resume: bool = False,
) -> None:
    """Train, and leave the averaged weights in `checkpoint` every few minutes.

    With `resume` the run begins with the weights that lie there.
    """
    torch.manual_seed(settings.seed)
    ids = token_ids(speech_tokens())
    trainee = Trainee(len(ids))
    cmvn, runs = _begin(trainee, settings, checkpoint if resume else None)
    average = MovingAverage(trainee.model, settings.average_decay)
    optimizer = torch.optim.AdamW(trainee.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    batches = start_batches(ids, cmvn, END_ID, settings.max_rows, settings.seed)
    begun = saved = measured = time.monotonic()
    rows, step, spent = 0, 0, 0.0
    while spent < 1.0:
        batch = next(batches)
        rate = learning_rate(step, spent, settings)
        ratio = 0.5 if resume or spent > settings.sampling_from else 0.0
        losses = trainee.losses(batch, ratio, head_only=resume and step < settings.warm_up_steps)
        _descend(trainee, optimizer, losses, rate)
        average.update(trainee.model)
        step += 1
        rows += int(batch.num_rows.sum())
        now = time.monotonic()
        spent = (now - begun) / (settings.minutes * 60.0)
        if step % 100 == 0:
            _log_step(step, spent, rows, losses)
        if now - saved > settings.save_every_s or spent >= 1.0:
            run = {**asdict(settings), "steps": step, "hours_heard": rows * ROW_S / 3600}
            save_checkpoint(checkpoint, average.module, cmvn, [*runs, run])
            saved = now
        if now - measured > settings.measure_every_s:
            log.info("measured %s", json.dumps(measure(average.module, cmvn)))
            measured = time.monotonic()
    batches.close()


def _begin(
    trainee: Trainee, settings: FitSettings, checkpoint: Path | None
) -> tuple[Matrix, list[dict[str, Any]]]:
    if checkpoint is None:
        return measure_cmvn(settings.seed), []
    before = torch.load(checkpoint, weights_only=True)
    trainee.model.load_state_dict(before["model"])
    return before["cmvn"].numpy(), before["runs"]


def _descend(
    trainee: Trainee, optimizer: torch.optim.Optimizer, losses: Losses, rate: float
) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(trainee.parameters(), 5.0)
    optimizer.step()


def _log_step(step: int, spent: float, rows: int, losses: Losses) -> None:
    log.info(
        "step %d spent %.3f heard %.2f h token %.3f frame %.3f drift %.3f accuracy %.3f",
        step, spent, rows * ROW_S / 3600, losses.token, losses.frame, losses.drift, losses.accuracy,
    )  # fmt: skip
