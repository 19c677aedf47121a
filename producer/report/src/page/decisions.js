// What the reader decides about images, and where that is kept. Every store offers the same:
//
//   all                        a Map: key → line, the last of each key; `undecided` takes one back
//   by, setBy(name)            who decides; null until somebody has said it
//   set(keys, decision, label) decides about these keys at once; `label` may be a function of the key
//   undo()                     takes the last `set` back; returns its keys, or null if there is none
//   onchange(listener)         calls listener(keys) after each change; null stands for any keys
//   merge(lines)               takes lines from elsewhere; of each key the later one counts
//   notice                     what the reader should know about the store, or null
//
// BrowserDecisions keeps them in this browser, for each run. ServedDecisions (served.js) takes its place on
// a page that `camshaft serve` serves.
// A line is {"schema":1,"key":…,"decision":…,"label":…,"by":…,"at":…,"because":[…]}; see docs/report.md.

const DECISIONS = ['keep', 'drop', 'relabel', 'undecided'];
const MAX_LABEL_BYTES = 1024;
const MAX_KEY_BYTES = 32 * 1024;
const MAX_BY_BYTES = 1024;
const MAX_BECAUSE_BYTES = 128 * 1024;
const LAST_YEAR = 9998;
const byteLength = (text) => new TextEncoder().encode(text).length;
const TIME = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

/** Whether a text can be a label: not empty, not very long, and without control characters. */
function isLabel(text) {
  return typeof text === 'string' && text.trim() !== '' && byteLength(text) <= MAX_LABEL_BYTES && !/\p{Cc}/u.test(text);
}

/** Reads a line of decisions.jsonl. Throws an Error that says what is wrong with it. */
function readDecision(text) {
  let line;
  try {
    line = JSON.parse(text);
  } catch {
    throw new Error('it is not JSON');
  }
  if (typeof line !== 'object' || line === null || Array.isArray(line)) throw new Error('it is not a JSON object');
  const { schema, key, decision, label, by, at, because } = line;
  if (schema !== 1) throw new Error(`its schema is ${JSON.stringify(schema) ?? 'missing'}, and this page reads schema 1`);
  if (typeof key !== 'string' || key === '') throw new Error('it has no key');
  if (byteLength(key) > MAX_KEY_BYTES) throw new Error('its key is longer than any image\u2019s');
  if (!DECISIONS.includes(decision)) throw new Error(`its decision is ${JSON.stringify(decision) ?? 'missing'}, not keep, drop, relabel or undecided`);
  if (decision === 'relabel' && !isLabel(label)) throw new Error('it relabels without a label that can be one');
  if (decision !== 'relabel' && label !== undefined && label !== null) throw new Error(`it has a label, and its decision is ${decision}`);
  if (typeof by !== 'string') throw new Error('it does not say by whom');
  if (byteLength(by) > MAX_BY_BYTES) throw new Error('its by is longer than a name');
  if (typeof at !== 'string' || !TIME.test(at) || Number.isNaN(Date.parse(at))) throw new Error('its time is not like 2026-11-29T07:00:00.123Z');
  if (new Date(at).getUTCFullYear() > LAST_YEAR) throw new Error(`its time is after the year ${LAST_YEAR}`);
  if (because !== undefined && !(Array.isArray(because) && because.every((kind) => typeof kind === 'string'))) throw new Error('its because is not a list of texts');
  if (sum((because ?? []).map(byteLength)) > MAX_BECAUSE_BYTES) throw new Error('its because is too long');
  return makeDecision({ key, decision, label, by, at: new Date(at).toISOString(), because: because ?? [] });
}

/** A line with its fields in order. */
const makeDecision = ({ key, decision, label, by, at, because }) => ({ schema: 1, key, decision, ...(decision === 'relabel' ? { label } : {}), by, at, because });

/** Reads decisions.jsonl: the lines, and what is wrong with the others by their number. */
function readDecisions(text) {
  const lines = [];
  const refused = [];
  text.replace(/^\uFEFF/, '').split('\n').forEach((part, at) => {
    if (part.trim() === '') return;
    try {
      lines.push(readDecision(part));
    } catch (error) {
      refused.push({ number: at + 1, reason: error.message });
    }
  });
  return { lines, refused };
}

/** All decisions as decisions.jsonl, in the order of the keys. */
function writeDecisions(all) {
  const lines = [...all.values()].sort((a, b) => (a.key > b.key) - (a.key < b.key));
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('');
}

// A browser keeps some five million characters for all pages of a server. So lines that differ in
// their key only are stored once, and a key as what it does not share with the one before.

function packDecisions(all) {
  const batches = new Map();
  for (const { schema, key, ...rest } of [...all.values()].sort((a, b) => (a.key > b.key) - (a.key < b.key))) {
    const shared = JSON.stringify(rest);
    if (!batches.has(shared)) batches.set(shared, { rest, before: '', keys: [] });
    const batch = batches.get(shared);
    let alike = 0;
    while (alike < key.length && key[alike] === batch.before[alike]) alike += 1;
    batch.keys.push(alike, key.slice(alike));
    batch.before = key;
  }
  return JSON.stringify([...batches.values()].map(({ rest, keys }) => [rest, keys]));
}

