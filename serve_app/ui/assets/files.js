// The recordings on the page, each with its state.
"use strict";

class FileList {
  constructor(page) {
    this.page = page;
    this.rows = new Map();
    this.list = el("ul", { class: "ps-files" });
    this.element = el("div", { class: "ps-file-list", hidden: "" }, say(el("h3", { class: "ps-hidden" }), "files"), this.list);
  }

  update() {
    const { items } = this.page;
    this.element.hidden = !items.length;
    for (const [item, row] of this.rows) {
      if (!items.includes(item)) { row.element.remove(); this.rows.delete(item); }
    }
    for (const item of items) {
      if (!this.rows.has(item)) this._add(item);
      this._show(item, this.rows.get(item));
    }
  }

  _add(item) {
    const { name } = item.file;
    const show = el("button", { type: "button", class: "ps-file-name" });
    show.append(el("strong", {}, name), el("span", {}, item.away ? "" : size(item.file.size)));
    label(show, "show_file", { name });
    show.onclick = () => this.page.show(item);
    const status = el("span", { class: "ps-file-status" });
    const bar = label(el("div", { class: "ps-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, el("div", {})),
      "file_progress", { name });
    const remove = iconButton("ps-remove", "✕", "remove_file", { name }, () => this.page.remove(item));
    const tools = el("span", { class: "ps-file-tools" });
    if (item.recorded) {
      tools.append(iconButton("ps-save", "⤓", "save_recording", { name }, () => {
        save(item.file, name, item.file.type);
        item.saved = true;
        this.page.update();
      }));
    }
    tools.append(remove);
    const element = el("li", {}, show, tools, status, bar);
    this.rows.set(item, { element, show, status, bar });
    this.list.append(element);
  }

  _show(item, { element, show, status, bar }) {
    const share = progressOf(item);
    const busy = BUSY.includes(item.phase);
    const name = item.problem ? item.problem.name : item.phase;
    const values = item.problem?.values || {};
    element.classList.toggle("ps-shown", item === this.page.shown);
    element.dataset.phase = item.phase;
    show.setAttribute("aria-current", String(item === this.page.shown));
    const percent = share === null ? "" : ` ${Math.round(100 * share)}%`;
    const text = words(name, values) + (busy ? percent : "");
    if (status.textContent !== text) status.textContent = text;
    bar.hidden = !busy && item.phase !== "queued";
    showProgress(bar, busy ? share : 0);
  }
}

/** Returns how much of the present step is done, from 0 to 1; null where that is unknown. */
function progressOf(item) {
  if (item.phase === "uploading") return item.progress;
  if (item.phase !== "running") return item.phase === "done" ? 1 : null;
  const durationS = item.durationS || item.audioS;
  const lastS = item.sentences.length ? item.sentences.at(-1).endMs / 1000 : 0;
  return durationS ? Math.min(1, lastS / durationS) : null;
}

function showProgress(bar, share) {
  bar.classList.toggle("ps-unknown", share === null);
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(100 * share)));
  bar.firstChild.style.width = `${Math.round(100 * (share || 0))}%`;
}
