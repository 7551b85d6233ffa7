"""What makes a result the result of this file and this configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from serve_app.batch.records import BatchItem, FileInfo, PackIdentity
from serve_app.batch.storage import filesystem_of, info_of
from serve_app.core.records import PackRole
from serve_app.inference.fingerprint import drafting_of
from serve_app.settings import Settings
from serve_app.transcript.subtitles import SubtitleOptions

OUTPUT_VERSION = 1
"""Of the JSON that is written per recording; another one means other results."""

_LENGTH = 32


@dataclass(frozen=True, slots=True)
class TranscriptConfig:
    """Everything but the recording itself that a transcript depends on.

    Devices and batch sizes are missing on purpose: results do not depend on them.

    Attributes:
        models: by what they are for, those that run unless an item leaves some out.
        recognizer_dtype: of the matrix products.
        punctuator_dtype: of the matrix products.
        max_end_silence_ms: of the VAD.
        max_segment_s: longest chunk.
        sentence_break_s: pause that ends a sentence.
        min_duration_s: shorter recordings are refused.
        max_duration_s: longer recordings are refused.
        language: where an item names none.
        itn: numbers are written in digits.
        replacements: wrong phrases and right ones, in order.
        engine: what runs the recognizer's pack.
        drafting: how Whisper drafts and what is refined; {} for an engine without drafts.
        subtitles: how they are divided into cues.
        output_version: of the JSON.
    """

    models: Mapping[PackRole, PackIdentity]
    recognizer_dtype: str
    punctuator_dtype: str
    max_end_silence_ms: int
    max_segment_s: float
    sentence_break_s: float | None
    min_duration_s: float
    max_duration_s: float
    language: str
    itn: bool
    replacements: tuple[tuple[str, str], ...]
    engine: str
    drafting: Mapping[str, object]
    subtitles: SubtitleOptions
    output_version: int = OUTPUT_VERSION


def config_of(settings: Settings, models: Mapping[PackRole, PackIdentity]) -> TranscriptConfig:
    """Returns what of the settings a transcript depends on, with the packs as loaded."""
    recognizer = settings.recognizer
    return TranscriptConfig(
        models=dict(models),
        recognizer_dtype=recognizer.dtype,
        punctuator_dtype=settings.punctuator.dtype,
        max_end_silence_ms=settings.vad.max_end_silence_ms,
        max_segment_s=settings.segmenter.max_segment_s,
        sentence_break_s=settings.punctuator.sentence_break_s,
        min_duration_s=settings.audio.min_duration_s,
        max_duration_s=settings.audio.max_duration_s,
        language=recognizer.languages[0],
        itn=settings.batch.itn,
        replacements=tuple((one.wrong, one.right) for one in settings.text.all_replacements()),
        engine=recognizer.engine,
        drafting=drafting_of(recognizer),
        subtitles=settings.subtitles.options(),
    )


def config_fingerprint(config: TranscriptConfig) -> str:
    """Returns 32 hexadecimal digits that change with anything in the configuration."""
    return _digest(asdict(config))


def item_fingerprint(config_digest: str, item: BatchItem, file: FileInfo) -> str:
    """Returns 32 hexadecimal digits that change with configuration, wishes or content.

    The id is not part of it, nor are place, reference and metadata: a bucket may move, and
    a corrected reference is no reason to transcribe again.

    Args:
        config_digest: `config_fingerprint`.
        item: its language and stages count.
        file: as the store describes the content now.
    """
    wishes = [item.language, list(item.stages) if item.stages is not None else None]
    return _digest([config_digest, wishes, file.size_bytes, file.version])


def file_info(item: BatchItem) -> FileInfo:
    """Returns the size and version of an item's file, from its listing or its store.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the store does not answer; trying again may help.
    """
    if item.file is not None:
        return item.file
    filesystem, path = filesystem_of(item.uri)
    details = filesystem.info(path)
    if details.get("type") == "directory":
        raise FileNotFoundError("it is a directory")
    return info_of(details)


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]
