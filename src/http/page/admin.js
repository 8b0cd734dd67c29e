// What an operator with the token sees and does. The token is in this tab's session storage and
// nowhere else; each change is told before it is made.

import { FIELDS } from "./fields.js";
import { ago, bytes, clock, count, duration, figure, plural } from "./format.js";
import { arrange, confirm, find, make, say, show } from "./dom.js";
import { ask, query, Refused } from "./server.js";

const KEY = "iot-ingestor-admin-token";
const PAGE = 20;
/** A replay of all letters may take the disk a while. */
const LONG_MS = 120_000;

const note = find("#admin-note");
const panel = find("#admin");
const dialog = find("#token");
let token = sessionStorage.getItem(KEY);
let status = null;
let wal = null;

const admin = (path, options = {}) => ask(`admin/${path}`, { token, ...options });

function lock(text = "") {
  token = null;
  sessionStorage.removeItem(KEY);
  letters.clear();
  arrange(find("#letters"), []);
  arrange(find("#records ul"), []);
  say(note, text);
  showLocks();
}

function showLocks() {
  const isEnabled = status?.admin_enabled ?? false;
  const isOpen = isEnabled && token !== null;
  show(panel, isOpen);
  show(find("#admin-lock"), isOpen);
  show(find("#admin-unlock"), isEnabled && !isOpen);
  if (status && !isEnabled) say(note, "Switched off: set ADMIN_TOKEN and start the service again.");
}

/** Called with each new status; returns whether there is more to ask for. */
export function setStatus(now) {
  status = now;
  showLocks();
  return !panel.hidden;
}

/** What failed, in the ingestor's own words; a token that is no longer right is forgotten. */
function failed(refused) {
  if (!(refused instanceof Refused)) throw refused;
  if (refused.status === 401 || refused.status === 403) lock("The token is no longer right. Unlock again.");
  else say(note, `Not done: ${refused.message}.`);
}

find("#admin-lock").addEventListener("click", () => lock("Locked: the token is forgotten."));
find("#admin-unlock").addEventListener("click", () => {
  find("#token-input").value = "";
  say(find("#token-note"), "");
  dialog.showModal();
  find("#token-input").focus();
});

find("form", dialog).addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = find("#token-input").value.trim();
  try {
    await ask("admin/wal", { token: given });
  } catch (refused) {
    say(find("#token-note"), refused.status === 401 ? "That is not the token of this service." : `Not unlocked: ${refused.message}.`);
    return;
  }
  token = given;
  sessionStorage.setItem(KEY, given);
  say(note, "");
  dialog.close();
  find("#token-input").value = "";
  showLocks();
  refreshAdmin();
  find("#admin-lock").focus();
});

/** Asks first, then does it, and says what came of it. */
async function change(button, question, work) {
  if (!(await confirm(question))) return;
  button.disabled = true;
  try {
    say(note, await work());
  } catch (refused) {
    failed(refused);
  }
  button.disabled = false;
  await refreshAdmin();
}

export async function refreshAdmin() {
  if (token === null) return;
  try {
    const answer = await admin("wal");
    if (token === null) return;
    wal = answer;
    showWal();
    await refreshLetters();
    if (token === null) return;
    if (find("#records").open && recordsShown <= PAGE) await showRecords(null);
  } catch (refused) {
    failed(refused);
  }
}

// --- the flusher ---

const STATES = {
  idle: "Writing what comes in; nothing is left to write.",
  flushing: "Writing what comes in.",
  backing_off: "The database failed; trying again, without end.",
  paused: "Paused by an operator, until it is resumed or the service starts again.",
};

const flusherSwitch = find("#flusher-switch");
flusherSwitch.addEventListener("click", () => {
  const isPaused = wal?.flusher.state === "paused";
  const room = status?.full_in_seconds ?? null;
  const question = isPaused
    ? {
        title: "Resume writing?",
        text: `Writing to the database goes on with what waits in the log: ${plural(wal.pending_records, "reading")}.`,
        yes: "Resume writing",
      }
    : {
        title: "Pause writing?",
        text:
          "Nothing more is written to the database until somebody resumes it or the service starts again. " +
          "Readings go on coming in and are safe in the log, " +
          (room === null
            ? `which has ${bytes(status.disk.left_bytes)} left.`
            : `which has room for ${duration(room)} at this rate.`) +
          " When it is full, the ingestor leaves the broker, which queues.",
        yes: "Pause writing",
      };
  change(flusherSwitch, question, async () => {
    await admin(`flusher/${isPaused ? "resume" : "pause"}`, { method: "POST" });
    return isPaused ? "Writing goes on." : "Writing is paused.";
  });
});

function showWal() {
  const { flusher } = wal;
  const isPaused = flusher.state === "paused";
  const retry = flusher.retry_in_seconds;
  let text = STATES[flusher.state] ?? flusher.state;
  if (retry !== null && !isPaused) text += ` ${plural(flusher.consecutive_failures, "failure")}, next attempt in ${Math.ceil(retry)} s.`;
  say(find("#flusher-state"), text);
  const error = find("#flusher-error");
  show(error, flusher.consecutive_failures > 0 && flusher.last_error !== null);
  say(error, flusher.last_error ?? "");
  say(flusherSwitch, isPaused ? "Resume" : "Pause");

  const oldest = wal.pending_records > 0 ? `, the oldest for ${duration(wal.oldest_pending_seconds)}` : "";
  say(
    find("#wal-state"),
    `${plural(wal.pending_records, "reading")} (${bytes(wal.pending_bytes)})${oldest}. ` +
      `${bytes(wal.disk_bytes)} on disk of ${bytes(wal.max_bytes)}; next offset ${count(wal.next_offset)}.`,
  );
  const lines = wal.generations.map(
    (one) => `${one.id}: ${plural(one.pending_records, "reading")} waiting, ${bytes(one.disk_bytes)}`,
  );
  for (const damaged of wal.quarantined) {
    const lost = damaged.lost_ranges.map(({ from, to }) => `${from}–${to}`).join(", ");
    lines.push(
      `Damaged, set aside: ${damaged.id}, ${plural(damaged.salvaged_records, "reading")} salvaged, ` +
        (lost ? `offsets lost: ${lost}` : "none lost"),
    );
  }
  const list = find("#generations ul");
  lines.forEach((line, at) => say(list.children[at] ?? list.appendChild(make("li")), line));
  while (list.children.length > lines.length) list.lastChild.remove();
}

