"""Fingerprints that tie a result to the content of its file and to the configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from serve_app.batch.records import BatchItem, FileInfo, PackIdentity
from serve_app.batch.storage import filesystem_of, info_of
from serve_app.core.records import PackRole
from serve_app.core.speakers import ANY_NUMBER
from serve_app.inference.fingerprint import drafting_of
from serve_app.inference.precision import dtype_of
from serve_app.settings import Settings
from serve_app.transcript.subtitles import SubtitleOptions

OUTPUT_VERSION = 1
"""Version of the result JSON; results of other versions are computed again."""

_LENGTH = 32


@dataclass(frozen=True, slots=True)
class TranscriptConfig:
    """All settings that a transcript depends on.

    Results do not depend on devices and batch sizes.

    Attributes:
        models: by role, those of all stages of the job.
        recognizer_dtype: of the matrix products.
        punctuator_dtype: of the matrix products.
        max_end_silence_ms: of the VAD.
        max_segment_s: longest chunk.
        sentence_break_s: pause that ends a sentence; None for none.
        min_duration_s: shorter recordings are rejected.
        max_duration_s: longer recordings are rejected.
        language: of items that name none.
        itn: write numbers in digits.
        replacements: pairs of wrong and right phrases, in order.
        engine: of the recognizer.
        drafting: settings of Whisper drafts and their refinement; {} without drafts.
        subtitles: how text is divided into cues.
        speakers: number of speakers of items that name none, `any` if it is not known; None
            without labels.
        output_version: `OUTPUT_VERSION`.
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
    speakers: str | None = None
    output_version: int = OUTPUT_VERSION


def config_of(settings: Settings, models: Mapping[PackRole, PackIdentity]) -> TranscriptConfig:
    """Returns the settings that a transcript depends on, with the loaded packs."""
    recognizer = settings.recognizer
    return TranscriptConfig(
        models=dict(models),
        recognizer_dtype=dtype_of(recognizer),
        punctuator_dtype=dtype_of(settings.punctuator),
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
        speakers=settings.batch.speakers or ANY_NUMBER if "speakers" in settings.stages else None,
    )


def config_fingerprint(config: TranscriptConfig) -> str:
    """Returns 32 hexadecimal digits that depend on the whole configuration."""
    content = asdict(config)
    # Results without labels are older than these fields.
    del content["subtitles"]["with_speakers"]
    del content["subtitles"]["with_channels"]
    if config.speakers is None:
        del content["speakers"]
    return _digest(content)


def item_fingerprint(
    config_digest: str,
    item: BatchItem,
    file: FileInfo,
    *,
    max_separate_channels: int | None = None,
) -> str:
    """Returns 32 hexadecimal digits that depend on configuration, options and content.

    They do not depend on id, location, reference and metadata: a moved bucket or a corrected
    reference is no reason to transcribe again.

    Args:
        config_digest: `config_fingerprint`.
        item: its language, stages and number of speakers count.
        file: current size and version of the content.
        max_separate_channels: recordings with more are refused; None for the mix of the channels.
    """
    options: list[object] = [
        item.language,
        list(item.stages) if item.stages is not None else None,
    ]
    if item.speakers is not None:
        options.append(asdict(item.speakers))
    if max_separate_channels is not None:
        options.append({"max_separate_channels": max_separate_channels})
    return _digest([config_digest, options, file.size_bytes, file.version])


def file_info(item: BatchItem) -> FileInfo:
    """Returns the size and version of an item's file, from its listing or its store.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the store does not answer; a retry may help.
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
