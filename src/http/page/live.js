// The live charts: 15 minutes that the process has kept, and what comes on top every second.

import { compact, latency, rate } from "./format.js";
import { Chart, fromZero } from "./charts.js";
import { find } from "./dom.js";
import { ask, query } from "./server.js";

const SPAN = 900;
const minutes = (x) => (x > -1 ? "now" : `${Math.round(-x / 60)} min ago`);
const time = {
  scale: "x",
  size: 28,
  values: (u, splits) => splits.map((x) => (x === 0 ? "now" : `−${-x / 60} min`)),
  splits: () => [-SPAN, -600, -300, 0],
};
const x = { time: false, range: () => [-SPAN, 0] };
const moment = (at) => (at > -60 ? `${Math.round(-at)} s ago` : minutes(at));

function chart(id, options) {
  return new Chart(find(`#chart-${id}`), { sync: "live", moment, ...options });
}

export class Live {
  constructor() {
    this.flow = chart("flow", {
      series: [
        { label: "messages/s in", color: "first", value: rate, isFilled: true },
        { label: "rows/s out", color: "second", value: rate },
      ],
      scales: { x, y: { range: flowRange } },
      axes: [time, { size: 52, values: (u, splits) => splits.map(compact) }],
    });
    this.pending = chart("pending", {
      series: [{ label: "readings", color: "third", value: (n) => n.toLocaleString("en-US"), isFilled: true }],
      scales: { x, y: { range: fromZero(10) } },
      axes: [time, { size: 52, values: (u, splits) => splits.map(compact) }],
    });
    this.latency = chart("latency", {
      series: [
        { label: "commit", color: "first", value: latency },
        { label: "end to end", color: "second", value: latency },
      ],
      scales: { x, y: { distr: 3, range: (u, min, max) => [Math.min(min ?? 0.001, 0.001), Math.max(max ?? 1, 1)] } },
      axes: [
        time,
        { size: 52, splits: powersOfTen, filter: (u, splits) => splits, values: (u, splits) => splits.map(tick) },
      ],
    });
    this.forget();
  }

  forget() {
    this.run = null;
    this.last = null;
    /** Each point's time on this page's own clock, in seconds, and its figures. */
    this.at = [];
    this.columns = [[], [], [], [], []];
  }

  /** Asks for what is new and draws it. */
  async refresh() {
    const points = await ask(`api/v1/status/history?${query({ run: this.run, after: this.last })}`);
    if (points.run !== this.run) this.forget();
    this.run = points.run;
    this.last = points.last;
    const now = performance.now() / 1000;
    this.at.push(...points.age_seconds.map((age) => now - age));
    [
      points.messages_per_second,
      points.rows_per_second,
      points.pending_records,
      points.commit_p99_seconds,
      points.end_to_end_p99_seconds,
    ].forEach((column, i) => this.columns[i].push(...column));
    const old = this.at.findIndex((at) => at >= now - SPAN);
    const gone = old < 0 ? this.at.length : old;
    this.at.splice(0, gone);
    for (const column of this.columns) column.splice(0, gone);
    this.draw(now);
  }

  draw(now) {
    const x = this.at.map((at) => Math.min(0, at - now));
    const [messages, rows, pending, commit, endToEnd] = this.columns;
    this.flow.show([x, messages, rows]);
    this.pending.show([x, pending]);
    this.latency.show([x, commit, endToEnd]);
  }
}

/** What comes in has to be seen beside a backlog that leaves at a hundred times the pace. */
function flowRange(u, min, max) {
  const highestIn = u.data[1].reduce((high, rate) => Math.max(high, rate), 0);
  const highest = highestIn > 0 ? Math.min(max ?? 0, highestIn * 4) : (max ?? 0);
  return fromZero(1)(u, min, highest);
}

function powersOfTen(u, axis, min, max) {
  const powers = [];
  for (let power = Math.ceil(Math.log10(min) - 1e-9); 10 ** power <= max * 1.001; power++) powers.push(10 ** power);
  return powers;
}

function tick(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1e6) / 1e3} ms`;
  return seconds < 1000 ? `${seconds} s` : `${compact(seconds)} s`;
}
