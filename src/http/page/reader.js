// Asks for the token that a service with READ_TOKEN wants before it can be read.

import { find, say } from "./dom.js";
import { ask, readWith, Refused } from "./server.js";

const dialog = find("#reader");
const note = find("#reader-note");
const input = find("#reader-input");

/** Whether the question stands; nothing else can be asked meanwhile. */
export function isLocked() {
  return dialog.open;
}

export function askForToken() {
  if (dialog.open) return;
  readWith(null);
  input.value = "";
  dialog.showModal();
  input.focus();
}

find("form", dialog).addEventListener("submit", async (event) => {
  event.preventDefault();
  readWith(input.value.trim());
  try {
    await ask("api/v1/status");
    input.value = "";
    say(note, "");
    dialog.close();
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    readWith(null);
    input.value = "";
    input.focus();
    say(note, refused.status === 401 ? "That is not a token of this service." : `Not unlocked: ${refused.message}.`);
  }
});
