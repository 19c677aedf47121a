// What every part of the page builds on: elements, numbers, words and addresses.
// Owns no state. Text enters the page through text nodes and attributes only, because keys and
// labels may hold any text, markup among it.

/** Makes an element. `props` are its attributes, except `on` (listeners) and `prop` (DOM properties). */
function el(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Makes an SVG element, like `el`. */
function svg(tag, props, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === 'prop') {
      Object.assign(node, value);
    } else {
      node.setAttribute(name, value === true ? '' : String(value));
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

const byId = (id) => document.getElementById(id);
const bodyOf = (section) => document.querySelector(`#${section} > .body`);
const list = (value) => (Array.isArray(value) ? value : []);
const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);
const sum = (values) => values.reduce((total, value) => total + (isNumber(value) ? value : 0), 0);

// Numbers and dates in the format of the reader's browser. A missing one is a dash.
const MISSING = '–';
const countFormat = new Intl.NumberFormat();
const decimalFormats = [0, 1, 2, 3, 4].map(
  (digits) => new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const percentFormats = [0, 1, 2].map(
  (digits) => new Intl.NumberFormat(undefined, { style: 'percent', minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

const count = (value) => (isNumber(value) ? countFormat.format(value) : MISSING);
const decimal = (value, digits = 2) => (isNumber(value) ? decimalFormats[digits].format(value) : MISSING);
const percent = (value, digits = 1) => (isNumber(value) ? percentFormats[digits].format(value) : MISSING);
/** `1 image`, `2 images`. */
const counted = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** A p-value or q-value: decimals down to 0.001, powers of ten below. */
function significance(value) {
  if (!isNumber(value)) return MISSING;
  if (value === 0 || value >= 0.001) return decimal(value, 3);
  const [mantissa, exponent] = value.toExponential(0).split('e');
  const superscripts = '⁰¹²³⁴⁵⁶⁷⁸⁹';
  const raised = String(Math.abs(Number(exponent))).replace(/\d/g, (digit) => superscripts[Number(digit)]);
  return `${mantissa}\u00a0×\u00a010⁻${raised}`;
}

/** The text with sizes such as `640 × 480` kept on one line. */
const unbroken = (text) => String(text ?? '').replaceAll(' × ', '\u00a0×\u00a0');

/** A `<time>` for an RFC 3339 stamp; the text itself if it is not a stamp. */
function time(stamp) {
  const parsed = new Date(stamp ?? NaN);
  if (Number.isNaN(parsed.getTime())) return el('span', {}, stamp ?? MISSING);
  return el('time', { datetime: stamp, title: stamp }, dateFormat.format(parsed));
}

/** Turns `low-information` into `Low information`. */
function words(name) {
  const text = String(name ?? '').replaceAll('-', ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The kinds of findings: plural, singular and meaning. An unknown kind is shown by its own name. */
const KINDS = {
  'label-error': ['Label errors', 'Label error', 'Heads that have not seen the image, or the model, find another label more likely than the given one.'],
  duplicate: ['Duplicates', 'Duplicate', 'The same picture, or nearly the same, is there more than once.'],
  'image-problem': ['Image problems', 'Image problem', 'The picture itself is hard to learn from: dark, blurred, empty or of an odd shape.'],
  outlier: ['Outliers', 'Outlier', 'The picture is unlike all others.'],
  attention: ['Attention', 'Attention', 'The model looked at a border, a corner, everywhere or nowhere.'],
  shortcut: ['Shortcuts', 'Shortcut', 'A group of images where the model looks at one place that may give the class away.'],
  failure: ['Failures', 'Failure', 'The image could not be read or explained. A training would stop at a file that is broken.'],
  wrong: ['Sure mistakes', 'Sure mistake', 'The model is as sure of another class as it usually is of that class, and nothing else was found.'],
};
/** The place of a kind in the order they are shown in: as above, unknown kinds last. */
const kindOrder = (kind) => (kind in KINDS ? Object.keys(KINDS).indexOf(kind) : 100);
const kindPlural = (kind) => KINDS[kind]?.[0] ?? words(kind);
const kindSingular = (kind) => KINDS[kind]?.[1] ?? words(kind);
const kindMeaning = (kind) => KINDS[kind]?.[2] ?? '';

/** The relative address of a path: each segment is percent-encoded, the slashes stay. */
const encodePath = (path) => String(path).split('/').map(encodeURIComponent).join('/');

/** What `camshaft serve` tells the page: where decisions go and where images are. Null on a disk or in a bucket. */
const served = document.querySelector('meta[name=camshaft-served]')?.dataset ?? null;

/** The address of an original image if the browser would follow a link to it from this page, or null. */
function originalHref(address, key) {
  if (served) return served.originals + encodePath(key);
  const scheme = /^(https?|file):/i.exec(address ?? '')?.[1].toLowerCase();
  if (!scheme) return null;
  return scheme === 'file' && location.protocol !== 'file:' ? null : address;
}

/** A key, its folder in grey. */
function keyName(key) {
  const text = String(key ?? '');
  const cut = text.lastIndexOf('/') + 1;
  return [
    cut > 0 && el('span', { class: 'folder' }, text.slice(0, cut)),
    el('span', { class: 'file' }, text.slice(cut)),
  ];
}

const empty = (text) => el('p', { class: 'empty' }, text);

/** A part of a section, with its own heading. */
function panel(heading, props, ...children) {
  return el('div', { ...props, class: `panel ${props?.class ?? ''}` }, el('h3', {}, heading), children);
}

/** A table in a box that scrolls sideways, so that the page does not. */
function table(caption, head, rows, props) {
  const numeric = head.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] !== 'object' && /^[-–−<>\d]/.test(String(row[column]))));
  const cell = (value, column) =>
    column === 0 ? el('th', { scope: 'row', class: numeric[0] && 'number' }, value) : el('td', { class: numeric[column] && 'number' }, value);
  return el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption },
    el('table', { class: props?.class },
      el('caption', { class: 'unseen' }, caption),
      el('thead', {}, el('tr', {}, head.map((title, column) => el('th', { scope: 'col', class: numeric[column] && 'number' }, title)))),
      el('tbody', {}, rows.map((row) => el('tr', {}, row.map(cell))))));
}

/** The numbers of a chart as a table, for readers who can't read the drawing. */
function numbers(caption, head, rows) {
  return el('details', { class: 'numbers' }, el('summary', {}, 'Numbers', el('span', { class: 'unseen' }, `: ${caption}`)), table(caption, head, rows));
}

/** Shows the first `step` items, and a button that shows as many more. */
function more(items, step, draw, container, what) {
  let shown = 0;
  const status = el('span', { role: 'status', class: 'quiet-text' });
  const button = el('button', { type: 'button', on: { click: () => next(true) } });
  const foot = el('p', { class: 'more' }, button, status);
  function next(asked) {
    const from = shown;
    shown = Math.min(items.length, shown + step);
    const added = items.slice(from, shown).map(draw);
    container.append(...added);
    button.textContent = `Show ${count(Math.min(step, items.length - shown))} more`;
    status.textContent = `${count(shown)} of ${count(items.length)} ${what}`;
    if (shown === items.length) {
      button.hidden = true;
      if (asked && added[0]) {
        added[0].setAttribute('tabindex', '-1');
        added[0].focus();
      }
    }
  }
  next(false);
  return items.length > step ? [container, foot] : [container];
}

/** Stores settings in the browser. Without storage they are lost on reload; `set` tells whether it stored. */
const memory = {
  nameOf: (name) => `camshaft-report:${name}`,
  get(name) {
    try {
      return localStorage.getItem(memory.nameOf(name));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(memory.nameOf(name), value);
      return true;
    } catch {
      // Storage is full or forbidden. The page works without it.
      return false;
    }
  },
};
