// Asks every program of a row REQUESTS times and draws each lane: a bar a request, a colour a process.
// The page is complete without it.
"use strict";

const REQUESTS = 20;
const button = document.getElementById("compare");

// "queue;dur=0.010, start;dur=0.412" as {queue: 0.01, start: 0.412}; empty where the server sends no such header.
function phases(header) {
  const found = {};
  for (const [, name, ms] of (header || "").matchAll(/([\w-]+);dur=([\d.]+)/g)) found[name] = Number(ms);
  return found;
}

// What one request cost: the server's own time where it tells, else what the browser saw.
async function ask(url) {
  const begun = performance.now();
  const response = await fetch(`${url}?json`, { cache: "no-store" });
  if (!response.ok) throw new Error(`it answers ${response.status} ${response.statusText}`);
  const { pid, served } = await response.json();
  const total = performance.now() - begun;
  const phase = phases(response.headers.get("Server-Timing"));
  const parts = Object.values(phase);
  return { pid, served, phase, total, cost: parts.length ? parts.reduce((sum, ms) => sum + ms, 0) : total };
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function count(n, one, many) {
  return `${n} ${n === 1 ? one : many}`;
}

// "20 processes, 1 request each · 1.90 ms (queue 0.01, start 0.57, first 1.32)"
function summary(runs) {
  const processes = new Set(runs.map((run) => run.pid)).size;
  const most = Math.max(...runs.map((run) => run.served));
  const each = processes === 1 ? "so far" : most === 1 ? "each" : "at most";
  const parts = Object.keys(runs[0].phase).map(
    (name) => `${name} ${median(runs.map((run) => run.phase[name] ?? 0)).toFixed(2)}`);
  return `${count(processes, "process", "processes")}, ${count(most, "request", "requests")} ${each} · ` +
    `${median(runs.map((run) => run.cost)).toFixed(2)} ms${parts.length ? ` (${parts.join(", ")})` : ""}`;
}

class Lane {
  constructor(element) {
    this.url = element.querySelector("a").getAttribute("href");
    this.bars = element.querySelector(".bars") || element.appendChild(document.createElement("span"));
    this.bars.className = "bars";
    this.bars.setAttribute("aria-hidden", "true");
    this.result = element.querySelector(".result") || element.appendChild(document.createElement("span"));
    this.result.className = "result";
    this.result.textContent = "";
    this.runs = [];
    this.broken = false;
  }

  async run() {
    if (this.broken) return;
    try {
      this.runs.push(await ask(this.url));
    } catch (error) {
      this.broken = true;
      this.result.textContent = error.message;
    }
  }

  draw(highest) {
    const pids = [...new Set(this.runs.map((run) => run.pid))];
    this.bars.replaceChildren(...Array.from({ length: REQUESTS }, (_, at) => {
      const bar = document.createElement("i");
      const run = this.runs[at];
      if (!run) {
        bar.style.visibility = "hidden";
        return bar;
      }
      bar.style.height = `${(100 * run.cost) / highest}%`;
      bar.style.setProperty("--hue", (170 + 137.5 * pids.indexOf(run.pid)) % 360);
      bar.title = `process ${run.pid}, request ${run.served}: ${run.cost.toFixed(2)} ms of ${run.total.toFixed(1)} ms`;
      return bar;
    }));
    if (!this.broken && this.runs.length) this.result.textContent = summary(this.runs);
  }
}

async function compare() {
  button.disabled = true;
  document.getElementById("legend").hidden = false;
  for (const pair of document.querySelectorAll(".pair")) {
    const lanes = [...pair.querySelectorAll(".cgi, .fastcgi")].map((element) => new Lane(element));
    for (let n = 0; n < REQUESTS; n++) {
      for (const lane of lanes) await lane.run();
      const highest = Math.max(...lanes.flatMap((lane) => lane.runs.map((run) => run.cost)), 0.001);
      for (const lane of lanes) lane.draw(highest);
    }
  }
  button.disabled = false;
}

button.textContent = `Ask each ${REQUESTS} times`;
button.hidden = false;
button.addEventListener("click", compare);
