// The transcript that is shown: sentences, search, editing, uncertain words.
"use strict";

const UNCERTAIN = 0.6;
// A reader who has scrolled is left alone for this long.
const READING_MS = 4000;

/**
 * A sentence: times in ms; words as [text, start, end, confidence], the last null where a person
 * wrote the word; none where the service tells no times. The speaker is a label, or null; without
 * labels, each separate channel is a speaker.
 */
function sentenceOf({ start, end, text, words: heard, speaker, channel }) {
  const label = speaker ?? (channel === undefined ? null : `${CHANNEL}${channel + 1}`);
  return { startMs: start, endMs: end, text, words: heard || [], speaker: label, channel: channel ?? null, original: null };
}

const CHANNEL = "channel:";

/** Returns the labeled sentences; one that was edited stays whole, with the label of its first part. */
function withSpeakers(sentences, labelled) {
  const edited = sentences.filter(({ original }) => original);
  const within = (part, whole) => part.channel === whole.channel
    && part.startMs >= whole.startMs && part.endMs <= whole.endMs;
  for (const whole of edited) whole.speaker = labelled.find((part) => within(part, whole))?.speaker ?? null;
  const others = labelled.filter((part) => !edited.some((whole) => within(part, whole)));
  return [...others, ...edited].sort((one, other) => one.startMs - other.startMs);
}

/** The label of a speaker whose voice could not be compared. */
const UNKNOWN_SPEAKER = "unknown";
const NUM_SPEAKER_COLORS = 8;
const MAX_NAME_CHARACTERS = 64;

/** Returns the name of a speaker as the reader has it; null without labels. */
function speakerName(item, speaker) {
  if (speaker === null) return null;
  if (item.names[speaker]) return item.names[speaker];
  if (speaker.startsWith(CHANNEL)) return words("channel_name", { number: speaker.slice(CHANNEL.length) });
  return speaker === UNKNOWN_SPEAKER ? words("unknown_speaker") : speaker;
}

/** Has Enter and the loss of the focus end an editor with its text, Escape without. */
function endByKeys(field, end) {
  field.onkeydown = (event) => {
    event.stopPropagation();
    if (event.isComposing) return;
    if (event.key === "Escape") end(null, true);
    if (event.key === "Enter") { event.preventDefault(); end(field.value, true); }
  };
  field.onblur = () => end(field.value, false);
}

class TranscriptView {
  constructor(page) {
    this.page = page;
    Object.assign(this, { item: null, drawn: 0, current: -1, currentWord: null, matches: [], match: -1, readAt: -Infinity });
    this.status = el("span", { class: "ps-status" });
    this.bar = label(el("div", { class: "ps-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", hidden: "" },
      el("div", {})), "transcript");
    this.downloads = new Downloads(page);
    this.tools = el("div", { class: "ps-tools", hidden: "" }, this._searchBox(), this._uncertainBox(), this.downloads.element);
    this.head = el("div", { class: "ps-head" },
      el("div", { class: "ps-head-row" }, say(el("h2", { id: "ps-result-title" }), "transcript"), this.status),
      this.bar, this.tools);
    this.hint = el("p", { class: "ps-hint" });
    this.list = el("ol", { class: "ps-sentences" });
    this.list.onclick = (event) => this._clicked(event);
    this.list.ondblclick = (event) => this._doubleClicked(event);
    this.element = label(el("div", { class: "ps-text", tabindex: "0", role: "group" }, this.hint, this.list), "sentences");
    for (const event of ["wheel", "touchmove", "keydown"]) {
      this.element.addEventListener(event, () => { this.readAt = performance.now(); }, { passive: true });
    }
  }

  _searchBox() {
    this.search = label(el("input", { type: "search", class: "ps-search", "data-placeholder": "search" }), "search");
    this.count = el("span", { class: "ps-count", role: "status" });
    this.search.oninput = () => this._find();
    this.search.onkeydown = (event) => {
      if (event.key === "Enter") { event.preventDefault(); this._go(event.shiftKey ? -1 : 1); }
      if (event.key === "Escape") { this.search.value = ""; this._find(); }
    };
    this.steps = el("span", { class: "ps-steps", hidden: "" },
      iconButton("ps-previous", "↑", "previous", {}, () => this._go(-1)),
      iconButton("ps-next", "↓", "next", {}, () => this._go(1)));
    return el("div", { class: "ps-search-box" }, this.search, this.count, this.steps);
  }

  _uncertainBox() {
    this.uncertain = el("input", { type: "checkbox" });
    this.uncertain.onchange = () => this.list.classList.toggle("ps-show-uncertain", this.uncertain.checked);
    this.uncertainRow = el("label", { class: "ps-check ps-uncertain", hidden: "" }, this.uncertain, say(el("span", {}), "uncertain"));
    return this.uncertainRow;
  }

