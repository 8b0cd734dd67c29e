// Devices, newest first, and one device's readings.

import { FIELDS } from "./fields.js";
import { ago, clock, count, figure, measured, plural, shown } from "./format.js";
import { Chart } from "./charts.js";
import { arrange, find, make, say, show } from "./dom.js";
import { ask, query, save } from "./server.js";
import { isDrawn, learnTables, listenForTable, ofTable, table } from "./tables.js";

/** A device that was silent for longer is marked. */
const STALE_SECONDS = 300;
const FIRST = 10;
const MOST = 1000;
/** While somebody is at the list, its order stays. */
const AT_IT_MS = 8000;

/** Of each field; from the first on again for more fields than these. */
const COLORS = ["second", "first", "third"];
const UNITS = [...new Set(FIELDS.map(({ unit }) => unit))];
const isShare = (unit) => unit === "%";
/** In the list, a field whose unit no other has goes without its name. */
const SHOWN = FIELDS.map(({ unit }) => ({
  isNamed: FIELDS.filter((other) => other.unit === unit).length > 1,
  digits: isShare(unit) ? 0 : 1,
}));

/** Of a table that mappings fill, the first columns that a row has something in. */
const FIGURES = 3;

const list = find("#devices");
const search = find("#devices-search");
const more = find("#devices-more");
const note = find("#devices-note");

const rows = new Map();
let limit = FIRST;
let touched = -Infinity;
let asked = 0;
/** The box's clock, ahead of this device's by so many milliseconds; 0 while the box's is not set. */
let ahead = 0;

/** A time that is not known is long ago. */
const ageOf = (timestamp) => (timestamp === null ? Infinity : Date.now() + ahead - Date.parse(timestamp)) / 1000;

export function setClock(status) {
  ahead = status.clock_is_set ? Date.parse(status.now) - Date.now() : 0;
}

function row(device) {
  let item = rows.get(device.device_id);
  if (!item) {
    const element = make("li");
    const button = element.appendChild(make("button", "device"));
    button.type = "button";
    const part = (name) => button.appendChild(make("span", name));
    const places = table().isBuiltIn ? FIELDS.length : FIGURES;
    item = { element, button, name: part("name"), age: part("age"), figures: Array.from({ length: places }, () => part("figure")) };
    say(item.name, device.device_id);
    button.addEventListener("click", () => open(item.device));
    rows.set(device.device_id, item);
  }
  item.device = device;
  const texts = figuresOf(device);
  item.figures.forEach((place, at) => say(place, texts[at] ?? ""));
  tellAge(item);
  return item.element;
}

function figuresOf(device) {
  if (table().isBuiltIn) return FIELDS.map((field, at) => figure(device, field, SHOWN[at]));
  const filled = table().columns.filter(({ name }) => device[name] !== null && typeof device[name] !== "object");
  return filled.slice(0, FIGURES).map((column) => `${column.name}\u00a0${shown(device[column.name], column)}`);
}

function tellAge({ device, age, button }) {
  const seconds = ageOf(device.last_seen);
  const isStale = seconds > STALE_SECONDS;
  say(age, isStale ? `silent · ${ago(seconds)}` : ago(seconds));
  age.title = device.note ?? clock(new Date(device.last_seen), true);
  button.classList.toggle("stale", isStale);
}

export function tellAges() {
  for (const element of list.children) {
    const item = rows.get(element.firstChild.firstChild.textContent);
    if (item) tellAge(item);
  }
}

export async function refreshDevices({ isAsked = false } = {}) {
  await learnTables();
  const turn = ++asked;
  const page = await ask(`api/v1/devices?${query({ newest_first: true, limit, name_contains: search.value.trim(), ...ofTable() })}`);
  // An answer to what was typed before.
  if (turn !== asked) return;
  let elements = page.data.map(row);
  const isAtIt = !isAsked && (performance.now() - touched < AT_IT_MS || list.contains(document.activeElement));
  if (isAtIt && list.children.length > 0) {
    const shown = new Set(list.children);
    elements = [...list.children, ...elements.filter((element) => !shown.has(element))];
  }
  arrange(list, elements);
  for (const [id, item] of rows) if (!item.element.isConnected) rows.delete(id);
  say(find("#devices-count"), count(page.total));
  show(more, page.total > page.data.length && limit < MOST);
  const isCut = page.total > MOST && limit >= MOST;
  tell(
    page.partial ? `The database does not answer: shown are the last values that the ingestor knows, ${completeness(page)}.`
    : page.total > 0
      ? isCut ? `The newest ${count(MOST)} are shown: search for the others.` : ""
      : search.value.trim() ? "No device has that in its name." : "No reading is in the database yet.",
  );
}

