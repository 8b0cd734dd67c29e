// The top: three lights, in words and colour, and the sentence.

import { bytes, duration, ago, latency, plural, rate, since, clock, unbroken } from "./format.js";
import { find, say } from "./dom.js";

const root = find("#now");
const MARKS = { ok: "✓", warning: "!", critical: "✕", unknown: "?" };
const HURRY_SECONDS = 3600;

/** What the lights say of `status`: pure, so that it reads as a table. */
export function lights(status) {
  const { broker, log, database, disk } = status;
  const isConnected = broker.state === "connected";
  const isPaused = status.flusher === "paused";
  const isUp = database.state === "up";
  const isFull = log.state === "full";
  const heard = broker.last_message_seconds;
  const isHurry = status.full_in_seconds !== null && status.full_in_seconds < HURRY_SECONDS;

  let waits = status.pending_records === 0 ? "Nothing waits" : `${plural(status.pending_records, "reading")} waiting`;
  waits += ` · ${bytes(disk.used_bytes)} of ${bytes(disk.used_bytes + disk.left_bytes)}`;
  if (status.full_in_seconds !== null) waits += ` · room for ${duration(status.full_in_seconds)}`;
  if (status.drained_in_seconds !== null) waits += ` · drained in ${duration(Math.max(1, status.drained_in_seconds))}`;

  const inTime = status.latency.end_to_end.p99_seconds;
  const oldest = status.oldest_pending_seconds;
  return {
    broker: {
      level: isConnected ? "ok" : isFull ? "warning" : "critical",
      state: isConnected
        ? "Connected"
        : broker.state === "unsubscribed"
          ? "Not subscribed"
          : isFull
            ? "Left until there is room"
            : "Not connected",
      for: broker.for_seconds,
      detail: broker.reason
        ? `Away: ${broker.reason}`
        : broker.missing_filters.length > 0
          ? `Not granted: ${broker.missing_filters.join(", ")}`
          : heard === null
            ? "No message since the start"
            : `Last message ${ago(heard)}`,
    },
    log: {
      level: log.state === "ok" ? (isHurry ? "warning" : "ok") : "critical",
      state: log.state === "ok" ? (isHurry ? "Filling up" : "Safe on disk") : isFull ? "Full" : "Cannot be written",
      for: log.for_seconds,
      detail: waits,
    },
    database: {
      level: isUp ? (isPaused ? "warning" : "ok") : "critical",
      state: isPaused ? "Paused" : isUp ? "Storing" : database.problem === "refusing" ? "Refuses us" : "Unreachable",
      for: isPaused && isUp ? null : database.for_seconds,
      detail:
        oldest > 5
          ? `The oldest reading waits for ${duration(oldest)}`
          : !isUp || isPaused
            ? "Readings wait in the log"
            : inTime === null
              ? "Nothing to store lately"
              : `Stored within ${latency(inTime)} of receipt`,
    },
  };
}

function light(name, { level, state, for: seconds, detail }) {
  const element = find(`#${name}`);
  if (element.dataset.level !== level) {
    element.dataset.level = level;
    find("use", element).setAttribute("href", `#icon-${level}`);
  }
  say(find(".state", element), state);
  say(find(".since", element), seconds === null ? "\u00a0" : `for ${duration(seconds)} · since ${since(seconds)}`);
  say(find(".detail", element), detail);
}

function flow(name, now, lately, unit) {
  const element = find(`#${name}`);
  say(find("b", element), rate(now));
  element.classList.toggle("still", now === 0);
  element.title = `${rate(lately)} ${unit} over 5 min`;
}

let announced = "";

/** Aloud, but only when it is news: the sentence itself changes every second. */
function announce(key, text) {
  if (key !== announced) say(find("#announcement"), text);
  announced = key;
}

function level(name, sentence) {
  root.dataset.level = name;
  say(find("#summary"), sentence);
  document.title = `${MARKS[name]} ${sentence.split(/[.:]/, 1)[0]} – iot-ingestor`;
}

export function showStatus(status) {
  root.classList.remove("old");
  level(status.level, unbroken(status.summary));
  const shown = lights(status);
  for (const [name, one] of Object.entries(shown)) light(name, one);
  announce(Object.values(shown).map((one) => one.state).join(), status.summary);
  const { over_10_s: now, over_5_min: lately } = status.rates;
  flow("flow-in", now.messages, lately.messages, "messages/s");
  flow("flow-out", now.rows, lately.rows, "rows/s");
  const { used_bytes: used, left_bytes: left } = status.disk;
  const bar = find("#log .bar");
  const share = used + left > 0 ? used / (used + left) : 1;
  find("div", bar).style.width = `${Math.max(0.5, share * 100)}%`;
  bar.setAttribute("aria-label", `The log takes ${Math.round(share * 100)} % of the disk space that it may take`);
  say(find("#host"), location.host);
  say(find("#about"), `${status.instance} · v${status.version} · up ${duration(status.uptime_seconds)}`);
}

/** The ingestor itself does not answer: nothing that stands here is known any more. */
export function showSilence(silentSeconds, lastAnswer) {
  const sentence = lastAnswer
    ? `The ingestor has not answered for ${duration(silentSeconds)}. What stands below is from ${clock(lastAnswer, true)}.`
    : "The ingestor does not answer.";
  level("critical", sentence);
  root.classList.add("old");
  for (const name of ["broker", "log", "database"]) {
    light(name, { level: "unknown", state: "Unknown", for: null, detail: "\u00a0" });
  }
  for (const name of ["flow-in", "flow-out"]) {
    say(find(`#${name} b`), "–");
    find(`#${name}`).classList.add("still");
  }
  announce("silence", "The ingestor does not answer.");
}