  /** Another recording is shown, or the same one from the start. */
  reset() {
    this.list.replaceChildren();
    Object.assign(this, { drawn: 0, current: -1, currentWord: null, matches: [], match: -1 });
    this.search.value = "";
    this.count.textContent = "";
    this.steps.hidden = true;
  }

  /** Shows the state; sentences that are drawn already stay. */
  update(item) {
    const { phase, sentences } = item;
    if (sentences.length < this.drawn) this.reset();
    const atEnd = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 80;
    if (this.drawn < sentences.length) {
      for (; this.drawn < sentences.length; this.drawn += 1) this._add(this.drawn);
      if (phase === "running" && atEnd) this.element.scrollTop = this.element.scrollHeight;
      if (this.search.value) this._find();
    }
    const busy = BUSY.includes(phase);
    const share = progressOf(item);
    this._showStatus(item, busy ? share : null);
    this.bar.hidden = !busy;
    showProgress(this.bar, share);
    const hint = this._hintName(phase, sentences);
    this.hint.hidden = !hint;
    if (hint) say(this.hint, hint);
    this.tools.hidden = !sentences.length;
    this.uncertainRow.hidden = !sentences.some(({ words: heard }) => heard.length);
    this.downloads.update();
  }

  _showStatus({ phase, failedRanges, sentences }, share) {
    this.status.dataset.phase = phase;
    let name = phase;
    if (phase === "idle" || phase === "chosen") name = null;
    else if (phase === "failed") name = "failed_state";
    else if (phase === "done" && failedRanges.length) name = "partial";
    else if (phase === "cancelled" && sentences.length) name = "cancelled_partial";
    const percent = share === null ? "" : ` ${Math.round(100 * share)}%`;
    this.status.textContent = name ? words(name) + percent : "";
  }

  _hintName(phase, sentences) {
    if (sentences.length) {
      if (this.page.state.away) return "no_recording";
      return this.page.player?.unplayable ? "no_playback" : "hint";
    }
    if (phase === "done") return "silence";
    return ["idle", "chosen"].includes(phase) ? "empty" : null;
  }

  /** Shows the beginning, as after a run. */
  toBeginning() {
    this.element.scrollTop = 0;
    this.readAt = -Infinity;
  }

  _add(number) {
    const line = el("li", {});
    this.list.append(line);
    this._draw(number, line);
  }

  _draw(number, line = this.list.children[number]) {
    const sentence = this.page.state.sentences[number];
    const time = clock(sentence.startMs / 1000);
    const play = label(el("button", { type: "button", class: "ps-time" }, time), "play_sentence", { time });
    play.onclick = () => this.hear(number);
    const text = el("p", { class: "ps-words" });
    if (/\p{Script=Han}/u.test(sentence.text)) text.lang = "zh-CN";
    this._write(text, sentence);
    if (sentence.original) text.append(" ", say(el("em", { class: "ps-edited" }), "edited"));
    const edit = iconButton("ps-edit", "✎", "edit_sentence", { time }, () => this.edit(number));
    line.classList.toggle("ps-match", !!this._query() && sentence.text.toLowerCase().includes(this._query()));
    const parts = sentence.speaker === null ? [] : [this._speaker(number, sentence, line)];
    line.replaceChildren(...parts, play, text, edit);
  }

  /** Returns the name above a sentence; it is shown where the speaker changes. */
  _speaker(number, { speaker }, line) {
    const { state } = this.page;
    const speakers = [...new Set(state.sentences.map((one) => one.speaker))];
    line.dataset.speaker = speaker === UNKNOWN_SPEAKER ? "" : String(speakers.indexOf(speaker) % NUM_SPEAKER_COLORS);
    const name = speakerName(state, speaker);
    const made = label(el("button", { type: "button", class: "ps-speaker" }, name), "rename_speaker", { name }, { tooltip: true });
    made.hidden = number > 0 && state.sentences[number - 1].speaker === speaker;
    made.onclick = () => this.rename(number);
    return made;
  }

  /** Lets a speaker be named, in all sentences: Enter saves, Escape discards. */
  rename(number) {
    const { state } = this.page;
    const { speaker } = state.sentences[number];
    const name = speakerName(state, speaker);
    const field = label(el("input", { class: "ps-speaker-editor", maxlength: String(MAX_NAME_CHARACTERS), autocomplete: "off" }),
      "speaker_name", { name });
    field.value = name;
    let ended = false;
    const end = (typed, refocus) => {
      if (ended) return;
      ended = true;
      const given = typed === null ? name : typed.replace(/\s+/g, " ").trim();
      if (given && given !== name) {
        this.page.set(state, { names: { ...state.names, [speaker]: given }, saved: false });
      }
      state.sentences.forEach((one, at) => {
        if (one.speaker === speaker && !this.list.children[at].querySelector("textarea")) this._draw(at);
      });
      if (refocus) this.list.children[number].querySelector(".ps-speaker").focus();
    };
    endByKeys(field, end);
    this.list.children[number].querySelector(".ps-speaker").replaceWith(field);
    field.focus();
    field.select();
  }

