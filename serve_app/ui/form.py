"""The form next to the recording: the options that the API offers."""

from __future__ import annotations

from typing import Any

import gradio as gr

from serve_app.client import ClientError
from serve_app.ui.client import ApiClient, ApiOffer, Order, problem_of
from serve_app.ui.results import Json, ShownResult
from serve_app.ui.texts import Language, language_of, text

_CHOSEN_STAGES = ("vad", "punctuation")
MAX_HOTWORDS_CHARACTERS = 4000
MAX_KEY_CHARACTERS = 256

Update = dict[str, Any]


class ChoiceForm:
    """Model, stages, hotwords and key; shows what the API offers.

    Args:
        client: of the API.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self.offer = gr.State(None)
        self.key = gr.Textbox(
            type="password",
            visible=False,
            max_length=MAX_KEY_CHARACTERS,
            elem_id="ps-key",
            html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
        )
        self.model = gr.Dropdown(choices=[], visible=False, elem_id="ps-model", filterable=False)
        self.stages = gr.CheckboxGroup(choices=[], visible=False, elem_id="ps-stages")
        self.hotwords = gr.Textbox(
            visible=False,
            lines=2,
            max_length=MAX_HOTWORDS_CHARACTERS,
            elem_id="ps-hotwords",
        )

    @property
    def fields(self) -> list[gr.components.Component]:
        return [self.key, self.model, self.stages, self.hotwords]

    async def load(
        self, language: object, key: str | None
    ) -> tuple[Update | ApiOffer | Json | None, ...]:
        """Returns the offer, the fields for it, and what to show of a failure."""
        spoken = language_of(language)
        key = (key or "").strip()
        try:
            offer = await self._client.offer(key)
        except ClientError as refusal:
            problem = problem_of(refusal, with_key=bool(key))
            if problem not in ("key_missing", "key_refused"):
                result = ShownResult("")
                result.fail(problem, refusal.message, refusal.retry_after_s)
                return None, *_hidden(spoken, key=False), result.shown()
            result = ShownResult("", state="idle")
            if problem == "key_refused":
                result.fail(problem, refusal.message)
            return None, *_hidden(spoken, key=True), result.shown()
        fields = self._shown(spoken, offer, offer.models[0], None, key=bool(key))
        idle = ShownResult("", state="idle", demo_models=offer.demo_models)
        return offer, *fields, idle.shown()

    def translate(
        self,
        language: object,
        offer: ApiOffer | None,
        key: str | None,
        model: str,
        stages: list[str],
    ) -> tuple[Update, ...]:
        """Returns the fields in another language, with what was chosen."""
        spoken = language_of(language)
        if offer is None:
            return tuple(gr.update(**words) for words in _words(spoken))
        return self._shown(spoken, offer, model, stages, key=bool(key))

    def choose_model(self, offer: ApiOffer | None, model: str) -> Update:
        """Returns the field for hotwords, which some models do not take."""
        return gr.update(visible=offer is not None and model in offer.hotword_models)

    def order(
        self, offer: ApiOffer | None, model: str, stages: list[str] | None, hotwords: str
    ) -> Order:
        """Returns what the fields ask for."""
        chosen: tuple[str, ...] = ()
        takes_hotwords = False
        if offer is not None:
            free = set(_CHOSEN_STAGES) - set(stages or ())
            chosen = tuple(stage for stage in offer.stages if stage not in free)
            takes_hotwords = model in offer.hotword_models
        return Order(model, chosen, hotwords.strip() if takes_hotwords else "")

    def _shown(
        self,
        language: Language,
        offer: ApiOffer,
        model: str,
        stages: list[str] | None,
        *,
        key: bool,
    ) -> tuple[Update, ...]:
        choosable = [stage for stage in _CHOSEN_STAGES if stage in offer.stages]
        named = [(text(f"stage_{stage}", language), stage) for stage in choosable]
        words = _words(language)
        return (
            gr.update(visible=key, **words[0]),
            gr.update(visible=True, choices=list(offer.models), value=model, **words[1]),
            gr.update(
                visible=bool(choosable),
                choices=named,
                value=choosable if stages is None else stages,
                **words[2],
            ),
            gr.update(visible=model in offer.hotword_models, **words[3]),
        )


def _words(language: Language) -> tuple[Update, ...]:
    return (
        {"label": text("key", language), "info": text("key_info", language)},
        {"label": text("model", language)},
        {"label": text("stages", language)},
        {"label": text("hotwords", language), "info": text("hotwords_info", language)},
    )


def _hidden(language: Language, *, key: bool) -> tuple[Update, ...]:
    words = _words(language)
    return (gr.update(visible=key, **words[0]), *(gr.update(visible=False, **w) for w in words[1:]))
