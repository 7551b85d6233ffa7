// The transcript to take along, with its edits: copied, or as a file.
"use strict";

const MEDIA_TYPES = {
  srt: "application/x-subrip", vtt: "text/vtt", txt: "text/plain", md: "text/markdown", json: "application/json",
};
const LINE_LENGTHS = [12, 16, 18, 24, 32, 42];
const COPIED_MS = 2000;

class Downloads {
  constructor(page) {
    this.page = page;
    this.copyButton = button("ps-plain ps-copy", "copy", () => this.copy());
    this.lineLength = label(el("select", { class: "ps-line-length" },
      say(el("option", { value: "" }), "subtitle_auto"),
      ...LINE_LENGTHS.map((count) => say(el("option", { value: String(count) }), "subtitle_chars", { count }))), "subtitle_length");
    this.buttons = Object.keys(MEDIA_TYPES).map((kind) => {
      const made = el("button", { type: "button", class: "ps-download", "data-kind": kind }, kind.toUpperCase());
      made.onclick = () => this.download(kind);
      return label(made, "download_as", { kind: kind.toUpperCase() });
    });
    this.element = el("div", { class: "ps-downloads" }, this.copyButton,
      say(el("span", { class: "ps-download-label" }), "download"), ...this.buttons,
      el("span", { class: "ps-line-length-box" }, say(el("span", { "aria-hidden": "true" }), "subtitle_length"), this.lineLength));
  }

  update() {
    const running = BUSY.includes(this.page.state.phase);
    for (const made of [...this.buttons, this.copyButton]) made.disabled = running;
  }

  async copy() {
    const item = this.page.shown;
    if (await copyText(plainText(item))) {
      this._saved(item);
      say(this.copyButton, "copied");
      setTimeout(() => say(this.copyButton, "copy"), COPIED_MS);
    } else {
      this._fail("copy_failed");
    }
  }

  async download(kind) {
    const item = this.page.shown;
    try {
      const content = await this._content(kind, item);
      save(new Blob([content], { type: `${MEDIA_TYPES[kind]};charset=utf-8` }), `${stem(item.file)}.${kind}`);
      this._saved(item);
    } catch (refused) {
      this._fail(refused.problem || "render_failed", refused.detail || "", refused.retryAfterS);
    }
  }

  _content(kind, item) {
    if (kind === "txt") return plainText(item);
    if (kind === "md") return markdown(item);
    if (kind === "json") return transcriptJson(item);
    return this._subtitles(kind, item);
  }

  /** The page's server divides the text into subtitles, as the API does. */
  async _subtitles(format, item) {
    const key = this.page.form.key();
    const answer = await fetch(`${pageRoot()}/subtitles`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) },
      body: JSON.stringify({
        format,
        max_chars: Number(this.lineLength.value) || null,
        duration_ms: item.audioS ? item.audioS * 1000 : null,
        sentences: kept(item).map(({ startMs, endMs, text, words: heard, speaker, channel }) => ({
          start: startMs, end: endMs, text, words: heard.map(([word, from, to]) => [word, from, to]),
          speaker: speakerName(item, speaker), channel,
        })),
      }),
    });
    if (answer.ok) return answer.text();
    const refused = await answer.json();
    throw new UploadRefused(refused.problem, refused.detail, refused.retry_after_s);
  }

  _saved(item) {
    if (this.page.problem?.download) this.page.problem = null;
    this.page.set(item, { saved: true });
  }

  _fail(name, detail, retryAfterS) {
    this.page.problem = { ...problemOf(name, detail, retryAfterS), download: true };
    this.page.update();
  }
}

function kept(item) { return item.sentences.filter(({ text }) => text); }

/** Returns a line for each sentence; each turn of a speaker begins with the name. */
function plainText(item) {
  const lines = kept(item).map(({ text, speaker }, number, all) =>
    (speaker === null || all[number - 1]?.speaker === speaker ? text : `${speakerName(item, speaker)}: ${text}`));
  return `${lines.join("\n")}\n`;
}

function markdown(item) {
  const escaped = (text) => text.replace(/([\\`*_{}[\]<>#|])/g, "\\$1");
  const lines = kept(item).map(({ startMs, text, speaker }, number, all) => {
    const isNew = speaker !== null && all[number - 1]?.speaker !== speaker;
    const name = isNew ? `**${escaped(speakerName(item, speaker))}:** ` : "";
    return `**${clock(startMs / 1000)}** ${name}${escaped(text)}\n`;
  });
  return `# ${stem(item.file)}\n\n${lines.join("\n")}`;
}

function transcriptJson(item) {
  const seconds = (ms) => ms / 1000;
  const segments = kept(item).map(({ startMs, endMs, text, words: heard, original, speaker, channel }, id) => ({
    id, start: seconds(startMs), end: seconds(endMs), text,
    ...(speaker === null ? {} : { speaker: speakerName(item, speaker) }),
    ...(channel === null ? {} : { channel }),
    ...(original ? { edited: true } : {}),
    words: heard.map(([word, from, to, confidence]) => ({
      word, start: seconds(from), end: seconds(to), ...(confidence === null ? {} : { confidence }),
    })),
  }));
  return `${JSON.stringify({
    model: item.model, duration: item.audioS || null, complete: item.phase === "done",
    text: joined(segments.map(({ text }) => text)), segments,
    failed_ranges: item.failedRanges.map(([from, to]) => ({ start: seconds(from), end: seconds(to) })),
  }, null, 1)}\n`;
}

/** Joins sentences: no space beside Chinese characters and marks. */
function joined(texts) {
  const wide = /[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]/;
  return texts.reduce((text, next) =>
    text + (text && !wide.test(text.at(-1)) && !wide.test(next[0]) ? " " : "") + next, "");
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages without HTTPS have no clipboard.
    const area = el("textarea", { class: "ps-hidden", readonly: "" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function stem(file) {
  return file.name.replace(/\.[^.]*$/, "") || "transcript";
}