// --- waiting records ---

const records = find("#records");
const moreRecords = find("button", records);
let recordsShown = 0;
let nextRecord = null;

async function showRecords(from) {
  const page = await admin(`wal/records?${query({ limit: PAGE, from })}`);
  const list = find("ul", records);
  const lines = page.records.map(
    (r) =>
      [count(r.offset), r.device_id, r.timestamp, ...FIELDS.map((field) => figure(r, field))].join(" · "),
  );
  if (from === null) {
    lines.forEach((line, at) => say(list.children[at] ?? list.appendChild(make("li")), line));
    while (list.children.length > lines.length) list.lastChild.remove();
    if (lines.length === 0) list.append(make("li", "", "Nothing waits."));
  } else {
    for (const line of lines) list.append(make("li", "", line));
  }
  recordsShown = list.children.length;
  nextRecord = page.next;
  show(moreRecords, nextRecord !== null);
}

records.addEventListener("toggle", () => records.open && showRecords(null).catch(failed));
moreRecords.addEventListener("click", () => showRecords(nextRecord).catch(failed));

// --- dead letters ---

const letters = new Map();
const moreLetters = find("#letters-more");
const replayAll = find("#letters-replay");
let lettersWanted = PAGE;
let total = 0;

const AGAIN =
  "decoded and validated again, by the rules that are in force now. If it is good, its readings go into the log " +
  "and from there into the database, and the letter is removed. If it is still bad, it stays.";

function letter(one) {
  let element = letters.get(one.id);
  if (element) return element;
  element = make("li", "letter");
  const head = element.appendChild(make("p", "head"));
  head.append(make("b", "", `#${one.id}`), make("span", "tag", one.stage), make("span", "", one.topic || "no topic kept"));
  const when = head.appendChild(make("time", "", ago((Date.parse(status.now) - Date.parse(one.received_at)) / 1000)));
  when.dateTime = one.received_at;
  when.title = clock(new Date(one.received_at), true);
  element.append(make("p", "reason", one.reason));
  const payload = element.appendChild(make("pre", "payload", one.payload || "(empty)"));
  payload.tabIndex = 0;
  payload.setAttribute("aria-label", one.payload_encoding === "base64" ? "Payload, in base64" : "Payload");
  if (one.payload_encoding === "base64") head.append(make("span", "tag", "base64"));
  const choices = element.appendChild(make("div", "choices"));
  const replay = choices.appendChild(make("button", "", "Replay"));
  const remove = choices.appendChild(make("button", "danger", "Delete"));
  replay.type = remove.type = "button";
  replay.setAttribute("aria-label", `Replay dead letter ${one.id}`);
  remove.setAttribute("aria-label", `Delete dead letter ${one.id}`);
  replay.addEventListener("click", () =>
    change(
      replay,
      { title: `Replay dead letter ${one.id}?`, text: `It is ${AGAIN}`, yes: "Replay it" },
      async () => {
        try {
          const put = await admin(`dead-letters/${one.id}/replay`, { method: "POST" });
          return `Dead letter ${one.id} is replayed: ${plural(put.readings, "reading")} in the log.`;
        } catch (refused) {
          if (refused.status === 422) return `Dead letter ${one.id} is still bad: ${refused.message}.`;
          throw refused;
        }
      },
    ),
  );
  remove.addEventListener("click", () =>
    change(
      remove,
      {
        title: `Delete dead letter ${one.id}?`,
        text: "It is gone for good then: its payload is kept nowhere else, and no reading of it is stored.",
        yes: "Delete it",
        isDanger: true,
      },
      async () => {
        await admin(`dead-letters/${one.id}`, { method: "DELETE" });
        return `Dead letter ${one.id} is deleted.`;
      },
    ),
  );
  letters.set(one.id, element);
  return element;
}

async function refreshLetters() {
  const page = await admin(`dead-letters?${query({ limit: lettersWanted })}`);
  // It was locked meanwhile.
  if (token === null) return;
  total = page.total;
  const elements = page.dead_letters.map(letter);
  arrange(find("#letters"), elements);
  for (const [id, element] of letters) if (!element.isConnected) letters.delete(id);
  say(find("#letters-count"), count(total));
  replayAll.disabled = total === 0;
  show(moreLetters, page.next !== null && lettersWanted < 1000);
}

moreLetters.addEventListener("click", () => {
  lettersWanted = Math.min(1000, lettersWanted * 4);
  refreshLetters().catch(failed);
});

replayAll.addEventListener("click", () =>
  change(
    replayAll,
    {
      title: `Replay all ${plural(total, "dead letter")}?`,
      text: `Each is ${AGAIN}`,
      yes: "Replay all",
    },
    async () => {
      const tally = await admin("dead-letters/replay", { method: "POST", patience: LONG_MS });
      return `${plural(tally.replayed, "dead letter")} replayed, ${count(tally.still_bad)} still bad.`;
    },
  ),
);
