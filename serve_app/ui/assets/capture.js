// Runs in the audio thread: makes 16-bit samples of what the microphone hears.
"use strict";

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this._begin();
  }

  _begin() {
    this.samples = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
  }

  process([input]) {
    for (const value of input[0] || []) {
      this.samples[this.count] = Math.round(32767 * Math.max(-1, Math.min(1, value)));
      this.count += 1;
      if (this.count === this.samples.length) {
        this.port.postMessage(this.samples.buffer, [this.samples.buffer]);
        this._begin();
      }
    }
    return true;
  }
}

registerProcessor("paraserve-capture", Capture);
