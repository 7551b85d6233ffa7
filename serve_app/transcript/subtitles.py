"""Writes SubRip and WebVTT subtitles with readable cues.

Sources: SubRip has no specification beyond its common use; WebVTT is
https://www.w3.org/TR/webvtt1/ (cue timings, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from serve_app.core.words import is_wide, join_words, needs_space
from serve_app.transcript.transcript import MarkedToken, Sentence
from serve_app.transcript.word_breaks import INSIDE_WORD, break_costs

_WIDE_CHARS_A_LINE, _NARROW_CHARS_A_LINE = 18, 42
_WIDE_CPS, _NARROW_CPS = 9.0, 17.0
_SENTENCE_ENDS = frozenset("。？！.?!")
# No cue spans a silence of this length; shorter ones add to the cost of a cue.
_LONGEST_PAUSE_MS = 1000
_PAUSE_MS = 250
_LONG_PAUSE_MS = 500
# Shorter cues disappear before they are noticed.
_TINY_LETTERS = 2

_COST_OF_CUE = 2.0
_COST_OF_FULLNESS = 3.0
_COST_OF_TINY = 60.0
_COST_OF_INNER_END = 3.0
_COST_OF_INNER_PAUSE = 4.0
_COST_OF_HASTE = 10.0
_COST_AFTER_MARK = 1.0


@dataclass(frozen=True, slots=True)
class SubtitleOptions:
    """The size and duration of cues.

    Attributes:
        max_chars: of a line; None for 18 Chinese characters or 42 Latin letters.
        max_lines: of a cue.
        min_duration_s: shortest time on screen, if the next cue allows it.
        max_duration_s: longest time on screen.
        max_cps: most characters per second, without marks and spaces; a cue with more is shown
            longer, if the next cue allows it. None for 9 Chinese characters or 17 Latin
            letters.
        with_speakers: name the speaker in each cue, where the sentences have labels.
        with_channels: name the channel in each cue, where the channels were separate.
    """

    max_chars: int | None = None
    max_lines: int = 2
    min_duration_s: float = 1.0
    max_duration_s: float = 7.0
    max_cps: float | None = None
    with_speakers: bool = False
    with_channels: bool = False


DEFAULT_SUBTITLES = SubtitleOptions()


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: its text, line by line, when it is shown, in ms, and who speaks it where."""

    start_ms: int
    end_ms: int
    text: str
    speaker: str | None = None
    channel: int | None = None


def cues(
    sentences: Iterable[Sentence],
    options: SubtitleOptions = DEFAULT_SUBTITLES,
    duration_ms: int | None = None,
) -> Iterator[Cue]:
    """Yields the cues of a transcript, in order; those of a channel never overlap.

    A sentence is one cue, unless it is too long to read: then it is divided into parts of
    similar length, preferably after a mark, in a pause or between two phrases. A sentence that
    is too short to read shares a cue with its neighbor, unless a silence of a second or a change
    of the speaker separates them. A cue with a single word may exceed the limits. Cues of
    different channels overlap only where the speech does; players show them together.

    Args:
        sentences: in order of time.
        options: of the cues.
        duration_ms: of the recording, which no cue exceeds; None if unknown.
    """
    layout = _Layout(options)
    by_channel: dict[int | None, list[Sentence]] = {}
    for sentence in sentences:
        by_channel.setdefault(sentence.channel, []).append(sentence)
    parts = [
        (part, speaker, channel)
        for channel, of_channel in by_channel.items()
        for speaker, stretch in _stretches(of_channel)
        for part in layout.divide(stretch)
    ]
    if len(by_channel) > 1:
        parts.sort(key=lambda one: one[0][0].start_ms)
    shown_until_ms = dict.fromkeys(by_channel, 0)
    for number, (part, speaker, channel) in enumerate(parts):
        start_ms = max(part[0].start_ms, shown_until_ms[channel])
        next_ms = parts[number + 1][0][0].start_ms if number + 1 < len(parts) else duration_ms
        end_ms = max(part[-1].end_ms, start_ms + 1)
        wanted_ms = start_ms + layout.wanted_ms(part)
        longest_ms = start_ms + layout.max_duration_ms
        free_until_ms = wanted_ms if next_ms is None else min(wanted_ms, next_ms)
        until_ms = min(max(end_ms, free_until_ms), max(longest_ms, start_ms + 1))
        shown_until_ms[channel] = until_ms
        yield Cue(start_ms, until_ms, layout.text(part), speaker, channel)


