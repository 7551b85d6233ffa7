"""Inverse text normalization of Mandarin: spoken numbers become written ones.

It is deliberately conservative: words that may not be a number (一些, 十分, 三四十, 二百五) stay as
spoken. Replacements of phrases are applied first.
"""

from serve_app.transcript.itn.replacements import (
    Replacement,
    check_replacements,
    merge_replacements,
    parse_replacements,
)
from serve_app.transcript.itn.rewriting import (
    AS_SAID,
    SentenceRewriter,
    TextRules,
    apply_rules,
    rewrite,
)

__all__ = [
    "AS_SAID",
    "Replacement",
    "SentenceRewriter",
    "TextRules",
    "apply_rules",
    "check_replacements",
    "merge_replacements",
    "parse_replacements",
    "rewrite",
]
