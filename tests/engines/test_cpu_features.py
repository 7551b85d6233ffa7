from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.engines.cpu_features import multiplies_bfloat16


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f avx512_vnni", False),
        ("fpu avx2 avx512f avx512_bf16 clzero", True),
        ("fpu avx512f amx_tile amx_bf16", True),
        ("fpu amx_tile amx_int8", False),
        ("fpu xavx512_bf16", False),
    ],
)
def test_flags_of_the_processor_decide(tmp_path: Path, flags: str, expected: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx512_bf16\n\nprocessor\t: 1\n"
    )
    assert multiplies_bfloat16(cpuinfo) is expected


def test_system_that_does_not_tell_has_none(tmp_path: Path) -> None:
    assert not multiplies_bfloat16(tmp_path / "missing")
    (tmp_path / "empty").touch()
    assert not multiplies_bfloat16(tmp_path / "empty")