def to_srt(
    sentences: Iterable[Sentence],
    options: SubtitleOptions = DEFAULT_SUBTITLES,
    duration_ms: int | None = None,
) -> str:
    """Returns SubRip; with channels or speakers, each cue begins with "LABEL: "."""
    return "".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        f"{_srt_text(cue, options)}\n\n"
        for number, cue in enumerate(cues(sentences, options, duration_ms), start=1)
    )


def to_vtt(
    sentences: Iterable[Sentence],
    options: SubtitleOptions = DEFAULT_SUBTITLES,
    duration_ms: int | None = None,
) -> str:
    """Returns WebVTT; with channels or speakers, each cue begins with the tag `<v LABEL>`.

    Source: WebVTT, "WebVTT cue voice span".
    """
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_vtt_text(cue, options)}\n\n"
        for cue in cues(sentences, options, duration_ms)
    )


@dataclass(frozen=True, slots=True)
class _Word:
    """A token with its mark, and the cost of a line break after it.

    Attributes:
        text: with the mark.
        start_ms: of the token.
        end_ms: of the token.
        pause_ms: until the next word; 0 after the last.
        cost: of a break after it; `INSIDE_WORD` if there should be none.
        ends_sentence: whether a sentence ends here.
    """

    text: str
    start_ms: int
    end_ms: int
    pause_ms: int
    cost: float
    ends_sentence: bool


def _srt_text(cue: Cue, options: SubtitleOptions) -> str:
    label = _label(cue, options)
    return f"{label}: {cue.text}" if label else cue.text


def _vtt_text(cue: Cue, options: SubtitleOptions) -> str:
    text = _escape_vtt(cue.text)
    label = _label(cue, options)
    return f"<v {_escape_vtt(label)}>{text}" if label else text


def _label(cue: Cue, options: SubtitleOptions) -> str:
    """Returns who speaks, "" if that is not shown; channels are numbered from 1 for readers."""
    labels = []
    if options.with_channels and cue.channel is not None:
        labels.append(f"Channel {cue.channel + 1}")
    if options.with_speakers and cue.speaker is not None:
        labels.append(cue.speaker)
    return ", ".join(labels)


def _stretches(sentences: Iterable[Sentence]) -> Iterator[tuple[str | None, list[_Word]]]:
    """Yields runs of one speaker's words without a silence that ends a cue, with the speaker."""
    tokens = [
        (marked, number + 1 == len(sentence.tokens), sentence.speaker)
        for sentence in sentences
        for number, marked in enumerate(sentence.tokens)
    ]
    costs = [*break_costs([marked.token.text or "?" for marked, *_ in tokens]), 0.0]
    stretch: list[_Word] = []
    for number, (marked, last, speaker) in enumerate(tokens):
        pause_ms = 0
        if number + 1 < len(tokens):
            pause_ms = max(0, tokens[number + 1][0].token.start_ms - marked.token.end_ms)
        stretch.append(_word(marked, last, pause_ms, costs[number]))
        is_end = number + 1 == len(tokens) or tokens[number + 1][2] != speaker
        if is_end or pause_ms >= _LONGEST_PAUSE_MS:
            yield speaker, stretch
            stretch = []