/** From when on an answer that is partial has everything. */
function completeness({ complete_from: from }) {
  return from === null ? "and some may be missing" : `complete from ${clock(new Date(from), true)} on`;
}

export function tell(text) {
  say(note, text);
}

let typing = 0;
function onTyped(again) {
  clearTimeout(typing);
  typing = setTimeout(() => {
    limit = FIRST;
    again();
  }, 250);
}

/** `again` refreshes the list, and tells what hinders it. */
export function listen(again) {
  search.addEventListener("input", () => onTyped(again));
  listenForTable(() => {
    rows.clear();
    arrange(list, []);
    limit = FIRST;
    again();
  });
  more.addEventListener("click", () => {
    limit = Math.min(MOST, limit * 4);
    again();
  });
  for (const kind of ["pointermove", "pointerdown", "touchmove", "wheel"]) {
    list.addEventListener(kind, () => (touched = performance.now()), { passive: true });
  }
}

// --- one device ---

const RANGES = [
  ["15 minutes", 900],
  ["hour", 3600],
  ["6 hours", 6 * 3600],
  ["day", 86400],
  ["week", 7 * 86400],
  ["30 days", 30 * 86400],
  ["readings of any age", null],
];
const PAGES_MAX = 5;
const SHORT_PAGES_MAX = 20;
const dialog = find("#device");
const range = find("#device-range");
let charts = [];
let current = null;
let opening = 0;

RANGES.forEach(([text], at) => {
  const option = make("option", "", text);
  option.value = String(at);
  range.append(option);
});

function open(device) {
  current = device;
  say(find("#device-title"), device.device_id);
  // The shortest that has something in it.
  const age = ageOf(device.last_seen);
  range.value = String(RANGES.findIndex(([, seconds]) => seconds === null || age < seconds * 0.9));
  dialog.showModal();
  range.focus();
  draw();
}

dialog.addEventListener("close", () => {
  opening++;
  clear();
});
range.addEventListener("change", draw);
find("#device-csv").addEventListener("click", async () => {
  const problem = find("#device-note");
  say(problem, "");
  const asked = { format: "csv", device_id: current.device_id, start: startOf(), ...ofTable() };
  try {
    await save(`api/v1/telemetry?${query(asked)}`);
  } catch (refused) {
    say(problem, `The readings cannot be saved: ${refused.message}.`);
  }
});

/** Where the range that is chosen begins; null: nowhere. */
function startOf() {
  const seconds = RANGES[Number(range.value)][1];
  return seconds === null ? null : new Date(Date.now() + ahead - seconds * 1000).toISOString();
}

function clear() {
  for (const chart of charts) chart.destroy();
  charts = [];
  find("#device-charts").replaceChildren();
}

