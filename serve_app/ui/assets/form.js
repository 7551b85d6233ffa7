// The options of a transcription: those that the service offers, and no others.
"use strict";

const OPTIONAL_STAGES = ["vad", "punctuation", "speakers"];
const OFF_AT_FIRST = ["itn", "speakers", "separate_channels"];
const MAX_LISTED_SPEAKERS = 10;

class OptionForm {
  constructor(onKey) {
    this.offer = null;
    this.keyInput = el("input", { id: "ps-key-input", type: "password", autocomplete: "off", maxlength: "256", "aria-describedby": "ps-key-info" });
    this.keyForm = el("form", { class: "ps-field", id: "ps-key", hidden: "" },
      say(el("label", { for: "ps-key-input" }), "key"),
      el("div", { class: "ps-inline" }, this.keyInput, say(el("button", { class: "ps-plain" }), "use_key")),
      say(el("small", { id: "ps-key-info" }), "key_info"));
    this.keyForm.onsubmit = (event) => { event.preventDefault(); onKey(this.key()); };
    this.model = el("select", { id: "ps-model-input" });
    this.model.onchange = () => this._showHotwords();
    this.language = el("select", { id: "ps-language-input" });
    this.hotwords = el("textarea", {
      id: "ps-hotwords-input", rows: "2", maxlength: String(paraserveFacts.maxHotwordsCharacters), "aria-describedby": "ps-hotwords-info",
    });
    this.checks = Object.fromEntries([...OPTIONAL_STAGES.map((stage) => [stage, `stage_${stage}`]), ["itn", "itn"], ["separate_channels", "separate_channels"]]
      .map(([name, text]) => {
        const input = el("input", { type: "checkbox", id: `ps-check-${name}` });
        input.checked = !OFF_AT_FIRST.includes(name);
        input.onchange = () => this._showSpeakers();
        return [name, { input, row: el("label", { class: "ps-check" }, input, say(el("span", {}), text)) }];
      }));
    this.speakers = el("select", { id: "ps-speakers-input" }, say(el("option", { value: "0" }), "num_speakers_any"),
      ...Array.from({ length: MAX_LISTED_SPEAKERS }, (_, index) => el("option", { value: String(index + 1) }, String(index + 1))));
    this.speakersField = this._field("ps-speakers", "num_speakers", this.speakers);
    this.modelField = this._field("ps-model", "model", this.model);
    this.languageField = this._field("ps-language", "language", this.language);
    this.hotwordsField = this._field("ps-hotwords", "hotwords", this.hotwords,
      say(el("small", { id: "ps-hotwords-info" }), "hotwords_info"));
    this.options = el("fieldset", { class: "ps-options", hidden: "" }, say(el("legend", {}), "options"),
      this.modelField, this.languageField,
      el("div", { class: "ps-checks", id: "ps-stages" }, ...Object.values(this.checks).map(({ row }) => row)),
      this.speakersField,
      this.hotwordsField);
    this.element = el("div", { class: "ps-form" }, this.keyForm, this.options);
  }

  _field(id, text, input, ...more) {
    return el("div", { class: "ps-field", id }, say(el("label", { for: input.id }), text), input, ...more);
  }

  key() { return this.keyInput.value.trim(); }

  /** Shows what is offered; a problem with the key shows its field. */
  show(offer, problem) {
    this.offer = offer;
    if (problem === "key_missing" || problem === "key_refused" || (offer && this.key())) this.keyForm.hidden = false;
    else if (offer) this.keyForm.hidden = true;
    this.options.hidden = !offer;
    if (!offer) return;
    const chosen = this.model.value;
    this.model.replaceChildren(...offer.models.map((name) => offer.demo_models.includes(name)
      ? say(el("option", { value: name }), "demo_model", { name }) : el("option", { value: name }, name)));
    if (offer.models.includes(chosen)) this.model.value = chosen;
    this.languageField.hidden = offer.languages.length < 2;
    this.language.replaceChildren(say(el("option", { value: "" }), "language_default"),
      ...offer.languages.map((code) => code === "auto"
        ? say(el("option", { value: code }), "language_auto") : el("option", { value: code }, code)));
    for (const stage of OPTIONAL_STAGES) this.checks[stage].row.hidden = !offer.stages.includes(stage);
    this._showHotwords();
    this._showSpeakers();
  }

  _showSpeakers() { this.speakersField.hidden = !this._labelsSpeakers(); }

  _labelsSpeakers() {
    return !!this.offer?.stages.includes("speakers") && this.checks.speakers.input.checked;
  }

  _showHotwords() { this.hotwordsField.hidden = !this._takesHotwords(); }

  _takesHotwords() { return !!this.offer?.hotword_models.includes(this.model.value); }

  /** Returns the options as the server takes them. */
  order() {
    const served = this.offer?.stages || [];
    const dropped = OPTIONAL_STAGES.filter((stage) => !this.checks[stage].input.checked);
    return {
      model: this.model.value,
      stages: served.filter((stage) => !dropped.includes(stage)),
      hotwords: this._takesHotwords() ? this.hotwords.value : "",
      language: this.languageField.hidden ? "" : this.language.value,
      itn: this.checks.itn.input.checked,
      num_speakers: this._labelsSpeakers() ? Number(this.speakers.value) : 0,
      separate_channels: this.checks.separate_channels.input.checked,
    };
  }
}
