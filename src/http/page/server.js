// Questions to the ingestor. Paths are relative, so that the page works behind a proxy's prefix.

const PATIENCE_MS = 5000;
const KEY = "iot-ingestor-read-token";

/** What the service wants to be read, if it wants a token; in this tab's session storage alone. */
let reader = sessionStorage.getItem(KEY);

/** From now on this token is sent with what asks for no other; null: none. */
export function readWith(token) {
  reader = token;
  if (token === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, token);
}

/** The ingestor's own words for what it did not do; `status` is 0 if there was no answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, { method = "GET", token = null, patience = PATIENCE_MS } = {}) {
  const sent = token ?? reader;
  let response, body;
  try {
    response = await fetch(path, {
      method,
      headers: sent === null ? {} : { Authorization: `Bearer ${sent}` },
      signal: AbortSignal.timeout(patience),
      cache: "no-store",
    });
    body = await response.json();
  } catch {
    throw new Refused(0, "the ingestor does not answer");
  }
  if (!response.ok) throw new Refused(response.status, body.error ?? response.statusText);
  return body;
}

/** Has the browser save the file at `path`. A link cannot carry a token: with one, the file is fetched first. */
export async function save(path) {
  const link = document.createElement("a");
  link.download = "";
  link.href = path;
  if (reader !== null) {
    let blob;
    try {
      const response = await fetch(path, { headers: { Authorization: `Bearer ${reader}` }, cache: "no-store" });
      if (!response.ok) throw new Refused(response.status, (await response.json()).error ?? response.statusText);
      link.download = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "";
      blob = await response.blob();
    } catch (refused) {
      throw refused instanceof Refused ? refused : new Refused(0, "the ingestor has broken it off");
    }
    link.href = URL.createObjectURL(blob);
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
  link.click();
}

/** `a=1&b=2`, without what is null. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(given).toString();
}
