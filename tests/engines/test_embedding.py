"""Loading a model must not import PyTorch's compiler: it takes more than a second and 70 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from serve_app.engines.embedding import empty_embedding
from tests.fakes.tiny_packs import TinyParaformer, write_paraformer

_PUNCTUATION = """
from serve_app.engines.ct_transformer import CtTransformerEngine
from serve_app.packs import PackStore, resolve
CtTransformerEngine(resolve("ct-punc-demo", PackStore(), fetch=False))
"""
_RECOGNIZER = """
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.packs.pack import open_pack
ParaformerEngine(open_pack(__import__("pathlib").Path({directory!r})))
"""


def _imports_compiler(code: str) -> bool:
    check = "import sys; sys.exit(7 if 'torch._dynamo' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], check=False)
    assert done.returncode in (0, 7)
    return done.returncode == 7


def test_punctuation_is_loaded_without_the_compiler() -> None:
    assert not _imports_compiler(_PUNCTUATION)


@pytest.mark.parametrize("model_class", ["Paraformer", "SeacoParaformer"])
def test_recognizer_is_loaded_without_the_compiler(tmp_path: Path, model_class: str) -> None:
    directory = write_paraformer(tmp_path / "tiny", TinyParaformer(model_class))
    assert not _imports_compiler(_RECOGNIZER.format(directory=str(directory)))


def test_embedding_has_a_trainable_table_on_the_default_device() -> None:
    with torch.device("meta"):
        table = empty_embedding(7, 3)
    assert table.weight.is_meta
    assert table.weight.shape == (7, 3)
    assert table.weight.requires_grad
