// Where a recording comes from: files, the microphone or the sample; and its way to the server.
"use strict";

const RECORDING_TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];

/** Buttons and drop zone. Files may be dropped anywhere on the page. */
class SourcePanel {
  constructor(page) {
    this.page = page;
    this.recorder = null;
    this.input = el("input", { type: "file", multiple: "", accept: "audio/*,video/*,.amr", hidden: "" });
    this.input.onchange = () => { page.choose(this.input.files); this.input.value = ""; };
    this.pickButton = button("ps-plain", "pick", () => this.input.click());
    this.recordButton = button("ps-plain ps-record", "record", () => this.record());
    this.sampleButton = button("ps-plain ps-sample", "sample", () => this.sample());
    this.limit = say(el("p", { class: "ps-limit" }), "limit", { size: size(paraserveFacts.maxUploadBytes) });
    this.meter = new RecorderPanel(() => this.pause(), () => this.stop());
    this.captions = new LiveCaptions();
    this.meter.element.append(this.captions.element);
    this.choices = el("div", { class: "ps-drop" }, say(el("p", { class: "ps-file" }), "drop"), this.input,
      el("div", { class: "ps-buttons" }, this.pickButton, this.recordButton, this.sampleButton), this.limit);
    this.element = el("div", { class: "ps-intake" }, this.choices, this.meter.element);
    this.overlay = el("div", { class: "ps-overlay", hidden: "" }, say(el("p", {}), "drop_here"));
    this.element.append(this.overlay);
    this._acceptDrops();
  }

  /** Without these a dropped file would replace the page, and all that is on it. */
  _acceptDrops() {
    let depth = 0;
    const files = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
    const over = (is) => { this.overlay.hidden = !is; this.choices.classList.toggle("ps-over", is); };
    window.addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; over(true); } });
    window.addEventListener("dragleave", (event) => {
      if (files(event)) { depth = Math.max(0, depth - 1); if (!depth) over(false); }
    });
    window.addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
    window.addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      depth = 0;
      over(false);
      if (!this.recorder) this.page.choose(event.dataTransfer.files);
    });
  }

  update() {
    this.meter.element.hidden = !this.recorder;
    this.choices.hidden = !!this.recorder;
  }

  async record() {
    try {
      const recorder = new MicrophoneRecorder();
      await recorder.start();
      this.recorder = recorder;
    } catch {
      this.page.problem = problemOf("no_microphone");
      this.page.update();
      return;
    }
    // The last result is still in the list; what is shown belongs to the new recording.
    this.page.problem = null;
    this.page.show(null);
    this.meter.watch(this.recorder);
    this.captions.start(this.recorder, this.page.form.key(), this.page.form.order());
    this.meter.stopButton.focus();
  }

  pause() {
    this.recorder.pause();
    this.meter.show(this.recorder);
  }

  async stop() {
    const recorder = this.recorder;
    this.captions.stop();
    const file = await recorder.stop();
    this.recorder = null;
    this.page.choose([file], { recorded: true });
    this.page.goButton.focus();
  }

  async sample() {
    try {
      const answer = await fetch(`${pageRoot()}/sample`);
      if (!answer.ok) throw new Error(String(answer.status));
      const file = new File([await answer.blob()], "sample.flac", { type: "audio/flac" });
      this.page.choose([file], { sample: true });
      this.page.start();
    } catch {
      this.page.problem = problemOf("sample_failed");
      this.page.update();
    }
  }
}

/** Shows level and time of a recording that is being made. */
class RecorderPanel {
  constructor(onPause, onStop) {
    this.time = el("span", { class: "ps-clock" });
    this.bar = el("div", {});
    this.level = label(el("div", {
      class: "ps-level", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0",
    }, this.bar), "level");
    this.pauseButton = button("ps-plain ps-pause-recording", "pause_recording", onPause);
    this.stopButton = button("ps-plain ps-recording", "stop_recording", onStop);
    this.element = el("div", { class: "ps-recorder", hidden: "" },
      say(el("p", { class: "ps-file" }), "recorder"), this.time, this.level,
      el("div", { class: "ps-buttons" }, this.pauseButton, this.stopButton));
  }

