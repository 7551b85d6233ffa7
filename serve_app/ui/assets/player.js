// The sound of the recording that is shown: player, waveform as a slider, speed.
"use strict";

const SPEEDS = [0.75, 1, 1.25, 1.5, 1.75, 2];
const STEP_S = 5;
const LARGE_STEP_S = 30;
// What is played of a sentence goes on for a moment: words end softly.
const TAIL_S = 0.15;

class Player {
  constructor(page) {
    this.page = page;
    this.audio = new Audio();
    this.audio.preload = "metadata";
    this.audio.preservesPitch = true;
    Object.assign(this, { item: null, peaks: null, durationS: 0, unplayable: false, stopAtS: Infinity });
    this.play = label(el("button", { class: "ps-play", type: "button" }), "play");
    this.play.onclick = () => this.toggle();
    this.canvas = el("canvas", { class: "ps-canvas", "aria-hidden": "true" });
    this.slider = label(el("div", { class: "ps-wave", role: "slider", tabindex: "0", "aria-valuemin": "0" }, this.canvas), "position");
    this._seekByPointer();
    this.slider.onkeydown = (event) => this._key(event);
    this.clock = el("span", { class: "ps-clock", "aria-hidden": "true" });
    this.speed = label(el("select", { class: "ps-speed" },
      ...SPEEDS.map((speed) => el("option", { value: String(speed) }, `${speed}×`))), "speed");
    this.speed.value = "1";
    this.speed.onchange = () => { this.audio.playbackRate = this.audio.defaultPlaybackRate = Number(this.speed.value); };
    this.element = el("div", { class: "ps-player", hidden: "" }, this.play, this.slider,
      el("div", { class: "ps-player-end" }, this.clock, this.speed));
    this.audio.ontimeupdate = this.audio.onseeked = () => this.moved();
    this.audio.onplay = () => { this.update(); this._follow(); };
    this.audio.onpause = () => this.update();
    this.audio.onloadedmetadata = () => this._loaded();
    this.audio.onerror = () => { if (this.item) { this.unplayable = true; this.page.update(); } };
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(() => this.draw()));
  }

  get positionS() { return this.audio.currentTime || 0; }

  /** Loads a recording, or none. */
  open(item) {
    if (this.audio.src) URL.revokeObjectURL(this.audio.src);
    this.audio.pause();
    const away = !!item?.away;
    Object.assign(this, { item, peaks: null, unplayable: away, durationS: 0, stopAtS: Infinity });
    this.element.hidden = !item || away;
    if (item && !away) this.audio.src = URL.createObjectURL(item.file);
    else this.audio.removeAttribute("src");
    this.moved();
  }

  async _loaded() {
    const { item } = this;
    if (!Number.isFinite(this.audio.duration)) {
      // A recording made by the browser has no length before it was wound to its end.
      this.audio.ondurationchange = () => {
        if (!Number.isFinite(this.audio.duration)) return;
        this.audio.ondurationchange = null;
        this.audio.currentTime = 0;
        this._loaded();
      };
      this.audio.currentTime = 1e9;
      return;
    }
    this.durationS = item.durationS = this.audio.duration;
    this.audio.playbackRate = Number(this.speed.value);
    this.moved();
    const peaks = await peaksOf(item.file, this.durationS);
    if (item === this.item) { this.peaks = peaks; this.draw(); }
  }

  toggle() {
    this.stopAtS = Infinity;
    if (this.audio.paused) this._start();
    else this.audio.pause();
  }

  _start() { this.audio.play()?.catch(() => {}); }

  seek(seconds) {
    if (!this.durationS) return;
    this.stopAtS = Infinity;
    this.audio.currentTime = Math.min(this.durationS, Math.max(0, seconds));
    this.moved();
  }

  /** Plays from a time on, or up to another. */
  playFrom(startS, endS = Infinity) {
    if (!this.durationS) return;
    this.seek(startS);
    this.stopAtS = endS + TAIL_S;
    this._start();
  }

  _seekByPointer() {
    const seconds = (event) => {
      const box = this.slider.getBoundingClientRect();
      return ((event.clientX - box.left) / box.width) * this.durationS;
    };
    this.slider.onpointerdown = (event) => {
      this.slider.setPointerCapture(event.pointerId);
      this.seek(seconds(event));
      this.slider.onpointermove = (moved) => this.seek(seconds(moved));
    };
    this.slider.onpointerup = this.slider.onpointercancel = (event) => {
      if (!this.slider.onpointermove) return;
      this.slider.onpointermove = null;
      if (event.type === "pointerup") this.playFrom(seconds(event));
    };
  }

  _key(event) {
    const steps = {
      ArrowRight: STEP_S, ArrowUp: STEP_S, ArrowLeft: -STEP_S, ArrowDown: -STEP_S,
      PageUp: LARGE_STEP_S, PageDown: -LARGE_STEP_S,
    };
    if (event.key in steps) this.seek(this.positionS + steps[event.key]);
    else if (event.key === "Home") this.seek(0);
    else if (event.key === "End") this.seek(this.durationS);
    else if (event.key === " " || event.key === "Enter") this.toggle();
    else return;
    event.preventDefault();
  }

  /** While it plays, words are followed more closely than `timeupdate` comes. */
  _follow() {
    if (this.audio.paused) return;
    this.moved();
    requestAnimationFrame(() => this._follow());
  }

  moved() {
    const nowS = this.positionS;
    if (nowS >= this.stopAtS) { this.stopAtS = Infinity; this.audio.pause(); }
    this.page.transcript.mark(nowS * 1000, !this.audio.paused);
    const text = `${clock(nowS)} / ${clock(this.durationS)}`;
    if (this.clock.textContent !== text) {
      this.clock.textContent = text;
      this.slider.setAttribute("aria-valuemax", String(Math.round(this.durationS)));
      this.slider.setAttribute("aria-valuenow", String(Math.round(nowS)));
      this.slider.setAttribute("aria-valuetext",
        words("position_of", { position: clock(nowS), duration: clock(this.durationS) }));
    }
    this.draw();
  }

  update() {
    this.play.classList.toggle("ps-playing", !this.audio.paused);
    label(this.play, this.audio.paused ? "play" : "pause");
    this.play.disabled = this.unplayable;
    this.draw();
  }

  draw() {
    const { sentences, failedRanges, audioS = 0 } = this.page.state;
    drawWaveform(this.canvas, {
      peaks: this.peaks, durationS: this.durationS || audioS, sentences, failedRanges,
      positionS: this.positionS, chosen: this.page.transcript.current,
    });
  }
}
