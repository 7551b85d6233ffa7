"""Inverse text normalisation of Mandarin: spoken numbers become written ones.

Conservative on purpose: what is not certainly a number (一些, 十分, 三四十, 二百五) stays
as it was said.
"""

from serve_app.core.itn.rewriting import rewrite, rewrite_events

__all__ = ["rewrite", "rewrite_events"]