  watch(recorder) {
    const step = () => {
      if (recorder.stopped) return;
      this.show(recorder);
      setTimeout(step, 100);
    };
    step();
  }

  show(recorder) {
    const percent = recorder.paused ? 0 : Math.round(100 * recorder.level());
    this.time.textContent = clock(recorder.seconds());
    this.bar.style.width = `${percent}%`;
    this.level.setAttribute("aria-valuenow", String(percent));
    say(this.pauseButton, recorder.paused ? "resume_recording" : "pause_recording");
    this.element.classList.toggle("ps-paused", recorder.paused);
  }
}

/** Records from the microphone. */
class MicrophoneRecorder {
  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const mimeType = RECORDING_TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    this.recorder = new MediaRecorder(this.stream, mimeType ? { mimeType } : {});
    this.pieces = [];
    this.recorder.ondataavailable = (event) => this.pieces.push(event.data);
    this.recorder.start(1000);
    this.stopped = false;
    this.recordedMs = 0;
    this.resumedAt = performance.now();
    this.context = new AudioContext();
    this.analyser = this.context.createAnalyser();
    this.context.createMediaStreamSource(this.stream).connect(this.analyser);
    this.samples = new Float32Array(this.analyser.fftSize);
  }

  get paused() { return this.recorder.state === "paused"; }

  seconds() {
    return (this.recordedMs + (this.paused || this.stopped ? 0 : performance.now() - this.resumedAt)) / 1000;
  }

  /** Returns the loudness from 0 (-60 dB or less) to 1. */
  level() {
    this.analyser.getFloatTimeDomainData(this.samples);
    const power = this.samples.reduce((sum, sample) => sum + sample * sample, 0) / this.samples.length;
    return Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-12) / 6));
  }

  pause() {
    if (this.paused) {
      this.recorder.resume();
      this.resumedAt = performance.now();
    } else {
      this.recordedMs += performance.now() - this.resumedAt;
      this.recorder.pause();
    }
  }

  /** Returns the recording as a file. */
  stop() {
    return new Promise((resolve) => {
      this.recorder.onstop = () => {
        this.stopped = true;
        this.stream.getTracks().forEach((track) => track.stop());
        this.context.close();
        const type = this.recorder.mimeType.split(";")[0];
        const at = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
        resolve(new File(this.pieces, `microphone-${at}.${type.split("/")[1]}`, { type }));
      };
      this.recorder.stop();
    });
  }
}

/** Finds out how long a recording is, where the browser can tell. */
function probeDuration(item, onKnown) {
  const audio = new Audio();
  const url = URL.createObjectURL(item.file);
  const end = () => { URL.revokeObjectURL(url); audio.removeAttribute("src"); };
  audio.preload = "metadata";
  audio.onloadedmetadata = () => {
    if (Number.isFinite(audio.duration)) item.durationS = audio.duration;
    end();
    onKnown();
  };
  audio.onerror = end;
  audio.src = url;
}

/** A refusal by the page's server, in the terms of its texts. */
class UploadRefused extends Error {
  constructor(problem, detail, retryAfterS) {
    super(problem);
    Object.assign(this, { problem, detail, retryAfterS });
  }
}

/** Sends a file to the page's server; `abort()` ends it. */
class Upload {
  constructor(file, key, onProgress) {
    this.request = new XMLHttpRequest();
    this.done = new Promise((resolve, reject) => {
      const request = this.request;
      request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
      request.onerror = () => reject(new UploadRefused("upload_failed", "", null));
      request.onabort = request.onerror;
      request.onload = () => {
        try {
          const answer = JSON.parse(request.responseText);
          if (request.status === 200) resolve(answer.upload);
          else reject(new UploadRefused(answer.problem || "upload_failed", answer.detail || "", answer.retry_after_s));
        } catch {
          reject(new UploadRefused("upload_failed", "", null));
        }
      };
      request.open("POST", `${pageRoot()}/upload`);
      // Only the recording is sent: neither the file's name nor its type.
      request.setRequestHeader("Content-Type", "application/octet-stream");
      if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
      request.send(file);
    });
  }

  abort() {
    this.request.abort();
  }
}

/** Returns the page's path without a slash at its end. */
function pageRoot() {
  return new URL(window.gradio_config.root, location.href).pathname.replace(/\/$/, "");
}
