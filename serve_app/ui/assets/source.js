// Where a recording comes from: a file, or the microphone; and its way to the page's server.
"use strict";

const RECORDING_TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];

/** Records from the microphone until it is told to stop. */
class MicrophoneRecorder {
  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const mimeType = RECORDING_TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    this.recorder = new MediaRecorder(this.stream, mimeType ? { mimeType } : {});
    this.pieces = [];
    this.recorder.ondataavailable = (event) => this.pieces.push(event.data);
    this.recorder.start(1000);
  }

  /** Returns the recording as a file. */
  stop() {
    return new Promise((resolve) => {
      this.recorder.onstop = () => {
        this.stream.getTracks().forEach((track) => track.stop());
        const type = this.recorder.mimeType.split(";")[0];
        const name = `microphone.${type.split("/")[1]}`;
        resolve(new File(this.pieces, name, { type }));
      };
      this.recorder.stop();
    });
  }
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
      // Nothing but the sounds: neither the file's name nor its type is for the server.
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
