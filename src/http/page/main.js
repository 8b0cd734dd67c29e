// The clock of the page: asks once a second, tells what came, and what to make of silence.

import { refreshAdmin, setStatus } from "./admin.js";
import { listen, refreshDevices, setClock, tell, tellAges } from "./devices.js";
import { Live } from "./live.js";
import { showMappings } from "./mappings.js";
import { showSilence, showStatus } from "./now.js";
import { askForToken, isLocked } from "./reader.js";
import { ask, Refused } from "./server.js";
import { refreshSilent } from "./silent.js";

const SECOND = 1000;
const DEVICES_EVERY = 5;
const ADMIN_EVERY = 2;
/** Silence of less than this is a busy moment. */
const SILENCE_SECONDS = 3;

const live = new Live();
let status = null;
let answered = null;
let answeredAt = performance.now();
let beat = 0;

async function refreshNow() {
  if (isLocked()) return false;
  try {
    status = await ask("api/v1/status", { patience: 3 * SECOND });
  } catch (problem) {
    if (!(problem instanceof Refused)) throw problem;
    if (problem.status === 401) {
      askForToken();
      return false;
    }
    const silent = (performance.now() - answeredAt) / SECOND;
    if (silent >= SILENCE_SECONDS || answered === null) showSilence(silent, answered);
    return false;
  }
  showStatus(status);
  showMappings(status);
  setClock(status);
  // After a long silence this page's own clock may have slept too.
  if (answered !== null && Date.now() - answered > 30 * SECOND) live.forget();
  answered = new Date();
  answeredAt = performance.now();
  await live.refresh().catch(unlessRefused);
  return true;
}

/** The next status tells more of it than this could. */
function unlessRefused(problem) {
  if (!(problem instanceof Refused)) throw problem;
}

async function showDevices(options) {
  try {
    await refreshDevices(options);
    if (status !== null) await refreshSilent(status);
  } catch (problem) {
    unlessRefused(problem);
    if (problem.status === 503 && status?.database.state !== "up") {
      tell("The database is not reachable: devices are shown as they were, and looked for again when it is.");
      return;
    }
    tell(`Devices cannot be shown: ${problem.message}.`);
  }
}

/** What takes long is not asked for again before it has come, and holds nothing else up. */
function oneAtATime(work) {
  let isBusy = false;
  return async () => {
    if (isBusy) return;
    isBusy = true;
    try {
      await work();
    } finally {
      isBusy = false;
    }
  };
}

const devicesTurn = oneAtATime(showDevices);
const adminTurn = oneAtATime(refreshAdmin);

async function tick() {
  const began = performance.now();
  try {
    if (!document.hidden && (await refreshNow())) {
      tellAges();
      if (beat % DEVICES_EVERY === 0) devicesTurn();
      if (setStatus(status) && beat % ADMIN_EVERY === 0) adminTurn();
      beat++;
    }
  } finally {
    setTimeout(tick, Math.max(200, SECOND - (performance.now() - began)));
  }
}

listen(() => showDevices({ isAsked: true }));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  beat = 0;
  // Nobody asked while it was hidden.
  answeredAt = performance.now();
});
tick();