  /** Fills in a sentence's text: words that can be played, or what was searched for. */
  _write(element, sentence) {
    const query = this._query();
    if (!sentence.text) element.append(say(el("em", { class: "ps-edited" }), "deleted_text"));
    else if (query && sentence.text.toLowerCase().includes(query)) element.append(...marked(sentence.text, query));
    else element.append(...spelled(sentence));
  }

  _query() { return this.search.value.trim().toLowerCase(); }

  /** Plays one sentence. */
  hear(number) {
    const { startMs, endMs } = this.page.state.sentences[number];
    this.page.player.playFrom(startMs / 1000, endMs / 1000);
  }

  _clicked(event) {
    const word = event.target.closest?.(".ps-words [data-start]");
    if (!word || event.detail > 1 || String(window.getSelection())) return;
    this.page.player.playFrom(Number(word.dataset.start) / 1000);
  }

  _doubleClicked(event) {
    const line = event.target.closest?.(".ps-words")?.parentElement;
    if (!line) return;
    this.page.player.audio.pause();
    this.edit([...this.list.children].indexOf(line));
  }

  /** Marks the sentence and the word at a time; follows them if the recording plays. */
  mark(nowMs, playing) {
    const { sentences } = this.page.state;
    const current = sentences.findLastIndex(({ startMs }) => startMs <= nowMs + 1);
    if (current !== this.current || !this.list.children[current]?.classList.contains("ps-chosen")) {
      this.list.querySelector(".ps-chosen")?.classList.remove("ps-chosen");
      this.list.querySelector("[aria-current]")?.removeAttribute("aria-current");
      const line = nowMs > 0 || playing ? this.list.children[current] : null;
      line?.classList.add("ps-chosen");
      line?.setAttribute("aria-current", "true");
      this.current = line ? current : -1;
      if (line && performance.now() - this.readAt > READING_MS) this._keepVisible(line, playing);
    }
    this._markWord(nowMs);
  }

  _markWord(nowMs) {
    const spans = this.current < 0 ? [] : this.list.children[this.current].querySelectorAll("[data-start]");
    const word = [...spans].findLast((span) => Number(span.dataset.start) <= nowMs
      && nowMs < Number(span.dataset.end) + 400) || null;
    if (word === this.currentWord) return;
    this.currentWord?.classList.remove("ps-now");
    word?.classList.add("ps-now");
    this.currentWord = word;
  }

  /** Scrolls the transcript, or on a phone the page, so that a line is in sight. */
  _keepVisible(line, playing) {
    const scrolls = this.element.scrollHeight > this.element.clientHeight + 1;
    if (scrolls) {
      const box = this.element.getBoundingClientRect();
      const own = line.getBoundingClientRect();
      if (own.top < box.top || own.bottom > box.bottom) {
        this.element.scrollTop += own.top - box.top - this.element.clientHeight / 3;
      }
    } else if (playing) {
      const own = line.getBoundingClientRect();
      const topPx = this.page.player.element.getBoundingClientRect().bottom;
      if (own.top < topPx || own.bottom > window.innerHeight) {
        window.scrollBy({ top: own.top - Math.max(topPx, window.innerHeight / 3) });
      }
    }
  }

  _find() {
    const query = this._query();
    const { sentences } = this.page.state;
    this.matches = [];
    sentences.forEach((sentence, number) => {
      const found = !!query && sentence.text.toLowerCase().includes(query);
      const line = this.list.children[number];
      if (!line || line.querySelector("textarea")) return;
      if (found || line.classList.contains("ps-match")) this._draw(number);
    });
    this.matches = query ? [...this.list.querySelectorAll("mark")] : [];
    this.match = -1;
    this.steps.hidden = !this.matches.length;
    if (this.matches.length) this._go(1);
    else if (query) say(this.count, "search_none");
    else { delete this.count.dataset.text; this.count.textContent = ""; }
  }

  _go(step) {
    if (!this.matches.length) return;
    this.matches[this.match]?.classList.remove("ps-match-now");
    this.match = (this.match + step + this.matches.length) % this.matches.length;
    const mark = this.matches[this.match];
    mark.classList.add("ps-match-now");
    this.readAt = performance.now();
    mark.scrollIntoView({ block: "nearest" });
    say(this.count, "search_count", { number: this.match + 1, count: this.matches.length });
  }

