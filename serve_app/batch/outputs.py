"""The results of a job in a directory or bucket; a result that exists is complete.

```
OUTPUT/transcripts/<path>.json           result of a recording, with its .srt, .vtt, .txt
OUTPUT/failures.jsonl                    of the last run, as report.json, .html and .png
OUTPUT/_run/failures/<shard>/<name>.json a failure, until the recording succeeds
OUTPUT/_run/index.jsonl                  cached summaries of results
OUTPUT/_run/layout.json                  how paths are derived from ids
OUTPUT/_run/attempts/                    journal of the job, beside progress.json
```

At any moment, even after a writer is killed, each JSON is complete and the texts beside it are
of the same transcript; a recording without a JSON is processed again. `output_paths` derives
the paths from the recordings' ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import get_args

from serve_app.batch.output_paths import FAILURES, TRANSCRIPTS, failure_path, result_path
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
from serve_app.settings.batch import Layout, TextFormat
from serve_app.transcript.subtitles import DEFAULT_SUBTITLES, SubtitleOptions

_LAYOUT = "_run/layout.json"
PROGRESS = "_run/progress.json"
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
        layout: of a new output; see `settle_layout`.

    Attributes:
        layout: how paths are derived from ids.
    """

    def __init__(
        self,
        url: str,
        formats: Iterable[TextFormat] = (),
        files: Files | None = None,
        subtitles: SubtitleOptions = DEFAULT_SUBTITLES,
        layout: Layout = "mirror",
    ) -> None:
        self._subtitles = subtitles
        self.layout: Layout = layout
        self.formats = tuple(name for name in TEXT_FORMATS if name in set(formats))
        self.files = files if files is not None else open_files(url)

    def settle_layout(self) -> Layout:
        """Records the layout of a new output, and takes over the layout of an older one.

        Results would otherwise be made again under other names.
        """
        recorded = _layout_from(self.files.read(_LAYOUT) or b"")
        if recorded is None and self.files.read(PROGRESS, 1) is not None:
            recorded = "hashed"  # the only layout before it was recorded
        self.layout = recorded or self.layout
        if recorded is None:
            self.files.put(_LAYOUT, _json_line({"layout": self.layout}))
        return self.layout

    def text_path_of(self, recording_id: str) -> str:
        """Returns the path of the file with a recording's text that is best read by people."""
        suffix = next((name for name in ("txt", "srt", "vtt") if name in self.formats), "json")
        return f"{self._base(recording_id)}.{suffix}"

    def write(self, finished: FinishedRecording) -> bool:
        """Writes a result; the JSON comes last and makes it visible.

        Returns False, and writes nothing, if the same result already exists, so a repeated
        task does no harm.

        Raises:
            OSError: it could not be written; no partial result is visible.
        """
        base = self._base(finished.item.id)
        head = self.files.read(f"{base}.json", HEAD_BYTES)
        if head is not None:
            existing = parse_head(head)
            if existing is not None and self._is_same(existing, finished):
                return False
            for name in set(TEXT_FORMATS) - set(self.formats):
                self.files.remove(f"{base}.{name}")
            # From here until the end the recording counts as unfinished.
            self.files.remove(f"{base}.json")
        self.files.remove(failure_path(finished.item.id))
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
        existing = self._summary(f"{self._base(failure.id)}.json")
        if existing is not None and existing.fingerprint == failure.fingerprint:
            return False
        shown = asdict(failure) | {
            "uri": plain_uri(failure.uri),
            "reason": plain_text(failure.reason),
        }
        self.files.put(failure_path(failure.id), _json_line(shown))
        return True

    def finished(self) -> dict[str, str]:
        """Returns the fingerprint of each finished recording, by id."""
        return {key: summary.fingerprint for key, summary in self.summaries().items()}

    def summaries(self) -> dict[str, ResultSummary]:
        """Returns the summaries of finished recordings, by id.

        These have a JSON and a file for each format. Lists the folder once, and reads only
        the beginnings of results that are not in the index.
        """
        listing = self.files.list_files(TRANSCRIPTS)
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
                if summary is not None and path == f"{self._base(summary.id)}.json":
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
        paths = sorted(path for path in self.files.list_files(FAILURES) if path.endswith(".json"))
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

    def _base(self, recording_id: str) -> str:
        return result_path(recording_id, self.layout)

    def _is_same(self, existing: ResultSummary, finished: FinishedRecording) -> bool:
        base = self._base(finished.item.id)
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


def _layout_from(content: bytes) -> Layout | None:
    try:
        layout = json.loads(content)["layout"]
    except (ValueError, KeyError, TypeError):
        return None
    return layout if layout in get_args(Layout) else None


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
