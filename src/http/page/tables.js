// The tables of the configuration, and which of them is looked at. Without a mapping there is one, and no choice.

import { FIELDS } from "./fields.js";
import { find, make, show } from "./dom.js";
import { ask } from "./server.js";

const choice = find("#devices-table");
/** Until more is known, and where there is no more. */
let tables = [{ name: "", isBuiltIn: true, columns: FIELDS.map(({ name, unit }) => ({ name, unit, type: "float" })) }];
let current = tables[0];
let isKnown = false;

export const table = () => current;

/** What a chart can show: a switch is 0 or 1. */
export const isDrawn = ({ type }) => ["float", "int", "bool"].includes(type);

/** What is asked for beside the rest: nothing of the table that there always is. */
export const ofTable = () => (current.isBuiltIn ? {} : { table: current.name });

/** Learns which tables there are, once. */
export async function learnTables() {
  if (isKnown) return;
  const { data } = await ask("api/v1/tables");
  isKnown = true;
  const [first, ...others] = data;
  if (others.length === 0 && first.mappings.length === 0) return;
  tables = data.map((one) => ({ ...one, isBuiltIn: one === first && first.mappings.length === 0 }));
  current = tables[0];
  choice.replaceChildren(...tables.map(({ name }) => make("option", "", name)));
  show(choice, tables.length > 1);
}

/** `again` is called when another one is chosen. */
export function listenForTable(again) {
  choice.addEventListener("change", () => {
    current = tables[choice.selectedIndex];
    again();
  });
}
