"""Limits of a batch, and a model of how long batches take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

_MEMORY = 0.95
"""Decay of a batch's weight per later batch: about the last 20 batches count."""

_MAX_GROWTH = 4.0
"""A budget is at most this many times the largest recent batch: a line fitted to small
batches does not extrapolate far."""

_BACKGROUND_BATCH_S = 0.1


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one batch.

    Attributes:
        max_cost: upper bound of a batch's cost; a larger item runs alone.
        max_items: upper bound of a batch's length.
        padded: True when the engine pads, so that a batch costs its longest
            item times its length; False when it packs, so that costs add up.
        max_s: longest time that a batch should take, None for no limit: new items wait until
            the running batch ends. `BatchTimeModel` converts it into a cost.
    """

    max_cost: int
    max_items: int = 64
    padded: bool = False
    max_s: float | None = None

    def batch_cost(self, costs: Sequence[int]) -> int:
        if not costs:
            return 0
        return max(costs) * len(costs) if self.padded else sum(costs)

    def in_background(self) -> BatchLimits:
        """Returns the limits of a background batch: short, since others may have to wait for
        its end or share the cores with it."""
        return replace(self, max_s=min(self.max_s or _BACKGROUND_BATCH_S, _BACKGROUND_BATCH_S))


class BatchTimeModel:
    """Predicts how long a batch of one engine takes, from measured batches.

    The time is modeled as `a + b * cost`, fitted to recent batches by exponentially weighted
    least squares. While the costs vary too little to separate `a` from `b`, time is
    proportional to cost.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._cost = 0.0
        self._took_s = 0.0
        self._cost_squared = 0.0
        self._cost_took = 0.0
        self._size_s = 0.0
        self._largest = 0.0
        self._last_end = float("-inf")

    def observe(self, cost: int, size_s: float, began: float, ended: float) -> None:
        """Records a batch.

        Where batches overlap, only the time since the previous batch ended counts, so that
        no time is counted twice.

        Args:
            cost: of the batch, as `BatchLimits.batch_cost` says.
            size_s: seconds of audio in it, 0 if not applicable.
            began: monotonic s.
            ended: monotonic s; calls must be in this order.
        """
        took_s = max(ended - max(began, self._last_end), 1e-6)
        self._last_end = ended
        self._weight = self._weight * _MEMORY + 1.0
        self._cost = self._cost * _MEMORY + cost
        self._took_s = self._took_s * _MEMORY + took_s
        self._cost_squared = self._cost_squared * _MEMORY + cost * cost
        self._cost_took = self._cost_took * _MEMORY + cost * took_s
        self._size_s = self._size_s * _MEMORY + size_s
        self._largest = max(self._largest * _MEMORY, float(cost))

    @property
    def rtfx(self) -> float:
        """Seconds of audio processed per second of compute; 0 before the first batch."""
        return self._size_s / self._took_s if self._took_s else 0.0

    def expected_s(self, cost: int) -> float | None:
        """Returns the expected time of a batch in s, None before the first batch."""
        if not self._weight:
            return None
        fixed_s, per_cost_s = self._line()
        return fixed_s + per_cost_s * cost

    def limits(self, limits: BatchLimits) -> BatchLimits:
        """Returns the limits with `max_cost` reduced to what should take at most `max_s`.

        Before the first batch there is no estimate, and one item runs alone.
        """
        if limits.max_s is None:
            return limits
        if not self._weight:
            return replace(limits, max_cost=0)
        fixed_s, per_cost_s = self._line()
        budget = self._largest * _MAX_GROWTH
        if per_cost_s > 0:
            budget = min(budget, (limits.max_s - fixed_s) / per_cost_s)
        return replace(limits, max_cost=max(0, min(limits.max_cost, int(budget))))

    def _line(self) -> tuple[float, float]:
        """Returns a and b."""
        mean = self._cost / self._weight
        variance = self._cost_squared / self._weight - mean * mean
        proportional = self._took_s / self._cost if self._cost else 0.0
        if variance < (0.1 * mean) ** 2 or mean == 0:
            return 0.0, proportional
        mean_s = self._took_s / self._weight
        slope = (self._cost_took / self._weight - mean * mean_s) / variance
        fixed_s = mean_s - slope * mean
        if slope <= 0 or fixed_s < 0:
            return 0.0, proportional
        return fixed_s, slope
