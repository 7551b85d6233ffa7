// The waveform: the recording's peaks, where speech was recognized, and the playback position.
"use strict";

const WAVE_RATE_HZ = 8000;
// Decoded it lies in memory: about 230 MB for half an hour of stereo.
const WAVE_MAX_S = 1800;
const WAVE_BINS = 1200;

/** Returns WAVE_BINS peaks from 0 to 1, or null where the browser cannot decode the file. */
async function peaksOf(file, durationS) {
  if (!(durationS > 0 && durationS <= WAVE_MAX_S)) return null;
  try {
    const context = new OfflineAudioContext(1, 1, WAVE_RATE_HZ);
    const samples = (await context.decodeAudioData(await file.arrayBuffer())).getChannelData(0);
    const peaks = new Float32Array(WAVE_BINS);
    let highest = 1e-4;
    for (let i = 0; i < samples.length; i += 1) {
      const bin = Math.min(WAVE_BINS - 1, Math.floor((i * WAVE_BINS) / samples.length));
      const height = Math.abs(samples[i]);
      if (height > peaks[bin]) peaks[bin] = height;
      if (height > highest) highest = height;
    }
    return peaks.map((peak) => peak / highest);
  } catch {
    return null;
  }
}

/** Draws onto a canvas, in the colors of the style sheet. */
function drawWaveform(canvas, { peaks, durationS, sentences, failedRanges, positionS, chosen }) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(name).trim();
  if (!(durationS > 0)) return;
  const x = (seconds) => (seconds / durationS) * width;

  sentences.forEach(({ startMs, endMs }, number) => {
    pen.fillStyle = color(number === chosen ? "--ps-span-chosen" : number % 2 ? "--ps-span-odd" : "--ps-span");
    const from = x(startMs / 1000);
    pen.fillRect(from, 0, Math.max(1, x(endMs / 1000) - from - 0.5), height);
  });
  pen.fillStyle = color("--ps-span-failed");
  for (const [startMs, endMs] of failedRanges) {
    pen.fillRect(x(startMs / 1000), 0, Math.max(2, x((endMs - startMs) / 1000)), height);
  }

  const middle = height / 2;
  pen.fillStyle = color("--ps-wave");
  if (peaks) {
    const step = 3;
    for (let left = 0; left < width; left += step) {
      const first = Math.floor((left / width) * peaks.length);
      const last = Math.max(first + 1, Math.floor(((left + step) / width) * peaks.length));
      const peak = Math.max(...peaks.subarray(first, last));
      const half = Math.max(0.75, peak * (middle - 4));
      pen.fillRect(left, middle - half, step - 1, 2 * half);
    }
  } else {
    pen.fillRect(0, middle - 0.5, width, 1);
  }
  pen.fillStyle = color("--ps-position");
  pen.fillRect(Math.min(width - 2, x(positionS)), 0, 2, height);
}
