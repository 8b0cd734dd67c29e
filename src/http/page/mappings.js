// What each mapping has done, and the topics that none takes. Without a mapping there is nothing of it.

import { ago, count, plural } from "./format.js";
import { arrange, find, make, say, show } from "./dom.js";

const section = find("#mappings-card");
const list = find("#mappings");
const topics = find("#unmapped");
const cards = new Map();

/** The figures of a card: pure, so that it reads as a table. */
export function figures(mapping) {
  const { messages, qos0_messages: qos0 } = mapping;
  // A few among many are not none.
  const share = messages === 0 ? 0 : Math.ceil((qos0 / messages) * 100);
  return [
    ["messages", count(messages)],
    ["stored", count(mapping.stored)],
    ["rejected", count(mapping.rejected)],
    ["left alone", count(mapping.ignored)],
    ["with QoS 0", messages === 0 ? "–" : `${share}\u00a0%`],
    ["last message", mapping.last_message_seconds === null ? "none yet" : ago(mapping.last_message_seconds)],
  ];
}

function card(mapping) {
  let item = cards.get(mapping.name);
  if (!item) {
    const element = make("li", "mapping");
    const head = element.appendChild(make("p", "head"));
    const places = element.appendChild(make("dl"));
    const place = ([label]) => {
      const pair = places.appendChild(make("div"));
      pair.append(make("dt", "", label));
      return pair.appendChild(make("dd"));
    };
    head.append(make("b", "", mapping.name), make("span", "tag", `table ${mapping.table}`));
    if (mapping.time_by_arrival) head.append(make("span", "tag", "time by arrival"));
    const from = make("p", "topics", mapping.topics.join(", "));
    item = { element, values: figures(mapping).map(place), reason: make("p", "reason") };
    head.after(from);
    element.append(item.reason);
    cards.set(mapping.name, item);
  }
  figures(mapping).forEach(([, value], at) => say(item.values[at], value));
  const { last_reason: reason, last_rejected_seconds: since } = mapping;
  show(item.reason, reason !== null);
  say(item.reason, reason === null ? "" : `Rejected ${ago(since)}: ${reason}`);
  return item.element;
}

function line({ topic, messages, last_message_seconds: since }, at) {
  const element = topics.children[at] ?? make("li");
  say(element, `${topic || "(empty)"} · ${plural(messages, "message")} · ${ago(since)}`);
  return element;
}

/** Called with each new status. */
export function showMappings({ mappings = [], unmapped_topics: unmapped = [] }) {
  show(section, mappings.length > 0);
  if (mappings.length === 0) return;
  arrange(list, mappings.map(card));
  // The service was started again with another configuration.
  for (const [name, item] of cards) if (!item.element.isConnected) cards.delete(name);
  show(find("#unmapped-part"), unmapped.length > 0);
  arrange(topics, unmapped.map(line));
}
