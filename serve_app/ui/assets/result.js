// The transcript beside the sound: player, waveform, sentences, downloads.
"use strict";

const MEDIA_TYPES = { srt: "application/x-subrip", vtt: "text/vtt", txt: "text/plain", json: "application/json" };

class ResultView {
  constructor(element) {
    this.element = element;
    this.audio = new Audio();
    this.audio.preload = "metadata";
    this.peaks = null;
    this.shown = 0;
    this.chosen = -1;
    this.stopAtS = Infinity;
    element.append(this._player(), this._head(), this._alert(), this._list());
    this.audio.ontimeupdate = () => this._moved();
    this.audio.onplay = this.audio.onpause = () => this._buttons();
    this.audio.onloadedmetadata = () => this._loaded();
    this.audio.onerror = () => { if (this.file) { this.unplayable = true; this.update(paraserve.state); } };
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  _player() {
    this.play = el("button", { class: "ps-play", type: "button", "aria-label": "play" });
    this.play.onclick = () => { this.stopAtS = Infinity; this.audio.paused ? this.audio.play() : this.audio.pause(); };
    this.canvas = el("canvas", { class: "ps-wave" });
    this.canvas.onclick = (event) => this._seek(event.offsetX / this.canvas.clientWidth);
    this.clock = el("span", { class: "ps-clock" });
    this.player = el("div", { class: "ps-player", hidden: "" }, this.play, this.canvas, this.clock);
    return this.player;
  }

  _head() {
    this.status = el("span", { class: "ps-status", role: "status" });
    this.downloads = el("span", { class: "ps-downloads" });
    this.bar = el("div", { class: "ps-bar", hidden: "" }, el("div", {}));
    return el("div", { class: "ps-head" },
      el("div", { class: "ps-head-row" },
        el("h2", { "data-text": "transcript" }), this.status, this.downloads), this.bar);
  }

  _alert() {
    this.alert = el("div", { class: "ps-alert", role: "alert", hidden: "" });
    return this.alert;
  }

  _list() {
    this.hint = el("p", { class: "ps-hint" });
    this.list = el("ol", { class: "ps-sentences", lang: "zh" });
    return el("div", { class: "ps-text" }, this.hint, this.list);
  }

  /** Takes a recording in; what was shown of the last one goes. */
  open(file) {
    if (this.audio.src) URL.revokeObjectURL(this.audio.src);
    Object.assign(this, { file, peaks: null, unplayable: false, durationS: 0 });
    this.clear();
    this.audio.src = URL.createObjectURL(file);
    this.player.hidden = false;
    this._buttons();
    this._moved();
  }

  clear() {
    this.list.replaceChildren();
    Object.assign(this, { shown: 0, chosen: -1, stopAtS: Infinity });
  }

  async _loaded() {
    const file = this.file;
    if (!Number.isFinite(this.audio.duration)) {
      // A recording of the browser's own has no length until it was wound to its end.
      this.audio.ondurationchange = () => {
        if (!Number.isFinite(this.audio.duration)) return;
        this.audio.ondurationchange = null;
        this.audio.currentTime = 0;
        this._loaded();
      };
      this.audio.currentTime = 1e9;
      return;
    }
    this.durationS = this.audio.duration;
    this._moved();
    const peaks = await peaksOf(file, this.durationS);
    if (file === this.file) { this.peaks = peaks; this.draw(); }
  }

  _seek(share) {
    if (!this.durationS) return;
    this.stopAtS = Infinity;
    this.audio.currentTime = share * this.durationS;
  }

  /** Plays one sentence. */
  hear(number) {
    const [startMs, endMs] = paraserve.state.sentences[number];
    if (!this.durationS) return;
    this.chosen = number;
    this.stopAtS = endMs / 1000 + 0.15;
    this.audio.currentTime = startMs / 1000;
    this.audio.play();
    this._moved();
  }

  _moved() {
    const nowS = this.audio.currentTime;
    if (nowS >= this.stopAtS) { this.stopAtS = Infinity; this.audio.pause(); }
    const sentences = paraserve.state.sentences;
    if (!this.audio.paused && this.stopAtS === Infinity) {
      this.chosen = sentences.findLastIndex(([startMs]) => startMs <= nowS * 1000);
    }
    const line = this.list.children[this.chosen];
    if (line && !line.classList.contains("ps-chosen")) line.scrollIntoView({ block: "nearest" });
    this.list.querySelector(".ps-chosen")?.classList.remove("ps-chosen");
    line?.classList.add("ps-chosen");
    this.clock.textContent = `${clock(nowS)} / ${clock(this.durationS)}`;
    this.draw();
  }

  _buttons() {
    this.play.classList.toggle("ps-playing", !this.audio.paused);
    this.play.disabled = !!this.unplayable;
  }

  draw() {
    const { sentences, failedRanges, audioS } = paraserve.state;
    drawWaveform(this.canvas, {
      peaks: this.peaks, durationS: this.durationS || audioS || 0, sentences, failedRanges,
      positionS: this.audio.currentTime || 0, chosen: this.chosen,
    });
  }

  /** Shows the state; sentences that stand there stay. */
  update(state) {
    const { phase, sentences } = state;
    this._buttons();
    if (sentences.length < this.shown) this.clear();
    for (; this.shown < sentences.length; this.shown += 1) this._add(this.shown, sentences[this.shown]);
    const busy = ["uploading", "waiting", "running"].includes(phase);
    const lastS = sentences.length ? sentences.at(-1)[1] / 1000 : 0;
    const share = phase === "uploading" ? state.progress : this.durationS ? lastS / this.durationS : 0;
    this.status.textContent = this._said(phase, state, share);
    this.status.dataset.phase = phase;
    this.bar.hidden = !busy;
    this.bar.classList.toggle("ps-unknown", busy && !share);
    this.bar.firstChild.style.width = `${Math.min(100, 100 * share)}%`;
    this.hint.textContent = this._hinted(phase, sentences);
    this.hint.hidden = !this.hint.textContent;
    this._tell(state.problem);
    this._offer(state.downloads);
    this.draw();
  }

  _said(phase, state, share) {
    if (phase === "idle" || phase === "chosen") return "";
    if (phase === "failed") return words("failed_state");
    if (phase === "done" && state.failedRanges.length) return words("partial");
    const percent = share ? ` ${Math.min(100, Math.round(100 * share))}%` : "";
    return words(phase) + (phase === "uploading" || phase === "running" ? percent : "");
  }

  _hinted(phase, sentences) {
    if (sentences.length) return words(this.unplayable ? "no_playback" : "hint");
    if (phase === "done") return words("silence");
    return ["idle", "chosen"].includes(phase) ? words("empty") : "";
  }

  _tell(problem) {
    this.alert.hidden = !problem;
    if (!problem) return;
    const again = problem.retryAfterS ? words("retry_in", { seconds: problem.retryAfterS }) : "";
    this.alert.replaceChildren(
      el("strong", {}, words(problem.name)), ...(again ? [el("span", {}, again)] : []),
      ...(problem.detail ? [el("small", {}, problem.detail)] : []));
  }

  _offer(downloads) {
    const kinds = Object.keys(downloads);
    if (this.downloads.dataset.kinds === kinds.join() && this.offered === downloads) return;
    this.downloads.dataset.kinds = kinds.join();
    this.offered = downloads;
    this.downloads.replaceChildren(...(kinds.length ? [el("span", { "data-text": "download" }, words("download"))] : []),
      ...kinds.map((kind) => {
        const button = el("button", { type: "button", class: "ps-download", "data-kind": kind }, kind);
        button.onclick = () => save(downloads[kind], `${stem(this.file)}.${kind}`, MEDIA_TYPES[kind]);
        return button;
      }));
  }

  _add(number, [startMs, , text]) {
    const line = el("button", { type: "button" },
      el("time", {}, clock(startMs / 1000)), el("span", {}, text));
    line.onclick = () => this.hear(number);
    this.list.append(el("li", {}, line));
    const text_ = this.list.parentElement;
    const atEnd = text_.scrollHeight - text_.scrollTop - text_.clientHeight < 120;
    if (atEnd) text_.scrollTop = text_.scrollHeight;
  }
}

function save(content, name, type) {
  const url = URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function stem(file) {
  return file ? file.name.replace(/\.[^.]*$/, "") || "transcript" : "transcript";
}

function clock(seconds) {
  const whole = Math.floor(seconds || 0);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours}:` : ""}${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}
