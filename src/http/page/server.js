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

/** `a=1&b=2`, without what is null. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(given).toString();
}
