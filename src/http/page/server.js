// Questions to the ingestor. Paths are relative, so that the page works behind a proxy's prefix.

const PATIENCE_MS = 5000;

/** The ingestor's own words for what it did not do; `status` is 0 if there was no answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, { method = "GET", token = null, patience = PATIENCE_MS } = {}) {
  let response, body;
  try {
    response = await fetch(path, {
      method,
      headers: token === null ? {} : { Authorization: `Bearer ${token}` },
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
