"""What the config.yaml of an ONNX pack says beyond that of the pack it came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serve_app.core.errors import PackCorrupt, PackError
from serve_app.engines.paraformer.cif_fire import CifShape
from serve_app.packs.pack import PackContents

ONNX_CLASS = "ParaformerOnnx"
"""`model:` of such a pack."""

ONNX_KIND = "paraformer-onnx"
"""What its record calls it."""

SECTION = "paraformer_onnx"
ENCODER_NAME = "encoder.onnx"
DECODER_NAME = "decoder.onnx"

_REMEDY = "Export the pack again with `paraserve models export`"


@dataclass(frozen=True, slots=True)
class OnnxShape:
    """How the graphs of a pack are run.

    Attributes:
        dtype: `float32` or `int8`, of the large products.
        source_class: FunASR's name for the architecture.
        source_checksum: sha256 of the checkpoint that was exported.
        decoder_sha256: of decoder.onnx; the pack's own checksum is the encoder's.
        lfr_m: spectra in a frame.
        lfr_n: spectra from a frame to the next.
        predictor: its constants.
        num_parameters: of the network.
    """

    dtype: str
    source_class: str
    source_checksum: str
    decoder_sha256: str
    lfr_m: int
    lfr_n: int
    predictor: CifShape
    num_parameters: int

    @property
    def has_timestamp_head(self) -> bool:
        """Whether the encoder's graph gives the weights of a second head."""
        return self.source_class != "Paraformer"

    def section(self) -> dict[str, Any]:
        """As config.yaml holds it."""
        return asdict(self)


def read_onnx_shape(pack: PackContents) -> OnnxShape:
    """Reads the section of an ONNX pack.

    Raises:
        PackError: the pack is none.
        PackCorrupt: the section is missing or makes no sense.
    """
    if pack.model_class != ONNX_CLASS:
        raise PackError(
            pack.name,
            f"model class {pack.model_class} is not what onnxruntime runs here",
            "Make an ONNX pack of it with `paraserve models export`, or leave the engine as it was",
        )
    try:
        section = dict(pack.config[SECTION])
        predictor = CifShape(**section.pop("predictor"))
        return OnnxShape(predictor=predictor, **section)
    except (KeyError, TypeError, ValueError) as error:
        raise PackCorrupt(
            pack.name, f"config.yaml has no usable section {SECTION}: {error!r}", _REMEDY
        ) from error


def decoder_of(pack: PackContents) -> Path:
    """Where the second graph lies."""
    path = pack.directory / DECODER_NAME
    if not path.is_file():
        raise PackCorrupt(pack.name, f"{DECODER_NAME} is missing", _REMEDY)
    return path
