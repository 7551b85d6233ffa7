"""What a deployment offers, from its settings."""

from __future__ import annotations

from serve_app.api.parameters import Offer
from serve_app.settings import Settings


def offer_of(settings: Settings) -> Offer:
    """Returns what a deployment with these settings can do for a request.

    Raises:
        ConfigurationError: the file of replacements cannot be used.
    """
    section = settings.recognizer
    first, *others = section.models
    return Offer(
        model=first,
        model_aliases=settings.ingress.model_aliases,
        languages=section.languages,
        stages=settings.stages,
        default_language=section.default_language,
        other_models=tuple(others),
        takes_keywords=section.engine == "hybrid",
        guesses_language=section.engine in ("whispercpp", "hybrid"),
        serves_paraformer=section.engine != "whispercpp",
        unknown_fields=settings.http.unknown_fields,
        unwritable_hotwords=section.unwritable_hotwords,
        subtitles=settings.subtitles,
        replacements=settings.text.all_replacements(),
    )
