// The page: its state, its language, its parts, and its connection to the server.
"use strict";

/** Returns an element. Attributes that are null are left out. */
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Returns a text in the page's language. */
function words(name, values = {}) {
  const said = (paraserveFacts.texts[name] || paraserveFacts.texts.failed)[paraserve.spoken];
  return said.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

/** Has an element show a text, in whichever language the page is switched to. */
function say(element, name, values = {}) {
  Object.assign(element.dataset, { text: name, values: JSON.stringify(values) });
  const text = words(name, values);
  // Unchanged text stays: screen readers would announce it again.
  if (element.textContent !== text) element.textContent = text;
  return element;
}

/** Has an element carry a text as its accessible name and, if it is an icon, as its tooltip. */
function label(element, name, values = {}, { tooltip = false } = {}) {
  Object.assign(element.dataset, { label: name, values: JSON.stringify(values) });
  element.setAttribute("aria-label", words(name, values));
  if (tooltip) {
    element.dataset.tooltip = "1";
    element.title = words(name, values);
  }
  return element;
}

/** Has an element carry a text as its tooltip alone. */
function titled(element, name, values = {}) {
  Object.assign(element.dataset, { tip: name, values: JSON.stringify(values) });
  element.title = words(name, values);
}

function button(className, name, onClick) {
  const made = say(el("button", { type: "button", class: className }), name);
  made.onclick = onClick;
  return made;
}

function iconButton(className, icon, name, values, onClick) {
  const made = el("button", { type: "button", class: `ps-icon ${className}` },
    el("span", { "aria-hidden": "true" }, icon));
  made.onclick = onClick;
  return label(made, name, values, { tooltip: true });
}

function size(bytes) {
  if (bytes < 2 ** 20) return `${Math.max(1, Math.round(bytes / 2 ** 10))} KB`;
  const mebibytes = bytes / 2 ** 20;
  return mebibytes >= 1024 ? `${(mebibytes / 1024).toFixed(1)} GB`
    : mebibytes >= 10 ? `${Math.round(mebibytes)} MB` : `${mebibytes.toFixed(1)} MB`;
}

function clock(seconds) {
  const whole = Math.floor(seconds || 0);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours}:` : ""}${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

function randomHex() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)),
    (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const BUSY = ["uploading", "waiting", "running"];
const SERVER_CHECK_MS = 3000;
const MAX_MISSED_CHECKS = 3;
const NO_PROBLEM_NAMES = { too_long: () => (paraserveFacts.maxAudioS ? "too_long" : "too_long_unknown") };

/** Returns a problem as the page shows it. */
function problemOf(name, detail = "", retryAfterS = null, file = null) {
  return {
    name: NO_PROBLEM_NAMES[name]?.() ?? name,
    fix: `${name}_fix` in paraserveFacts.texts ? `${name}_fix` : null,
    detail, retryAfterS,
    values: {
      size: file ? size(file.size) : "",
      limit: name === "too_long" ? clock(paraserveFacts.maxAudioS || 0) : size(paraserveFacts.maxUploadBytes),
    },
  };
}

/** Returns what shows a problem. */
function problemElements(problem) {
  const parts = [say(el("strong", {}), problem.name, problem.values)];
  if (problem.fix) parts.push(say(el("span", {}), problem.fix));
  if (problem.retryAfterS) parts.push(say(el("span", {}), "retry_in", { seconds: problem.retryAfterS }));
  if (problem.detail) parts.push(el("small", { lang: "en" }, problem.detail));
  return parts;
}

const IDLE = Object.freeze({ phase: "idle", sentences: [], failedRanges: [], problem: null, progress: 0, names: {} });

const paraserve = window.paraserve = {
  spoken: /^zh/i.test(navigator.language) ? "zh" : "en",
  items: [],
  shown: null,
  offer: null,
  problem: null,
  parts: {},

  /** The recording that is shown. */
  get state() { return this.shown || IDLE; },

  /** Called by each of Gradio's components when it is there. */
  mount(name, element, props, trigger, watch) {
    this.parts[name] = { props, trigger };
    if (name === "page") this._build(element.querySelector(".ps-page"));
    if (name === "result") watch("value", () => this.receive(props.value));
  },

  _build(root) {
    this.form = new OptionForm((key) => this.ask(key));
    this.files = new FileList(this);
    this.jobs = new JobList(this);
    this.source = new SourcePanel(this);
    this.transcript = new TranscriptView(this);
    this.player = new Player(this);
    this.live = el("div", { class: "ps-hidden", role: "status" });
    this.goButton = button("ps-go", "transcribe", () => this.start());
    this.jobButton = button("ps-plain ps-as-job", "as_job", () => this.startJobs());
    this.jobButton.setAttribute("aria-describedby", "ps-as-job-info");
    this.jobInfo = say(el("p", { class: "ps-privacy", id: "ps-as-job-info", hidden: "" }), "as_job_info");
    this.stopButton = button("ps-plain ps-cancel", "cancel", () => this.cancel());
    this.alert = el("div", { class: "ps-alert", role: "alert", hidden: "" });
    const source = el("section", { class: "ps-source", "aria-labelledby": "ps-source-title" },
      say(el("h2", { id: "ps-source-title" }), "recording"), this.source.element, this.files.element,
      this.form.element,
      el("div", { class: "ps-actions" },
        el("div", { class: "ps-buttons" }, this.goButton, this.jobButton, this.stopButton), this.jobInfo,
        say(el("p", { class: "ps-privacy" }), "privacy")), this.jobs.element);
    const result = el("section", { class: "ps-result", "aria-labelledby": "ps-result-title" },
      this.player.element, this.transcript.head, this.alert, this.transcript.element);
    root.append(this._header(), el("div", { class: "ps-columns" }, source, result), this.live);
    this.translate();
    this.update();
  },

  _header() {
    const buttons = [["zh", "中文"], ["en", "English"]].map(([language, name]) => {
      const made = el("button", { type: "button", "data-language": language, lang: language }, name);
      made.onclick = () => this.speak(language);
      return made;
    });
    this.demoWarning = el("p", { class: "ps-demo", role: "note", hidden: "" });
    return el("div", { class: "ps-header" },
      el("div", { class: "ps-title" }, say(el("h1", {}), "title"), say(el("p", {}), "subtitle")),
      label(el("div", { class: "ps-languages", role: "group" }, ...buttons), "languages"), this.demoWarning);
  },

  speak(language) {
    this.spoken = language;
    this.translate();
    this.update();
  },

  translate() {
    document.documentElement.lang = this.spoken === "zh" ? "zh-CN" : "en";
    document.title = `${words("title")} · Paraserve`;
    for (const element of document.querySelectorAll("[data-text]")) {
      say(element, element.dataset.text, JSON.parse(element.dataset.values || "{}"));
    }
    for (const element of document.querySelectorAll("[data-label]")) {
      label(element, element.dataset.label, JSON.parse(element.dataset.values || "{}"),
        { tooltip: !!element.dataset.tooltip });
    }
    for (const element of document.querySelectorAll("[data-tip]")) {
      titled(element, element.dataset.tip, JSON.parse(element.dataset.values));
    }
    for (const element of document.querySelectorAll("[data-placeholder]")) {
      element.placeholder = words(element.dataset.placeholder);
    }
    for (const made of document.querySelectorAll("[data-language]")) {
      made.setAttribute("aria-pressed", String(made.dataset.language === this.spoken));
    }
  },

  busy() { return this.items.some((item) => BUSY.includes(item.phase)); },

  set(item, changes) { Object.assign(item, changes); this.update(); },

  update() {
    const ready = this.items.filter((item) => item.phase === "chosen");
    // The recording of a job that an earlier visit made is not here.
    const repeatable = this.shown && !this.shown.away && ["failed", "cancelled", "done"].includes(this.shown.phase);
    const working = this.items.some((item) => [...BUSY, "queued"].includes(item.phase));
    const models = this.offer?.demo_models || [];
    this.demoWarning.hidden = !models.length;
    say(this.demoWarning, "demo_warning", { models: models.join(", ") });
    this.goButton.disabled = !(ready.length || (repeatable && !working)) || !!this.source.recorder;
    say(this.goButton, ready.length > 1 ? "transcribe_all" : "transcribe", { count: ready.length });
    this.jobButton.hidden = this.jobInfo.hidden = !this._forJobs().length;
    this.jobButton.disabled = !!this.source.recorder;
    this.stopButton.hidden = !working;
    this.source.update();
    this.files.update();
    this.jobs.update();
    this.transcript.update(this.state);
    this.player.update();
    const problem = this.state.problem || this.problem;
    this.alert.hidden = !problem;
    if (problem !== this._toldProblem) {
      this._toldProblem = problem;
      this.alert.replaceChildren(...(problem ? problemElements(problem) : []));
      if (problem && problem === this.problem && problem.retry) {
        this.alert.append(button("ps-plain", "retry", problem.retry));
      }
    }
    this._announce();
    window.onbeforeunload = this.wouldLose() ? (event) => { event.preventDefault(); return ""; } : null;
  },

  /** Tells screen readers of a new state, not of each percent. */
  _announce() {
    const { phase } = this.state;
    if (phase === this._toldPhase || ["idle", "chosen"].includes(phase)) return;
    this._toldPhase = phase;
    say(this.live, phase === "failed" ? "failed_state" : phase);
  },

  /** Whether leaving the page would lose something. */
  wouldLose() {
    return !!this.source?.recorder || this.items.some((item) => [...BUSY, "queued"].includes(item.phase)
      || (item.recorded && !item.saved)
      || (item.sentences.length > 0 && !item.saved && (!item.sample || item.edited)));
  },

  /** Adds recordings; the first is shown. */
  choose(files, { sample = false, recorded = false } = {}) {
    const added = [...files].map((file) => ({
      ...IDLE, id: randomHex(), file, sample, recorded, phase: "chosen", run: null, audioS: 0,
      durationS: 0, saved: false, edited: false, model: "", names: {},
    }));
    if (!added.length) return;
    this.problem = null;
    this.items.push(...added);
    for (const item of added) {
      if (item.file.size > paraserveFacts.maxUploadBytes) {
        Object.assign(item, { phase: "failed", problem: problemOf("too_large", "", null, item.file) });
      } else {
        probeDuration(item, () => this.update());
      }
    }
    if (!this.busy()) this.show(added.find((item) => item.phase === "chosen") || added[0]);
    else this.update();
  },

  show(item) {
    this.shown = item;
    this._toldPhase = item?.phase;
    this.transcript.reset();
    this.player.open(item);
    this.update();
  },

  remove(item) {
    if (item.run) this._stop(item);
    this.items = this.items.filter((other) => other !== item);
    if (item === this.shown) this.show(this.items.at(-1) || null);
    else this.update();
    this.next();
  },

  /** Transcribes what is chosen, else what is shown again. */
  start() {
    let wanted = this.items.filter((item) => item.phase === "chosen");
    if (!wanted.length && this.shown && !this.shown.away) wanted = [this.shown];
    for (const item of wanted) Object.assign(item, { phase: "queued", problem: null });
    if (wanted.length && !wanted.includes(this.shown) && !this.busy()) this.show(wanted[0]);
    this.update();
    this.next();
  },

  /** Returns the recordings that are offered as jobs. */
  _forJobs() {
    if (!this.offer?.jobs) return [];
    return this.items.filter((item) => item.phase === "chosen" && isLong(item));
  },

  /** Makes jobs of the long recordings. */
  startJobs() {
    for (const item of this._forJobs()) Object.assign(item, { phase: "queued", asJob: true, problem: null });
    this.update();
    this.next();
  },

  /** Adds the transcript of a job whose recording is not on the page. */
  addJob(job) {
    const item = {
      ...IDLE, id: randomHex(), file: new File([], job.name), sample: false, recorded: false, phase: "job", run: null,
      audioS: 0, durationS: 0, saved: false, edited: false, model: "", names: {}, job: job.id, away: true,
    };
    this.items.push(item);
    return item;
  },

  /** Shows the transcript of a job. */
  showResult(item, result) {
    this.set(item, {
      phase: "done", sentences: result.sentences.map((text) => sentenceOf(JSON.parse(text))), problem: null,
      failedRanges: result.failed_ranges, audioS: result.duration_s, saved: false, edited: false, names: {},
    });
    this.show(item);
    this.transcript.toBeginning();
  },

  /** Begins with the next recording, if none is under way. */
  next() {
    if (this.busy()) return;
    const item = this.items.find((one) => one.phase === "queued");
    if (item) this._transcribe(item);
  },

  async _transcribe(item) {
    const run = randomHex();
    const { file } = item;
    if (item === this.shown) this.transcript.reset();
    this.set(item, {
      phase: "uploading", run, problem: null, sentences: [], failedRanges: [], progress: 0, audioS: 0,
      saved: false, edited: false, model: this.form.order().model, names: {},
    });
    if (file.size > paraserveFacts.maxUploadBytes) return this.fail(item, "too_large");
    const key = this.form.key();
    this.upload = new Upload(file, key, (progress) => {
      if (item.run === run && item.phase === "uploading") this.set(item, { progress });
    });
    try {
      const upload = await this.upload.done;
      if (item.run !== run) return;
      this.set(item, { phase: "waiting" });
      if (item.asJob) {
        const job = await this.jobs.create(item, upload, key, this.form.order());
        this.set(item, { phase: "job", run: null, job, asJob: false });
        this.next();
        return;
      }
      const { props, trigger } = this.parts.source;
      props.value = { upload, run, key, order: this.form.order() };
      trigger("submit");
      this._watchServer(item, run);
    } catch (refused) {
      if (item.run === run) this.fail(item, refused.problem || "upload_failed", refused.detail, refused.retryAfterS);
    }
  },

  /** Ends what is under way; what was heard so far stays. */
  cancel() {
    for (const item of this.items) {
      if (item.phase === "queued") Object.assign(item, { phase: "chosen", asJob: false });
      if (BUSY.includes(item.phase)) this._stop(item);
    }
    this.update();
  },

  _stop(item) {
    const uploading = item.phase === "uploading";
    Object.assign(item, { phase: "cancelled", run: null, asJob: false });
    if (uploading) this.upload.abort();
    else this.parts.source.trigger("cancel");
  },

  fail(item, name, detail = "", retryAfterS = null) {
    this.set(item, { phase: "failed", run: null, asJob: false, problem: problemOf(name, detail, retryAfterS, item.file) });
    this.next();
  },

  /** Notices that the server is gone; Gradio does not where its stream has ended in order. */
  async _watchServer(item, run) {
    let missed = 0;
    while (missed < MAX_MISSED_CHECKS) {
      await new Promise((resolve) => setTimeout(resolve, SERVER_CHECK_MS));
      if (item.run !== run || !BUSY.includes(item.phase)) return;
      const answered = await fetch(`${pageRoot()}/manifest.json`, { cache: "no-store" })
        .then(() => true, () => false);
      missed = answered ? 0 : missed + 1;
    }
    if (item.run === run) this.fail(item, "interrupted");
  },

  /** Called when Gradio gave up: its queue is full, or the connection is gone. */
  failed() {
    const item = this.items.find((one) => BUSY.includes(one.phase));
    if (item) this.fail(item, item.phase === "waiting" ? "page_busy" : "interrupted");
  },

  /** Asks what the service offers to the holder of a key. */
  ask(key) {
    const { props, trigger } = this.parts.offer;
    props.value = key;
    trigger("ask");
  },

  /** Takes an update of the server. */
  receive(value) {
    if (!value) return;
    if (!value.run) { this._receiveOffer(value); return; }
    const item = this.items.find((one) => one.run === value.run);
    if (!item) return;
    const ended = value.state === "done" || value.state === "failed";
    let sentences = [...item.sentences,
      ...value.sentences.slice(item.sentences.length).map((text) => sentenceOf(JSON.parse(text)))];
    if (value.labelled.length) {
      sentences = withSpeakers(sentences, value.labelled.map((text) => sentenceOf(JSON.parse(text))));
      if (item === this.shown) this.transcript.reset();
    }
    this.set(item, {
      phase: value.state === "sent" ? "waiting" : value.state, sentences,
      problem: value.problem ? problemOf(value.problem, value.detail, value.retry_after_s, item.file) : null,
      failedRanges: value.failed_ranges, audioS: value.duration_s || 0, run: ended ? null : value.run,
    });
    if (ended) {
      if (item === this.shown) this.transcript.toBeginning();
      this.next();
    }
  },

  _receiveOffer({ offer, problem, detail, retry_after_s: retryAfterS }) {
    this.offer = offer;
    this.form.show(offer, problem);
    // That a key is needed is said at its field; it is no error before one was entered.
    this.problem = problem && problem !== "key_missing" ? problemOf(problem, detail, retryAfterS) : null;
    if (this.problem && problem !== "key_refused") this.problem.retry = () => this.ask(this.form.key());
    for (const item of this.items) {
      if (["key_missing", "key_refused"].includes(item.problem?.name) && offer) {
        Object.assign(item, { problem: null, phase: item.phase === "failed" ? "chosen" : item.phase });
      }
    }
    this.update();
    this.jobs.poll();
  },
};