  /** Lets a sentence be changed in place: Enter saves, Escape discards. */
  edit(number) {
    const line = this.list.children[number];
    const sentence = this.page.state.sentences[number];
    if (!line || line.querySelector("textarea")) return;
    const field = label(el("textarea", { class: "ps-editor", rows: "1" }), "edit_text", { time: clock(sentence.startMs / 1000) });
    const grow = () => { field.style.height = "auto"; field.style.height = `${field.scrollHeight + 2}px`; };
    field.value = sentence.text;
    field.oninput = grow;
    let ended = false;
    const end = (text, refocus) => {
      if (ended) return;
      ended = true;
      if (text !== null) this._change(sentence, text);
      this._draw(number);
      if (refocus) line.querySelector(".ps-edit").focus();
      this.page.update();
    };
    endByKeys(field, end);
    const restore = button("ps-plain ps-restore", "restore", () => {});
    // Before the field loses the focus, which would save it.
    restore.onmousedown = (event) => { event.preventDefault(); end(sentence.original.text, true); };
    restore.onclick = () => end(sentence.original?.text ?? null, true);
    const box = el("div", { class: "ps-edit-box" }, field,
      el("div", { class: "ps-edit-row" }, say(el("small", {}), "edit_help"), ...(sentence.original ? [restore] : [])));
    line.querySelector(".ps-words").replaceWith(box);
    line.querySelector(".ps-edit").remove();
    grow();
    field.focus();
  }

  _change(sentence, typed) {
    const text = typed.replace(/\s+/g, " ").trim();
    if (text === sentence.text) return;
    const original = sentence.original || { text: sentence.text, words: sentence.words };
    Object.assign(sentence, text === original.text
      ? { ...original, original: null }
      : { text, words: aligned(sentence, text), original });
    Object.assign(this.page.state, { edited: this.page.state.sentences.some((one) => one.original), saved: false });
  }
}

/** Returns a sentence's text with a span for each word that has times. */
function spelled({ text, words: heard }) {
  const parts = [];
  let at = 0;
  for (const [word, startMs, endMs, confidence] of heard) {
    const first = text.indexOf(word, at);
    if (first < 0) continue;
    if (first > at) parts.push(text.slice(at, first));
    const span = el("span", { "data-start": String(startMs), "data-end": String(endMs) }, word);
    if (confidence !== null && confidence < UNCERTAIN) {
      span.className = "ps-doubt";
      titled(span, "confidence", { percent: Math.round(100 * confidence) });
    }
    parts.push(span);
    at = first + word.length;
  }
  parts.push(text.slice(at));
  return parts;
}

/** Returns a text in which what was searched for is marked. */
function marked(text, query) {
  const parts = [];
  const lower = text.toLowerCase();
  let at = 0;
  for (let first = lower.indexOf(query); first >= 0; first = lower.indexOf(query, at)) {
    parts.push(text.slice(at, first), el("mark", {}, text.slice(first, first + query.length)));
    at = first + query.length;
  }
  parts.push(text.slice(at));
  return parts;
}

const WORD = /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|[\p{L}\p{N}]+(?:['’.:%-][\p{L}\p{N}]+)*/gu;
const LETTER = /[\p{L}\p{N}]/u;

/**
 * Returns the words of an edited sentence: those that the edit left alone keep their times, and
 * the new ones between them share the time that is left.
 */
function aligned({ startMs, endMs, words: heard }, text) {
  if (!heard.length) return [];
  let [numFirst, from] = [0, 0];
  for (const [word] of heard) {
    const first = text.indexOf(word, from);
    if (first < 0 || LETTER.test(text.slice(from, first))) break;
    [numFirst, from] = [numFirst + 1, first + word.length];
  }
  let [numLast, to] = [0, text.length];
  for (const [word] of heard.slice(numFirst).reverse()) {
    const last = text.lastIndexOf(word, to - word.length);
    if (last < from || to < word.length || LETTER.test(text.slice(last + word.length, to))) break;
    [numLast, to] = [numLast + 1, last];
  }
  const typed = text.slice(from, to).match(WORD) || [];
  const first = heard.slice(0, numFirst);
  const last = numLast ? heard.slice(-numLast) : [];
  const gapStartMs = first.length ? first.at(-1)[2] : startMs;
  const gapMs = Math.max(0, (last.length ? last[0][1] : endMs) - gapStartMs);
  const letters = typed.reduce((sum, word) => sum + word.length, 0) || 1;
  let passed = 0;
  const between = typed.map((word) => {
    const wordStartMs = Math.round(gapStartMs + (gapMs * passed) / letters);
    passed += word.length;
    return [word, wordStartMs, Math.round(gapStartMs + (gapMs * passed) / letters), null];
  });
  return [...first, ...between, ...last];
}
