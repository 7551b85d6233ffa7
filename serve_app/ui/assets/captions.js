// Live captions: what is being recorded, as text, while somebody speaks.
"use strict";

const MAX_CAPTION_RATE_HZ = 48000;

/** Sends what a recorder hears to the page's server and shows the texts that come back. */
class LiveCaptions {
  constructor() {
    this.finished = el("span", {});
    // Only finished text is read out.
    this.open = el("span", { class: "ps-caption-open", "aria-live": "off" });
    this.hint = say(el("span", { class: "ps-caption-hint" }), "captions_hint");
    this.element = label(el("div", { class: "ps-captions", role: "log", tabindex: "0", hidden: "" },
      this.hint, this.finished, this.open), "captions");
  }

  /** The recording does not depend on it: whatever fails here is only told. */
  async start(recorder, key, order) {
    this.texts = new Map();
    this.finished.textContent = "";
    this.open.textContent = "";
    say(this.hint, "captions_hint");
    this.hint.hidden = false;
    this.element.hidden = !paraserveFacts.liveCaptions;
    if (this.element.hidden) return;
    try {
      const { context } = recorder;
      if (context.sampleRate > MAX_CAPTION_RATE_HZ) throw new Error("sample rate");
      await context.audioWorklet.addModule(`${pageRoot()}/capture.js`);
      const socket = await this._connect(recorder);
      if (!socket) return;
      socket.send(JSON.stringify({ key, order, rate: context.sampleRate }));
      const capture = new AudioWorkletNode(context, "paraserve-capture", { numberOfOutputs: 0 });
      capture.port.onmessage = ({ data }) => {
        if (socket.readyState === WebSocket.OPEN && !recorder.paused) socket.send(data);
      };
      context.createMediaStreamSource(recorder.stream).connect(capture);
    } catch {
      this._fail();
    }
  }

  /** Returns an open socket; null if the recording has ended meanwhile. */
  async _connect(recorder) {
    const socket = this.socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}${pageRoot()}/captions`);
    socket.onmessage = ({ data }) => this._take(JSON.parse(data));
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
    socket.onclose = () => { if (this.socket === socket) this._fail(); };
    if (!recorder.stopped) return socket;
    this.stop();
    return null;
  }

  stop() {
    const { socket } = this;
    this.socket = null;
    socket?.close();
  }

  _take({ id, text, final, problem }) {
    if (problem) { this._fail(problem); return; }
    this.texts.set(id, final ? "" : text);
    if (final) this.finished.textContent += text;
    this.open.textContent = [...this.texts.values()].join("");
    this.hint.hidden = !!(this.finished.textContent || this.open.textContent);
    this.element.scrollTop = this.element.scrollHeight;
  }

  _fail(problem = "") {
    this.socket = null;
    this.open.textContent = "";
    say(this.hint, "captions_failed", { problem: problem ? words(problem) : "" });
    this.hint.hidden = false;
  }
}
