"""Warnings and errors for hotwords that the model cannot use."""

from __future__ import annotations

from dataclasses import replace

from serve_app.api.parameters import Offer, RequestWarning, TranscriptionParameters
from serve_app.core.errors import InvalidParameter
from serve_app.core.records import HotwordCheck

_MAX_SHOWN_WORDS = 8


def report_hotwords(
    parameters: TranscriptionParameters, check: HotwordCheck, offer: Offer
) -> TranscriptionParameters:
    """Returns the parameters without the unusable words, and with a warning about them.

    Raises:
        InvalidParameter: hotwords are required and the model supports none, or some
            cannot be written and that is to be refused.
    """
    param = "hotwords" if parameters.needs_hotwords else "keywords"
    refuses = offer.unwritable_hotwords == "refuse"
    if check.no_use is not None:
        if parameters.needs_hotwords or refuses:
            raise InvalidParameter(param, f"cannot be used: {check.no_use}")
        return _reported(parameters, f"has no effect: {check.no_use}", param)
    if not check.unwritable:
        return parameters
    shown = ", ".join(check.unwritable[:_MAX_SHOWN_WORDS])
    if len(check.unwritable) > _MAX_SHOWN_WORDS:
        shown += f" and {len(check.unwritable) - _MAX_SHOWN_WORDS} more"
    if refuses:
        raise InvalidParameter(param, f"contains words that this model cannot write: {shown}")
    message = f"contains words that this model cannot write; they have no effect: {shown}"
    return _reported(parameters, message, param, frozenset(check.unwritable))


def _reported(
    parameters: TranscriptionParameters,
    message: str,
    param: str,
    left_out: frozenset[str] | None = None,
) -> TranscriptionParameters:
    recognition_options = parameters.recognition_options
    kept = tuple(
        word
        for word in recognition_options.hotwords
        if left_out is not None and word.text not in left_out
    )
    warning = RequestWarning(param, message)
    return replace(
        parameters,
        recognition_options=replace(recognition_options, hotwords=kept),
        warnings=(*parameters.warnings, warning),
    )