async function draw() {
  const turn = ++opening;
  const device = current.device_id;
  const seconds = RANGES[Number(range.value)][1];
  const now = Date.now() + ahead;
  const start = startOf();
  const problem = find("#device-note");
  say(problem, "");
  say(find("#device-count"), "loading…");
  const readings = [];
  let cursor = null;
  let partial = null;
  try {
    // Where much waits in the log, pages are short.
    for (let page = 0; page < PAGES_MAX || (partial !== null && page < SHORT_PAGES_MAX); page++) {
      const answer = await ask(`api/v1/telemetry?${query({ device_id: device, start, limit: 1000, cursor, ...ofTable() })}`);
      if (turn !== opening) return;
      readings.push(...answer.data.filter((reading) => reading.timestamp !== null));
      if (answer.partial) partial = answer;
      cursor = answer.next_cursor;
      if (cursor === null) break;
    }
  } catch (refused) {
    if (turn !== opening) return;
    say(problem, `The readings cannot be shown: ${refused.message}.`);
  }
  readings.reverse();
  const isCut = cursor !== null;
  say(find("#device-count"), `${isCut && readings.length > 0 ? "the newest " : ""}${plural(readings.length, "reading")}`);
  if (partial !== null && problem.textContent === "") {
    say(problem, `The database does not answer, or much waits for it: shown is what is in the ingestor's log, ${completeness(partial)}.`);
  }
  if (readings.length === 0 && problem.textContent === "") {
    say(problem, `No reading in this time. The last one came ${ago(ageOf(current.last_seen))}.`);
  }
  const at = readings.map((reading) => Date.parse(reading.timestamp) / 1000);
  const ends = [seconds === null || isCut ? (at[0] ?? now / 1000) : now / 1000 - seconds, now / 1000];
  clear();
  show(find("#device-chart"), table().isBuiltIn);
  const moment = (x) => clock(new Date(x * 1000), true);
  const x = { time: true, range: () => (at[0] === undefined || ends[0] < ends[1] ? ends : [ends[1] - 60, ends[1]]) };
  if (!table().isBuiltIn) {
    for (const column of table().columns.filter(isDrawn)) drawColumn(column, readings, { x, moment });
    return;
  }
  const chart = new Chart(find("#device-chart"), {
    height: 260,
    moment,
    series: FIELDS.map(({ name, unit }, at) => ({
      label: name,
      color: COLORS[at % COLORS.length],
      value: (n) => measured(n, unit),
      scale: unit,
    })),
    scales: {
      x,
      ...Object.fromEntries(UNITS.map((unit) => [unit, { range: isShare(unit) ? () => [0, 100] : around }])),
    },
    axes: [
      { space: 70, size: 28, values: dates },
      ...UNITS.map((unit, at) => ({
        scale: unit,
        size: 52,
        values: (u, splits) => splits.map((v) => `${v} ${unit}`),
        // The first stands on the left and has the lines.
        ...(at > 0 && { side: 1, grid: { show: false } }),
      })),
    ],
  });
  charts.push(chart);
  chart.show([at, ...FIELDS.map(({ name }) => readings.map((reading) => reading[name]))]);
}

/** A chart of one column, of the readings that have something in it; none if no reading has. */
function drawColumn(column, readings, { x, moment }) {
  const filled = readings.filter((reading) => Number.isFinite(Number(reading[column.name] ?? NaN)));
  if (filled.length === 0) return;
  const place = make("figure");
  const caption = place.appendChild(make("figcaption"));
  caption.append(make("h2", "", column.name));
  find("#device-charts").append(place);
  const isSwitch = column.type === "bool";
  const value = isSwitch ? (n) => (n === 1 ? "true" : "false") : (n) => shown(n, column);
  const chart = new Chart(place, {
    moment,
    series: [{ label: "value", color: COLORS[charts.length % COLORS.length], value }],
    scales: { x, y: { range: isSwitch ? () => [-0.1, 1.1] : spread } },
    axes: [
      { space: 70, size: 28, values: dates },
      { size: 60, values: (u, splits) => splits.map((v) => (isSwitch && v !== 0 && v !== 1 ? "" : value(v))) },
    ],
  });
  charts.push(chart);
  chart.show([
    filled.map((reading) => Date.parse(reading.timestamp) / 1000),
    filled.map((reading) => Number(reading[column.name])),
  ]);
}

/** The values and a little beside them, whatever their size. */
function spread(u, min, max) {
  const margin = max > min ? (max - min) * 0.08 : Math.abs(max ?? 0) * 0.05 || 1;
  return [(min ?? 0) - margin, (max ?? 0) + margin];
}

const around = (u, min, max) => (min === null ? [0, 30] : [Math.floor(min - 1), Math.ceil(max + 1)]);

/** Times of day, or dates if there are some days of them. */
function dates(u, splits) {
  const isLong = u.scales.x.max - u.scales.x.min > 2 * 86400;
  const format = isLong ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  return splits.map((at) => new Date(at * 1000).toLocaleString("en-GB", format));
}
