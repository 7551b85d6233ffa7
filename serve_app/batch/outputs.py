"""Where the results of a job are kept, and how a result is written whole or not at all.

```
OUTPUT/transcripts/<shard>/<name>.json   a recording, and its .srt, .vtt, .txt
OUTPUT/failures.jsonl                    and report.json, .html, .png: of the last run
OUTPUT/_run/failures/<shard>/<name>.json a failure, until the recording succeeds
OUTPUT/_run/index.jsonl                  summaries of results, so that each is read once
OUTPUT/_run/attempts/                    and progress.json: of the job itself
```

At any moment, wherever a writer is killed: a JSON file is whole, the texts beside it belong to
the same transcript, and a recording without one is processed again. File names come from the
recording's id.
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
    """A summary, and the version of the file that it was read from."""

    file: FileInfo
    summary: ResultSummary


class OutputStore:
    """The results of a job, in a directory or a bucket.

    Any number of processes may write; two that write the same recording at the same time
    leave one whole result. Can be pickled, and costs nothing to open.

    Args:
        url: a path or a URL of fsspec.
        formats: what to write beside the JSON.
        files: instead of what `url` leads to.
        subtitles: how they are divided.
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

        Returns False, and writes nothing, if the same result is already there: a task that
        is run again after its worker died does no harm.

        Raises:
            OSError: it could not be written; nothing half written can be seen.
        """
        base = _base(finished.item.id)
        head = self.files.read(f"{base}.json", HEAD_BYTES)
        if head is not None:
            there = parse_head(head)
            if there is not None and self._is_same(there, finished):
                return False
            for name in set(TEXT_FORMATS) - set(self.formats):
                self.files.remove(f"{base}.{name}")
            # From here until the end the recording counts as not done.
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

        An older transcript of it, of another content or configuration, stays. Returns
        False, and records nothing, if the result is there after all.
        """
        there = self._summary(f"{_base(failure.id)}.json")
        if there is not None and there.fingerprint == failure.fingerprint:
            return False
        shown = asdict(failure) | {
            "uri": plain_uri(failure.uri),
            "reason": plain_text(failure.reason),
        }
        self.files.put(_failure_path(failure.id), _json_line(shown))
        return True

    def finished(self) -> dict[str, str]:
        """Returns the fingerprint of each recording that is done, by id."""
        return {key: summary.fingerprint for key, summary in self.summaries().items()}

    def summaries(self) -> dict[str, ResultSummary]:
        """Returns what is done, by id: a JSON is there, and a file for each format.

        One listing; only the beginnings of results that no call has read before are read.
        """
        listing = self.files.entries(_TRANSCRIPTS)
        documents = {path: file for path, file in listing.items() if path.endswith(".json")}
        indexed = self._read_index()
        known = {
            path: entry
            for path, file in documents.items()
            if (entry := indexed.get(path)) is not None and entry.file == file
        }
        unread = [path for path in documents if path not in known]
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            for path, summary in zip(unread, readers.map(self._summary, unread), strict=True):
                if summary is not None and path == f"{_base(summary.id)}.json":
                    known[path] = _Indexed(documents[path], summary)
        if unread:
            self._write_index(known)
        return {
            entry.summary.id: entry.summary
            for path, entry in known.items()
            if all(f"{path[:-5]}.{name}" in listing for name in self.formats)
        }

    def failures(self) -> list[Failure]:
        """Returns the recordings whose last attempt failed, in order of their ids."""
        paths = sorted(path for path in self.files.entries(_FAILURES) if path.endswith(".json"))
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            contents = list(readers.map(self.files.read, paths))
        found = [_failure_from(content) for content in contents if content is not None]
        return sorted((failure for failure in found if failure), key=lambda failure: failure.id)

    def collect_failures_jsonl(self, ids: Iterable[str] | None = None) -> list[Failure]:
        """Writes `failures.jsonl`, a line a recording, and returns what it holds.

        Args:
            ids: of the job's recordings, to leave out what failed in other jobs; None for all.
        """
        wanted = None if ids is None else set(ids)
        failures = [each for each in self.failures() if wanted is None or each.id in wanted]
        self.files.put(_FAILURES_JSONL, b"".join(_json_line(asdict(each)) for each in failures))
        return failures

    def sweep(self, older_than_s: float = 0.0) -> int:
        """Removes the unfinished files of writers that died; returns their number.

        They are never seen as results. Those that a living writer is at must be spared:
        give an age while one may be.
        """
        return self.files.sweep(older_than_s)

    def _is_same(self, there: ResultSummary, finished: FinishedRecording) -> bool:
        base = _base(finished.item.id)
        return there.fingerprint == finished.fingerprint and all(
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
    """The index only saves work: a line that cannot be read is left out."""
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
    """Returns the folder of a recording: one of 256, so that none grows too large."""
    return hashlib.sha256(recording_id.encode()).hexdigest()[:2]


def file_name(recording_id: str) -> str:
    """Returns a name that any file system and store takes; no two ids have the same.

    What is unsafe is percent-encoded, letters of any script stay. A name that would be too
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
        # Some file systems compose what others keep apart.
        or unicodedata.normalize("NFC", character) != character
        or unicodedata.combining(character) != 0
    )
    return _percent(character) if unsafe and character != " " else character


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
