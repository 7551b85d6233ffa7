// The jobs of this browser: transcriptions that go on when the page is closed.
"use strict";

const LONG_S = 600;
const LONG_BYTES = 20 * 2 ** 20;
const JOBS_POLL_MS = 5000;
const ENDED = ["completed", "failed", "cancelled", "expired", "gone"];

/** Whether a recording is long enough to be offered as a job. */
function isLong(item) {
  return item.file.size >= LONG_BYTES || item.durationS >= LONG_S;
}

/** Calls the page's server about jobs. */
async function callJobs(path, key, options = {}) {
  const headers = { ...(options.body || options.method === "POST" ? { "Content-Type": "application/json" } : {}),
    ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const refused = (answer = {}) => new UploadRefused(answer.problem || "unreachable", answer.detail || "", answer.retry_after_s ?? null);
  const response = await fetch(`${pageRoot()}/jobs${path}`, { cache: "no-store", ...options, headers }).catch(() => { throw refused(); });
  const answer = await response.json().catch(() => { throw refused(); });
  if (!response.ok) throw refused(answer);
  return answer;
}

class JobList {
  constructor(page) {
    this.page = page;
    this.rows = new Map();
    this.jobs = this._remembered();
    this.polling = false;
    this.list = el("ul", { class: "ps-files ps-job-list" });
    this.element = el("section", { class: "ps-jobs", "aria-labelledby": "ps-jobs-title", hidden: "" },
      say(el("h3", { id: "ps-jobs-title" }), "jobs"), this.list,
      say(el("p", { class: "ps-privacy" }), "jobs_info"));
    document.addEventListener("visibilitychange", () => this.poll());
  }

  // Pages under other paths of the same host have jobs of their own.
  get _name() { return `paraserve.jobs:${pageRoot()}`; }

  _remembered() {
    try {
      const kept = JSON.parse(localStorage.getItem(this._name) || "[]");
      return kept.filter((one) => typeof one?.id === "string" && typeof one?.name === "string")
        .map(({ id, name }) => ({ id, name, status: null, percent: 0, position: null, detail: "" }));
    } catch {
      return [];
    }
  }

  _remember() {
    try {
      localStorage.setItem(this._name, JSON.stringify(this.jobs.map(({ id, name }) => ({ id, name }))));
    } catch {
      // Without storage the jobs are listed until the page is closed.
    }
  }

  /** Makes a job of a recording that has been uploaded. */
  async create(item, upload, key, order) {
    const name = item.file.name.slice(0, 256);
    const made = await callJobs("", key, { method: "POST", body: JSON.stringify({ upload, name, order }) });
    this.jobs.unshift({ ...made, name });
    this.jobs.splice(paraserveFacts.maxJobs);
    this._remember();
    this.update();
    this.poll();
    return made.id;
  }

  /** Asks for the states of the jobs, and again until all have ended. */
  async poll() {
    const open = () => this.jobs.filter((job) => !ENDED.includes(job.status));
    if (this.polling || !this.page.offer?.jobs) return;
    this.polling = true;
    while (open().length && !document.hidden && this.page.offer?.jobs) {
      const query = open().map(({ id }) => `id=${encodeURIComponent(id)}`).join("&");
      try {
        this._take((await callJobs(`?${query}`, this.page.form.key())).jobs);
      } catch {
        // The service is restarting, or away: the jobs go on, or will.
      }
      await new Promise((resolve) => setTimeout(resolve, JOBS_POLL_MS));
    }
    this.polling = false;
  }

  _take(states) {
    for (const state of states) {
      const job = this.jobs.find((one) => one.id === state.id);
      if (!job) continue;
      const ended = job.status && job.status !== state.status && state.status === "completed";
      Object.assign(job, state);
      if (ended) say(this.page.live, "job_done", { name: job.name });
    }
    this.jobs = this.jobs.filter((job) => job.status !== "gone");
    this._remember();
    this.update();
  }

  /** Shows the transcript of a job in the editor, with its sound if the recording is on the page. */
  async open(job) {
    this.page.problem = null;
    try {
      const result = await callJobs(`/${job.id}/result`, this.page.form.key());
      const item = this.page.items.find((one) => one.job === job.id) || this.page.addJob(job);
      this.page.showResult(item, result);
    } catch (refused) {
      this._refused(refused);
    }
  }

  async cancel(job) {
    try {
      this._take([await callJobs(`/${job.id}/cancel`, this.page.form.key(), { method: "POST", body: "{}" })]);
    } catch (refused) {
      this._refused(refused);
    }
  }

  async remove(job) {
    try {
      this._take([await callJobs(`/${job.id}`, this.page.form.key(), { method: "DELETE" })]);
    } catch (refused) {
      this._refused(refused);
    }
  }

  _refused({ problem, detail, retryAfterS }) {
    this.page.problem = problemOf(problem, detail, retryAfterS);
    this.page.update();
  }

  update() {
    this.element.hidden = !this.jobs.length || !this.page.offer?.jobs;
    for (const [id, row] of this.rows) {
      if (!this.jobs.some((job) => job.id === id)) { row.element.remove(); this.rows.delete(id); }
    }
    for (const job of this.jobs) {
      if (!this.rows.has(job.id)) this._add(job);
      this._show(job, this.rows.get(job.id));
    }
  }

  _add(job) {
    const { name } = job;
    const state = el("span", { class: "ps-file-status" });
    const bar = label(el("div", { class: "ps-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, el("div", {})),
      "file_progress", { name });
    const open = label(button("ps-plain ps-open-job", "open_job", () => this.open(job)), "open_job_of", { name });
    const cancel = iconButton("ps-cancel-job", "■", "cancel_job", { name }, () => this.cancel(job));
    const remove = iconButton("ps-remove", "✕", "remove_job", { name }, () => this.remove(job));
    const element = el("li", {}, el("strong", { class: "ps-job-name" }, name),
      el("span", { class: "ps-file-tools" }, open, cancel, remove), state, bar);
    this.rows.set(job.id, { element, state, bar, open, cancel, remove });
    // The newest is the first.
    this.list.insertBefore(element, this.list.children[this.jobs.indexOf(job)] || null);
  }

  _show(job, { element, state, bar, open, cancel, remove }) {
    const running = job.status === "running";
    const ended = ENDED.includes(job.status);
    element.dataset.phase = job.status === "failed" ? "failed" : job.status || "";
    const name = job.status === "queued" && job.position !== null ? "job_waits" : `job_${job.status || "unknown"}`;
    const text = words(name, { percent: job.percent, count: job.position ?? "" }) + (job.detail ? ` ${job.detail}` : "");
    if (state.textContent !== text) state.textContent = text;
    bar.hidden = !running;
    showProgress(bar, running ? job.percent / 100 : 0);
    open.hidden = job.status !== "completed";
    cancel.hidden = ended;
    remove.hidden = !ended;
  }
}
