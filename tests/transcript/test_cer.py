from __future__ import annotations

import pytest

from serve_app.transcript.cer import character_error_rate


@pytest.mark.parametrize(
    ("reference", "hypothesis", "cer"),
    [
        ("今天，天气好。", "今天天气好", 0.0),
        ("今天天气好", "今天天汽好", 0.2),
        ("今天天气好", "", 1.0),
        ("", "", 0.0),
        ("", "嗯", 1.0),
        ("Hello World", "hello world", 0.0),
    ],
)
def test_cer_counts_characters_without_marks(reference: str, hypothesis: str, cer: float) -> None:
    assert character_error_rate(reference, hypothesis) == pytest.approx(cer)
