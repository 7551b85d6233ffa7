"""Facts that others published about the recordings that the tests use."""

from __future__ import annotations

PUBLISHED_SEGMENTS_MS = [
    [70, 2340], [2620, 6200], [6480, 23670], [23950, 26250], [26780, 28990], [29950, 31430],
    [31750, 37600], [38210, 46900], [47310, 49630], [49910, 56460], [56740, 59540],
    [59820, 70450],
]  # fmt: skip
"""Of vad_example.wav, as FunASR publishes them."""