def _word(marked: MarkedToken, last: bool, pause_ms: int, cost: float) -> _Word:
    ends = last or marked.mark in _SENTENCE_ENDS
    if ends:
        cost = 0.0
    elif marked.mark:
        cost = _COST_AFTER_MARK
    elif pause_ms >= _LONG_PAUSE_MS:
        cost = min(cost, INSIDE_WORD / 2) / 10
    elif pause_ms >= _PAUSE_MS and cost < INSIDE_WORD:
        cost /= 3
    token = marked.token
    return _Word(token.text + marked.mark, token.start_ms, token.end_ms, pause_ms, cost, ends)


@dataclass(frozen=True, slots=True)
class _Atom:
    """Words that stay on one line.

    Attributes:
        text: of the words, with their marks.
        start_ms: of the first word.
        end_ms: of the last word.
        size: in the units of `_Layout`.
        gap: size of the space after it; 0 without one.
        letters: number of characters without marks and spaces.
        reading_ms: time that a reader needs.
        cost: of a break after it.
        inner_cost: of continuing the cue after it.
    """

    text: str
    start_ms: int
    end_ms: int
    size: int
    gap: int
    letters: int
    reading_ms: float
    cost: float
    inner_cost: float


class _Layout:
    """Divides words into cues and lines.

    A line has `_line` units, the product of the limits for wide and for narrow characters. A
    wide character takes as many units as narrow ones fit on a line, and vice versa, so that
    mixed lines need no fractions.
    """

    def __init__(self, options: SubtitleOptions) -> None:
        self._wide_chars = options.max_chars or _WIDE_CHARS_A_LINE
        self._narrow_chars = options.max_chars or _NARROW_CHARS_A_LINE
        self._line = self._wide_chars * self._narrow_chars
        self._max_lines = options.max_lines
        self._min_duration_ms = round(options.min_duration_s * 1000)
        self.max_duration_ms = round(options.max_duration_s * 1000)
        self._wide_ms = 1000 / (options.max_cps or _WIDE_CPS)
        self._narrow_ms = 1000 / (options.max_cps or _NARROW_CPS)

    def divide(self, stretch: Sequence[_Word]) -> list[list[_Atom]]:
        """Divides words into cues at the least cost."""
        atoms = self._atoms(stretch)
        costs = [0.0]  # of all cues up to each atom
        firsts = [0]  # first atom of the last cue
        for end in range(1, len(atoms) + 1):
            # The end of a stretch costs nothing.
            after = atoms[end - 1].cost if end < len(atoms) else 0.0
            free_until_ms = atoms[end].start_ms if end < len(atoms) else None
            cost, first = self._best_last_cue(atoms, end, costs, free_until_ms)
            costs.append(cost + after)
            firsts.append(first)
        return _parts(atoms, firsts)

    def wanted_ms(self, part: Sequence[_Atom]) -> int:
        """Returns how long a cue should be shown to be noticed and read."""
        reading_ms = math.ceil(sum(atom.reading_ms for atom in part))
        return min(max(self._min_duration_ms, reading_ms), self.max_duration_ms)

    def text(self, part: Sequence[_Atom]) -> str:
        """Returns the text of a cue in as few lines as possible, of similar length."""
        return "\n".join(join_words(atom.text for atom in line) for line in self._lines(part))

    def _atoms(self, stretch: Sequence[_Word]) -> list[_Atom]:
        """Joins words that must not be separated, if they fit on a line."""
        atoms: list[_Atom] = []
        words: list[_Word] = []
        for number, word in enumerate(stretch):
            words.append(word)
            last = number + 1 == len(stretch)
            if word.cost < INSIDE_WORD or last:
                after = "" if last else stretch[number + 1].text
                whole = self._size(words) <= self._line
                groups = [words] if whole else [[one] for one in words]
                follow = [*(group[0].text for group in groups[1:]), after]
                atoms += [
                    self._atom(group, text) for group, text in zip(groups, follow, strict=True)
                ]
                words = []
        return atoms

    def _atom(self, words: Sequence[_Word], after: str) -> _Atom:
        text = join_words(word.text for word in words)
        letters = [character for character in text if character.isalnum()]
        num_wide = sum(map(is_wide, letters))
        last = words[-1]
        return _Atom(
            text,
            words[0].start_ms,
            last.end_ms,
            self._size(words),
            self._wide_chars if needs_space(text, after) else 0,
            len(letters),
            num_wide * self._wide_ms + (len(letters) - num_wide) * self._narrow_ms,
            last.cost,
            _inner_cost(last),
        )

    def _size(self, words: Sequence[_Word]) -> int:
        text = join_words(word.text for word in words)
        num_wide = sum(map(is_wide, text))
        return num_wide * self._narrow_chars + (len(text) - num_wide) * self._wide_chars

    def _best_last_cue(
        self,
        atoms: Sequence[_Atom],
        end: int,
        costs: Sequence[float],
        free_until_ms: int | None,
    ) -> tuple[float, int]:
        """Returns the least cost of the cues up to atom `end`, and the last cue's first atom.

        A cue of one atom is always possible, whatever its size.
        """
        best, best_first = math.inf, end - 1
        last_ms = atoms[end - 1].end_ms
        room = self._line * self._max_lines
        lines, in_line, size, letters, reading_ms, inner = 1, 0, 0, 0, 0.0, 0.0
        for first in range(end - 1, -1, -1):
            atom = atoms[first]
            gap = atom.gap if in_line else 0
            if in_line and in_line + gap + atom.size > self._line:
                lines, in_line, gap = lines + 1, 0, 0
            if first < end - 1:
                if lines > self._max_lines or last_ms - atom.start_ms > self.max_duration_ms:
                    break
                inner += atom.inner_cost
            in_line += gap + atom.size
            size, letters, reading_ms = (
                size + atom.size,
                letters + atom.letters,
                reading_ms + atom.reading_ms,
            )
            cost = costs[first] + _COST_OF_CUE + _COST_OF_FULLNESS * (size / room) ** 2 + inner
            if letters <= _TINY_LETTERS:
                cost += _COST_OF_TINY
            if free_until_ms is not None and cost < best:
                wanted_ms = max(reading_ms, self._min_duration_ms)
                shown_ms = max(free_until_ms - atom.start_ms, 0)
                if shown_ms < wanted_ms:
                    cost += _COST_OF_HASTE * (1 - shown_ms / wanted_ms)
            if cost < best:
                best, best_first = cost, first
        return best, best_first

    def _lines(self, part: Sequence[_Atom]) -> list[list[_Atom]]:
        best: list[tuple[int, float]] = [(0, 0.0)]  # number of lines, cost of their breaks
        firsts = [0]  # first atom of the last line
        for end in range(1, len(part) + 1):
            options: list[tuple[int, float, int]] = []
            in_line = 0
            for first in range(end - 1, -1, -1):
                in_line += part[first].size + (part[first].gap if in_line else 0)
                if in_line > self._line and first < end - 1:
                    break
                lines, cost = best[first]
                after = part[first - 1].cost if first > 0 else 0.0
                uneven = 2 * _COST_OF_FULLNESS * (in_line / self._line) ** 2
                options.append((lines + 1, cost + after + uneven, first))
            lines, cost, first = min(options)
            best.append((lines, cost))
            firsts.append(first)
        return _parts(part, firsts)


def _parts(atoms: Sequence[_Atom], firsts: Sequence[int]) -> list[list[_Atom]]:
    """Divides atoms, given the first atom of the last part up to each of them."""
    parts: list[list[_Atom]] = []
    end = len(atoms)
    while end > 0:
        parts.append(list(atoms[firsts[end] : end]))
        end = firsts[end]
    return parts[::-1]


def _inner_cost(word: _Word) -> float:
    """Returns the cost of continuing the cue after a word."""
    cost = _COST_OF_INNER_END if word.ends_sentence else 0.0
    if word.pause_ms >= _LONG_PAUSE_MS:
        cost += _COST_OF_INNER_PAUSE * word.pause_ms / _LONG_PAUSE_MS
    return cost


def _clock(time_ms: int, decimal_mark: str) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal_mark}{milliseconds:03d}"


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
