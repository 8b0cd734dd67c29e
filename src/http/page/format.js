// Figures as a person reads them. Nothing here touches the page.

/** No line ends between a figure and its unit. */
const NB = "\u00a0";
export const unbroken = (sentence) => sentence.replace(/(\d) (?=(?:ms|s|min|h|days)\b)/g, `$1${NB}`);

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n) => whole.format(n);
export const compact = (n) => (n < 1000 ? String(Math.round(n * 10) / 10) : short.format(n));
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export const rate = (perSecond) =>
  perSecond === 0 ? "0" : perSecond >= 10 ? count(perSecond) : perSecond >= 0.1 ? perSecond.toFixed(1) : "< 0.1";

/** Rounded down, in the unit that a person would choose. */
export function duration(seconds) {
  const minute = 60, hour = 3600, day = 86400;
  if (seconds < minute) return `${Math.floor(seconds)}${NB}s`;
  if (seconds < 2 * hour) return `${Math.floor(seconds / minute)}${NB}min`;
  if (seconds < 2 * day) return `${Math.floor(seconds / hour)}${NB}h`;
  if (seconds < 730 * day) return `${Math.floor(seconds / day)}${NB}days`;
  return "years";
}

export function ago(seconds) {
  if (seconds < -60) return `${duration(-seconds)} ahead`;
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
}

export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 60) return duration(seconds);
  if (seconds >= 1) return `${seconds.toFixed(1)}${NB}s`;
  const ms = seconds * 1000;
  return `${ms >= 10 ? Math.round(ms) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(2)}${NB}ms`;
}

export function bytes(n) {
  for (const [unit, size] of [["GB", 2 ** 30], ["MB", 2 ** 20], ["kB", 2 ** 10]]) {
    // 1,010 MB is 1.0 GB to a person.
    if (n >= size * 0.97) return `${n / size >= 10 ? Math.round(n / size) : (n / size).toFixed(1)}${NB}${unit}`;
  }
  return `${n}${NB}B`;
}

export const measured = (n, unit, digits = 1) => (n === null ? "–" : `${n.toFixed(digits)}${NB}${unit}`);

/** The value of a field that devices measure, with its name where that is not plain from the unit. */
export function figure(reading, { name, unit }, { isNamed = true, digits = 1 } = {}) {
  const value = measured(reading[name], unit, digits);
  return isNamed ? `${name}${NB}${value}` : value;
}

/** A value of a column that a mapping fills, as the table has it. */
export function shown(value, { unit }) {
  if (value === null || value === undefined) return "–";
  const isNumber = typeof value === "number";
  const text = typeof value === "object" ? JSON.stringify(value) : isNumber ? String(Number(value.toPrecision(7))) : String(value);
  return isNumber && unit ? `${text}${NB}${unit}` : text;
}

/** The time of day by this device's clock, with the date if that is not today. */
export function clock(date, withSeconds = false) {
  const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (withSeconds) time.second = "2-digit";
  const isToday = date.toDateString() === new Date().toDateString();
  return date.toLocaleString("en-GB", isToday ? time : { day: "numeric", month: "short", ...time });
}

export const since = (seconds) => clock(new Date(Date.now() - seconds * 1000));
