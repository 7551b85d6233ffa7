"""The results of a job in a directory or bucket; a result that exists is complete.

```
OUTPUT/transcripts/<shard>/<name>.json   result of a recording, with its .srt, .vtt, .txt
OUTPUT/failures.jsonl                    of the last run, as report.json, .html and .png
OUTPUT/_run/failures/<shard>/<name>.json a failure, until the recording succeeds
OUTPUT/_run/index.jsonl                  cached summaries of results
OUTPUT/_run/attempts/                    journal of the job, beside progress.json
```

At any moment, even after a writer is killed, each JSON is complete and the texts beside it are
of the same transcript; a recording without a JSON is processed again. File names are derived
from the recording's id.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from serve_app.batch.records import TEXT_FORMATS, Failure, FileInfo, FinishedRecording
from serve_app.batch.result_json import (
    HEAD_BYTES,
    ResultSummary,
    parse_head,
    render_result_json,
    render_text,
    summary_from,
)
from serve_app.batch.storage import Files, open_files
from serve_app.batch.uris import plain_text, plain_uri
from serve_app.settings.batch import TextFormat
from serve_app.transcript.subtitles import DEFAULT_SUBTITLES, SubtitleOptions

_TRANSCRIPTS = "transcripts"
_FAILURES = "_run/failures"
_INDEX = "_run/index.jsonl"
_FAILURES_JSONL = "failures.jsonl"
_NUM_READERS = 32


@dataclass(frozen=True, slots=True)
class _Indexed:
    """A summary, and the version of the file from which it was read."""

    file: FileInfo
    summary: ResultSummary


class OutputStore:
    """The results of a job, in a directory or a bucket.

    Any number of processes may write; if two write the same recording at the same time, one
    complete result remains. Instances can be pickled; opening one does no I/O.

    Args:
        url: a path or a URL of fsspec.
        formats: to write beside the JSON.
        files: used instead of `url`.
        subtitles: how text is divided into cues.
    """

    def __init__(
        self,
        url: str,
        formats: Iterable[TextFormat] = (),
        files: Files | None = None,
        subtitles: SubtitleOptions = DEFAULT_SUBTITLES,
    ) -> None:
        self._subtitles = subtitles
        self.formats = tuple(name for name in TEXT_FORMATS if name in set(formats))
        self.files = files if files is not None else open_files(url)

    def write(self, finished: FinishedRecording) -> bool:
        """Writes a result; the JSON comes last and makes it visible.

        Returns False, and writes nothing, if the same result already exists, so a repeated
        task does no harm.

        Raises:
            OSError: it could not be written; no partial result is visible.
        """
        base = _base(finished.item.id)
        head = self.files.read(f"{base}.json", HEAD_BYTES)
        if head is not None:
            existing = parse_head(head)
            if existing is not None and self._is_same(existing, finished):
                return False
            for name in set(TEXT_FORMATS) - set(self.formats):
                self.files.remove(f"{base}.{name}")
            # From here until the end the recording counts as unfinished.
            self.files.remove(f"{base}.json")
        self.files.remove(_failure_path(finished.item.id))
        for name in self.formats:
            self.files.put(f"{base}.{name}", self._text(finished, name))
        self.files.put(f"{base}.json", render_result_json(finished))
        return True

    def _text(self, finished: FinishedRecording, text_format: TextFormat) -> bytes:
        return render_text(finished.transcript, text_format, self._subtitles)

    def write_failure(self, failure: Failure) -> bool:
        """Records why a recording has no result.

        An older transcript, of another content or configuration, is kept. Returns False,
        and records nothing, if the result exists.
        """
        existing = self._summary(f"{_base(failure.id)}.json")
        if existing is not None and existing.fingerprint == failure.fingerprint:
            return False
        shown = asdict(failure) | {
            "uri": plain_uri(failure.uri),
            "reason": plain_text(failure.reason),
        }
        self.files.put(_failure_path(failure.id), _json_line(shown))
        return True

    def finished(self) -> dict[str, str]:
        """Returns the fingerprint of each finished recording, by id."""
        return {key: summary.fingerprint for key, summary in self.summaries().items()}

    def summaries(self) -> dict[str, ResultSummary]:
        """Returns the summaries of finished recordings, by id.

        These have a JSON and a file for each format. Lists the folder once, and reads only
        the beginnings of results that are not in the index.
        """
        listing = self.files.list_files(_TRANSCRIPTS)
        results = {path: file for path, file in listing.items() if path.endswith(".json")}
        indexed = self._read_index()
        known = {
            path: entry
            for path, file in results.items()
            if (entry := indexed.get(path)) is not None and entry.file == file
        }
        unread = [path for path in results if path not in known]
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            for path, summary in zip(unread, readers.map(self._summary, unread), strict=True):
                if summary is not None and path == f"{_base(summary.id)}.json":
                    known[path] = _Indexed(results[path], summary)
        if unread:
            self._write_index(known)
        return {
            entry.summary.id: entry.summary
            for path, entry in known.items()
            if all(f"{path[:-5]}.{name}" in listing for name in self.formats)
        }

    def failures(self) -> list[Failure]:
        """Returns the recordings whose last attempt failed, in order of their ids."""
        paths = sorted(path for path in self.files.list_files(_FAILURES) if path.endswith(".json"))
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            contents = list(readers.map(self.files.read, paths))
        found = [_failure_from(content) for content in contents if content is not None]
        return sorted((failure for failure in found if failure), key=lambda failure: failure.id)

    def collect_failures_jsonl(self, ids: Iterable[str] | None = None) -> list[Failure]:
        """Writes `failures.jsonl`, a line a recording, and returns what it holds.

        Args:
            ids: recordings of the job; failures of others are left out. None for all.
        """
        wanted = None if ids is None else set(ids)
        failures = [each for each in self.failures() if wanted is None or each.id in wanted]
        self.files.put(_FAILURES_JSONL, b"".join(_json_line(asdict(each)) for each in failures))
        return failures

    def sweep(self, older_than_s: float = 0.0) -> int:
        """Removes temporary files of dead writers; returns their number.

        They never count as results. Pass an age while other writers may be active.
        """
        return self.files.sweep(older_than_s)

    def _is_same(self, existing: ResultSummary, finished: FinishedRecording) -> bool:
        base = _base(finished.item.id)
        return existing.fingerprint == finished.fingerprint and all(
            self.files.read(f"{base}.{name}", 1) is not None for name in self.formats
        )

    def _summary(self, path: str) -> ResultSummary | None:
        head = self.files.read(path, HEAD_BYTES)
        return None if head is None else parse_head(head)

    def _read_index(self) -> dict[str, _Indexed]:
        content = self.files.read(_INDEX) or b""
        return dict(_indexed_lines(content))

    def _write_index(self, known: Mapping[str, _Indexed]) -> None:
        self.files.put(
            _INDEX,
            b"".join(_json_line({"path": path, **asdict(entry)}) for path, entry in known.items()),
        )


def _base(recording_id: str) -> str:
    return f"{_TRANSCRIPTS}/{shard_of(recording_id)}/{file_name(recording_id)}"


def _failure_path(recording_id: str) -> str:
    return f"{_FAILURES}/{shard_of(recording_id)}/{file_name(recording_id)}.json"


def _failure_from(content: bytes) -> Failure | None:
    try:
        return Failure(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _indexed_lines(content: bytes) -> Iterator[tuple[str, _Indexed]]:
    """The index is only a cache: unreadable lines are skipped."""
    for line in content.splitlines():
        try:
            fields = json.loads(line)
            entry = _Indexed(FileInfo(**fields["file"]), summary_from(fields["summary"]))
            yield str(fields["path"]), entry
        except (ValueError, KeyError, TypeError):
            continue


def _json_line(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


_MAX_NAME_BYTES = 180
_UNSAFE = frozenset('%/\\:*?"<>|~')
_DIGEST_CHARACTERS = 32


def shard_of(recording_id: str) -> str:
    """Returns the folder of a recording, one of 256 to keep each small."""
    return hashlib.sha256(recording_id.encode()).hexdigest()[:2]


def file_name(recording_id: str) -> str:
    """Returns a unique name that any file system or store accepts.

    Unsafe characters are percent-encoded; letters of any script stay. A name that is too
    long is cut and ends in `~` and a digest of the whole id.
    """
    name = "".join(_escaped(character, at) for at, character in enumerate(recording_id))
    if name.endswith((".", " ")):
        name = name[:-1] + _percent(name[-1])
    if len(name.encode()) <= _MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(recording_id.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    room = _MAX_NAME_BYTES - 1 - _DIGEST_CHARACTERS
    return f"{name.encode()[:room].decode(errors='ignore')}~{digest}"


def _escaped(character: str, position: int) -> str:
    unsafe = (
        character in _UNSAFE
        or (character == "." and position == 0)
        or unicodedata.category(character)[0] in "CZ"
        # Some file systems normalize composed characters, others do not.
        or unicodedata.normalize("NFC", character) != character
        or unicodedata.combining(character) != 0
    )
    return _percent(character) if unsafe and character != " " else character


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
