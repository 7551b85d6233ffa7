"""The section that an exported ONNX pack adds to config.yaml."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serve_app.core.errors import PackCorrupt, PackError
from serve_app.engines.paraformer.cif_fire import CifShape
from serve_app.packs.pack import PackContents

ONNX_CLASS = "ParaformerOnnx"
"""`model:` of an ONNX pack."""

ONNX_KIND = "paraformer-onnx"
"""Kind of an ONNX pack in its manifest."""

SECTION = "paraformer_onnx"
ENCODER_NAME = "encoder.onnx"
DECODER_NAME = "decoder.onnx"

_REMEDY = "Export the pack again with `paraserve models export`"


@dataclass(frozen=True, slots=True)
class OnnxShape:
    """Parameters for running the graphs of a pack.

    Attributes:
        dtype: `float32` or `int8`, of the large products.
        source_class: FunASR's name for the architecture.
        source_checksum: sha256 of the checkpoint that was exported.
        decoder_sha256: of decoder.onnx; the pack's own checksum is the encoder's.
        lfr_m: spectra per frame.
        lfr_n: spectra between frames.
        predictor: constants of the predictor.
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
        """Whether the encoder's graph outputs the weights of a timestamp head."""
        return self.source_class != "Paraformer"

    def section(self) -> dict[str, Any]:
        """Returns the section of config.yaml."""
        return asdict(self)


def read_onnx_shape(pack: PackContents) -> OnnxShape:
    """Reads the section of an ONNX pack.

    Raises:
        PackError: the pack is not an ONNX pack.
        PackCorrupt: the section is missing or invalid.
    """
    if pack.model_class != ONNX_CLASS:
        raise PackError(
            pack.name,
            f"engine onnx cannot run model class {pack.model_class}",
            "Export it with `paraserve models export`, or choose another engine",
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
    """Returns the path of the decoder's graph.

    Raises:
        PackCorrupt: it is missing.
    """
    path = pack.directory / DECODER_NAME
    if not path.is_file():
        raise PackCorrupt(pack.name, f"{DECODER_NAME} is missing", _REMEDY)
    return path
