// The page: its state, its language, and what holds its parts together.
"use strict";

/** Returns an element; `data-text` names what `translate` fills in. */
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function words(name, values = {}) {
  const said = (paraserveFacts.texts[name] || paraserveFacts.texts.failed)[paraserve.spoken];
  return said.replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

function size(bytes) {
  if (bytes < 2 ** 20) return `${Math.max(1, Math.round(bytes / 2 ** 10))} KB`;
  const mebibytes = bytes / 2 ** 20;
  return mebibytes >= 1024 ? `${(mebibytes / 1024).toFixed(1)} GB`
    : mebibytes >= 10 ? `${Math.round(mebibytes)} MB` : `${mebibytes.toFixed(1)} MB`;
}

const EMPTY = { sentences: [], failedRanges: [], audioS: 0, problem: null, downloads: {}, progress: 0 };

const paraserve = window.paraserve = {
  spoken: /^zh/i.test(navigator.language) ? "zh" : "en",
  state: { phase: "idle", file: null, run: null, demoModels: [], ...EMPTY },
  parts: {},

  language() { return this.spoken; },

  /** Called by each of Gradio's components when it is there. */
  mount(name, element, props, trigger, watch) {
    const place = element.querySelector(`.ps-${name}`);
    this.parts[name] = { place, props, trigger };
    this[`_${name}`](place);
    if (name === "result") watch("value", () => this.receive(props.value));
    this.translate();
    this.update();
  },

  _header(place) {
    const buttons = [["zh", "中文"], ["en", "English"]].map(([language, name]) => {
      const button = el("button", { type: "button", "data-language": language, lang: language }, name);
      button.onclick = () => this.speak(language);
      return button;
    });
    this.demoWarning = el("p", { class: "ps-demo", role: "note", hidden: "" });
    place.append(
      el("div", { class: "ps-title" }, el("h1", { "data-text": "title" }), el("p", { "data-text": "subtitle" })),
      el("div", { class: "ps-languages", role: "group" }, ...buttons), this.demoWarning);
  },

  _source(place) {
    const input = el("input", { type: "file", accept: "audio/*,video/*,.amr,.pcm,.wma", hidden: "" });
    input.onchange = () => { if (input.files[0]) this.choose(input.files[0]); input.value = ""; };
    const pick = this.pickButton = el("button", { type: "button", class: "ps-plain", "data-text": "pick" });
    pick.onclick = () => input.click();
    this.recordButton = el("button", { type: "button", class: "ps-plain ps-record" });
    this.recordButton.onclick = () => this.record();
    this.fileName = el("p", { class: "ps-file" });
    const drop = el("div", { class: "ps-drop" }, this.fileName, input,
      el("div", { class: "ps-buttons" }, pick, this.recordButton), el("p", { class: "ps-limit" }));
    drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("ps-over"); };
    drop.ondragleave = () => drop.classList.remove("ps-over");
    drop.ondrop = (event) => {
      event.preventDefault();
      drop.classList.remove("ps-over");
      if (event.dataTransfer.files[0] && !this.busy()) this.choose(event.dataTransfer.files[0]);
    };
    place.append(el("h2", { "data-text": "recording" }), drop);
  },

  _actions(place) {
    this.goButton = el("button", { type: "button", class: "ps-go", "data-text": "transcribe" });
    this.goButton.onclick = () => this.start();
    this.stopButton = el("button", { type: "button", class: "ps-cancel", "data-text": "cancel" });
    this.stopButton.onclick = () => this.cancel();
    place.append(el("div", { class: "ps-buttons" }, this.goButton, this.stopButton),
      el("p", { class: "ps-privacy", "data-text": "privacy" }));
  },

  _result(place) { this.result = new ResultView(place); },

  speak(language) {
    this.spoken = language;
    this.translate();
    this.update();
    const { props, trigger } = this.parts.header;
    props.value = language;
    trigger("language");
  },

  translate() {
    document.documentElement.lang = this.spoken === "zh" ? "zh-CN" : "en";
    document.title = `${words("title")} · Paraserve`;
    for (const element of document.querySelectorAll("[data-text]")) {
      element.textContent = words(element.dataset.text);
    }
    for (const button of document.querySelectorAll("[data-language]")) {
      button.setAttribute("aria-pressed", String(button.dataset.language === this.spoken));
    }
    const limit = document.querySelector(".ps-limit");
    if (limit) limit.textContent = words("limit", { size: size(paraserveFacts.maxUploadBytes) });
  },

  busy() { return ["uploading", "waiting", "running"].includes(this.state.phase); },

  set(changes) { Object.assign(this.state, changes); this.update(); },

  update() {
    const { phase, file, demoModels } = this.state;
    const busy = this.busy();
    if (this.demoWarning) {
      this.demoWarning.hidden = !demoModels.length;
      this.demoWarning.textContent = words("demo_warning", { models: demoModels.join(", ") });
    }
    if (this.goButton) {
      this.goButton.disabled = busy || !file || !!this.recorder;
      this.stopButton.hidden = !busy;
    }
    if (this.recordButton) {
      this.recordButton.textContent = words(this.recorder ? "stop_recording" : "record");
      this.recordButton.classList.toggle("ps-recording", !!this.recorder);
      this.recordButton.disabled = this.pickButton.disabled = busy;
      this.fileName.textContent = file ? `${file.name} · ${size(file.size)}` : words("drop");
      this.fileName.classList.toggle("ps-chosen-file", !!file);
    }
    if (this.result) this.result.update({ ...this.state, phase });
  },

  choose(file) {
    if (this.busy()) return;
    this.result.clear();
    this.set({ ...EMPTY, phase: "chosen", file, run: null });
    this.result.open(file);
    if (file.size > paraserveFacts.maxUploadBytes) this.fail("too_large", "", null);
  },

  async record() {
    if (this.recorder) {
      const recorder = this.recorder;
      this.recorder = null;
      this.choose(await recorder.stop());
      return;
    }
    try {
      const recorder = new MicrophoneRecorder();
      await recorder.start();
      this.recorder = recorder;
      this.update();
    } catch {
      this.set({ problem: { name: "no_microphone", detail: "", retryAfterS: null } });
    }
  },

  async start() {
    const run = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    this.result.clear();
    this.set({ ...EMPTY, phase: "uploading", run });
    if (this.state.file.size > paraserveFacts.maxUploadBytes) { this.fail("too_large", "", null); return; }
    const key = document.querySelector("#ps-key input, #ps-key textarea")?.value.trim() || "";
    this.upload = new Upload(this.state.file, key, (progress) => {
      if (this.state.run === run && this.state.phase === "uploading") this.set({ progress });
    });
    try {
      const upload = await this.upload.done;
      if (this.state.run !== run) return;
      this.set({ phase: "waiting" });
      const { props, trigger } = this.parts.source;
      props.value = { upload, run };
      trigger("submit");
    } catch (refused) {
      if (this.state.run === run) this.fail(refused.problem || "upload_failed", refused.detail || "", refused.retryAfterS);
    }
  },

  cancel() {
    const uploading = this.state.phase === "uploading";
    this.set({ phase: "cancelled", run: null });
    if (uploading) this.upload.abort();
    else this.parts.source.trigger("cancel");
  },

  fail(name, detail, retryAfterS) {
    this.set({ phase: "failed", run: null, problem: { name, detail, retryAfterS } });
  },

  /** Called when Gradio gave up: its queue is full, or the connection is gone. */
  failed() { if (this.busy()) this.fail(this.state.phase === "waiting" ? "page_busy" : "interrupted", "", null); },

  /** Takes what the server says, of this run only. */
  receive(value) {
    if (!value) return;
    const problem = value.problem
      ? { name: value.problem, detail: value.detail, retryAfterS: value.retry_after_s } : null;
    if (!value.run) {
      this.set({ demoModels: value.demo_models });
      if (!this.busy()) this.set({ problem });
      return;
    }
    if (value.run !== this.state.run) return;
    const phase = value.state === "sent" ? "waiting" : value.state;
    this.set({
      phase, problem, sentences: value.sentences, failedRanges: value.failed_ranges,
      audioS: value.duration_s || 0, downloads: value.downloads,
      run: phase === "done" || phase === "failed" ? null : value.run,
    });
  },
};
