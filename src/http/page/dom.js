// Text goes into the page as text, never as markup: device names and payloads are anybody's.

export const find = (selector, within = document) => within.querySelector(selector);

/** Leaves what is right already untouched, so that a refresh neither flickers nor ends a selection. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown;
}

export function make(tag, classes = "", text = "") {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text) element.textContent = text;
  return element;
}

/** Puts `elements` into `parent` in this order, moving as few as possible. */
export function arrange(parent, elements) {
  const wanted = new Set(elements);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  elements.forEach((element, at) => {
    if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] ?? null);
  });
}

const confirmation = find("#confirm");

/** Says what will happen and asks; resolves to whether to go on. */
export function confirm({ title, text, yes, isDanger = false }) {
  say(find("#confirm-title"), title);
  say(find("#confirm-text"), text);
  const button = find("#confirm-yes");
  say(button, yes);
  button.classList.toggle("danger", isDanger);
  confirmation.returnValue = "";
  confirmation.showModal();
  find(".cancel", confirmation).focus();
  return new Promise((resolve) => {
    confirmation.addEventListener("close", () => resolve(confirmation.returnValue === "yes"), { once: true });
  });
}

find("form", confirmation).addEventListener("submit", (event) => {
  event.preventDefault();
  confirmation.close("yes");
});

// A click beside a dialog, on its backdrop, closes it as Escape does; one that has no way out is to be answered.
for (const dialog of document.querySelectorAll("dialog:has(.cancel, .close)")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  find(".cancel, .close", dialog).addEventListener("click", () => dialog.close());
}