/** The lines of a packed text; none of what is damaged. */
function unpackDecisions(text) {
  const lines = [];
  try {
    for (const [rest, keys] of JSON.parse(text ?? '[]')) {
      const shared = readDecision(JSON.stringify({ schema: 1, key: 'any', ...rest }));
      let key = '';
      for (let at = 0; at + 1 < keys.length; at += 2) {
        key = key.slice(0, keys[at]) + keys[at + 1];
        lines.push({ ...shared, key });
      }
    }
  } catch (error) {
    console.warn(`Stored decisions end early: ${error.message}`);
  }
  return lines;
}

// More decisions than this are written a moment later, several at once.
const WRITTEN_AT_ONCE = 2000;
// Steps that can be taken back hold at most so many decisions, and always the last one.
const UNDO_DECISIONS = 500_000;

class BrowserDecisions {
  /** `becauseOf(key)` is the list of kinds of the image's findings. */
  constructor(runId, becauseOf) {
    this.name = `decisions:${runId}`;
    this.becauseOf = becauseOf;
    this.all = new Map();
    this.listeners = new Set();
    this.steps = [];
    this.by = memory.get('by');
    this.notice = null;
    this.waiting = 0;
    this.take(unpackDecisions(memory.get(this.name)));
    // Another tab of this report.
    addEventListener('storage', (event) => {
      if (event.key !== memory.nameOf(this.name)) return;
      const keys = this.take(unpackDecisions(event.newValue));
      if (keys.length > 0) this.tell(keys);
    });
    addEventListener('pagehide', () => this.write());
    addEventListener('beforeunload', (event) => { if (this.notice && this.all.size > 0) event.preventDefault(); });
  }

  setBy(name) {
    this.by = name;
    memory.set('by', name);
  }

  onchange(listener) {
    this.listeners.add(listener);
  }

  set(keys, decision, label) {
    this.steps.push(keys.map((key) => [key, this.all.get(key)]));
    while (this.steps.length > 1 && sum(this.steps.map((step) => step.length)) > UNDO_DECISIONS) this.steps.shift();
    const now = Date.now();
    for (const key of keys) this.put(key, { decision, label: typeof label === 'function' ? label(key) : label, because: this.becauseOf(key) }, now);
    this.write(keys);
  }

  undo() {
    const step = this.steps.pop();
    if (!step) return null;
    const now = Date.now();
    // What was decided before is decided anew, so that it counts wherever the later line has gone.
    for (const [key, line] of step) this.put(key, line ?? { decision: 'undecided', because: this.becauseOf(key) }, now);
    const keys = step.map(([key]) => key);
    this.write(keys);
    return keys;
  }

  /** Puts a line that is later than the key's last one, whatever the clock says. */
  put(key, { decision, label, because }, now) {
    const last = this.all.get(key);
    const at = new Date(last ? Math.max(now, Date.parse(last.at) + 1) : now).toISOString();
    this.all.set(key, makeDecision({ key, decision, label, by: this.by ?? '', at, because }));
  }

  /** Takes lines that are later than those that are here; returns their keys. */
  take(lines) {
    const taken = new Set();
    for (const line of lines) {
      const last = this.all.get(line.key);
      // Of two lines of one moment in a file, the second one counts.
      if (last && (taken.has(line.key) ? Date.parse(last.at) > Date.parse(line.at) : Date.parse(last.at) >= Date.parse(line.at))) continue;
      this.all.set(line.key, line);
      taken.add(line.key);
    }
    return [...taken];
  }

  merge(lines) {
    const keys = this.take(lines);
    // What an earlier step would put back may not be what was there last.
    const changed = new Set(keys);
    this.steps = this.steps.map((step) => step.filter(([key]) => !changed.has(key))).filter((step) => step.length > 0);
    if (keys.length > 0) this.write(keys);
    return keys;
  }

  /** Stores everything, and tells listeners of `keys`. */
  write(keys) {
    clearTimeout(this.waiting);
    this.waiting = 0;
    if (keys && this.all.size > WRITTEN_AT_ONCE) this.waiting = setTimeout(() => this.write(), 300);
    else if (keys || this.unwritten) this.store();
    if (keys && this.waiting) this.unwritten = true;
    if (keys) this.tell(keys);
  }

  store() {
    this.unwritten = false;
    const before = this.notice;
    this.notice = memory.set(this.name, packDecisions(this.all)) ? null : 'This browser does not keep the decisions: download them before you close the page.';
    if (this.notice !== before) this.tell([]);
  }

  tell(keys) {
    for (const listener of this.listeners) listener(keys);
  }
}
