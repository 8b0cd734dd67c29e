// Devices that are silent, those that have become so last at the head. Where no time is set there are none.

import { count, duration, plural } from "./format.js";
import { arrange, find, make, say, show } from "./dom.js";
import { ask, query } from "./server.js";
import { ofTable } from "./tables.js";

/** More than a person reads at once. */
const MOST = 20;
const part = find("#silent-part");
const list = find("#silent");

function line({ device_id: id, silent_seconds: seconds }, at) {
  const element = list.children[at] ?? make("li");
  say(element, `${id} · nothing for ${duration(seconds)}`);
  return element;
}

/** `silent` is how many there are in all tables; those of the table that is looked at are listed. */
export async function refreshSilent({ silent_devices: silent }) {
  const page = silent > 0 ? await ask(`api/v1/devices?${query({ silent: true, newest_first: true, limit: MOST, ...ofTable() })}`) : null;
  show(part, page !== null && page.total > 0);
  if (page === null) return;
  const rest = page.total - page.data.length;
  say(find("#silent-count"), plural(page.total, "silent device"));
  arrange(list, page.data.map(line));
  say(find("#silent-more"), rest > 0 ? `and ${count(rest)} more: api/v1/devices?silent=true` : "");
}
