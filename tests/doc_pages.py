"""What the pages of the documentation say: their commands, paths and names of settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
)
"""Pages that say how things are now. Decisions and the changelog say how they were."""

_BLOCK = re.compile(r"^ *```(?:sh|bash)\n(.*?)^ *```", re.S | re.M)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_HERE_DOCUMENT = re.compile(r"<<'(\w+)'\n.*?^\1$", re.S | re.M)
_SEPARATORS = frozenset({"&&", "||", "|", ";", "&", ">", "<", "(", ")", "|&"})
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")
# In spans, brackets hold what may be left out, and dots stand for more.
_NO_COMMAND = re.compile(r"\[[^\]]*\]|\.\.\.|…")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page.

    Attributes:
        page: where it stands.
        words: program and arguments.
        is_complete: whether it stands in a block to be copied, not in a sentence.
    """

    page: str
    words: tuple[str, ...]
    is_complete: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands_of(page: str) -> Iterator[Command]:
    """Yields the commands of a page: those in blocks of shell, and those in spans of code."""
    text = text_of(page)
    for block in _BLOCK.findall(text):
        script = _HERE_DOCUMENT.sub("", block.replace("\\\n", " "))
        for line in script.splitlines():
            yield from _commands_in(line, page, is_complete=True)
    without_blocks = re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M)
    for span in _SPAN.findall(without_blocks):
        line = _NO_COMMAND.sub("", span.replace("\\|", "|"))
        yield from _commands_in(line, page, is_complete=False)


def _commands_in(line: str, page: str, *, is_complete: bool) -> Iterator[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:
        # Not shell: half of a quotation in a sentence.
        return
    words: list[str] = []
    for token in [*tokens, ";"]:
        if token not in _SEPARATORS:
            words.append(token)
            continue
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        if words and (words[0] in ("paraserve", "python", "make", "pytest")):
            yield Command(page, tuple(words), is_complete)
        words = []


def cited_files(page: str) -> set[str]:
    """Returns the paths of ours that a page names, relative to the root or to serve_app."""
    pattern = r"(?<![\w/.:-])((?:[\w-]+/)+[\w.-]+\.(?:py|sh|yaml|md|json|html))(?![\w/])"
    return set(re.findall(pattern, text_of(page)))


def cited_modules(page: str) -> set[str]:
    """Returns the dotted names below serve_app that a page names."""
    return set(re.findall(r"(?<![\w/.])(serve_app(?:\.\w+)+)", text_of(page)))


def cited_settings(page: str, sections: frozenset[str]) -> set[str]:
    """Returns the names of settings in spans of code: `section.name`, `--set section.name=...`."""
    names = set()
    for span in _SPAN.findall(text_of(page)):
        for match in re.finditer(r"(?<![\w./-])([a-z_]+(?:\.[a-z_0-9]+)+)(?![\w/(*])", span):
            if match[1].partition(".")[0] in sections:
                names.add(match[1])
    return names


def set_arguments(words: tuple[str, ...]) -> Iterator[str]:
    """Yields the names in `--set NAME=VALUE` and `--set=NAME=VALUE`."""
    for word, following in zip(words, (*words[1:], ""), strict=True):
        if word == "--set":
            yield following.partition("=")[0]
        elif word.startswith("--set="):
            yield word.removeprefix("--set=").partition("=")[0]
