// The images of the work list: one entry for each image, with all its findings. Filters up to some
// hundred thousand of them: columns are typed arrays of small numbers, so that a filter is one pass.
// Once all images of the run are read (all-images.js), those without findings have entries, too.
// Knows nothing of the page.

/** A column of names, stored as numbers; 0 stands for no name. */
function dictionary(length, read) {
  const names = [null];
  const numberOf = new Map();
  const values = new Uint32Array(length);
  for (let at = 0; at < length; at += 1) {
    const name = read(at);
    if (name === null || name === undefined) continue;
    let number = numberOf.get(name);
    if (number === undefined) {
      number = names.push(name) - 1;
      numberOf.set(name, number);
    }
    values[at] = number;
  }
  return { names, values, numberOf: (name) => (name === '' ? 0 : numberOf.get(name) ?? -1) };
}

// What is decided of an entry, as a number.
const DECISION_CODES = { undecided: 0, keep: 1, drop: 2, relabel: 3 };

class WorkIndex {
  constructor(rows) {
    this.rows = rows;
    this.numbers = new Map();
    const numberOf = (key) => {
      if (!this.numbers.has(key)) this.numbers.set(key, this.numbers.size);
      return this.numbers.get(key);
    };
    const entryOfRow = Uint32Array.from(rows, (row) => numberOf(row.key));
    // Images with findings come first. The best image of a group may have none; it follows.
    this.images = this.numbers.size;
    for (const row of rows) if (row.group && row.best) numberOf(row.best);
    this.keys = [...this.numbers.keys()];
    this.length = this.keys.length;
    this.sortRows(entryOfRow);
    this.collectGroups(entryOfRow);
    this.kind = dictionary(rows.length, (at) => rows[at].kind);
    this.problem = dictionary(rows.length, (at) => rows[at].problem);
    this.predicted = dictionary(rows.length, (at) => rows[at].predicted);
    this.label = dictionary(this.length, (entry) => this.labelOf(entry));
    this.decided = new Uint8Array(this.length);
    this.orders = new Map();
    this.searched = null;
    this.all = null;
  }

  /** Takes in the images without findings: the entries up to `length`. */
  attach(all, length) {
    const grown = (numbers, size, last) => {
      const longer = new numbers.constructor(size).fill(last);
      longer.set(numbers);
      return longer;
    };
    this.starts = grown(this.starts, length + 1, this.starts[this.length]);
    this.groupOf = grown(this.groupOf, length, 0);
    this.decided = grown(this.decided, length, 0);
    this.length = length;
    this.all = all;
  }

  /** The rows of entry `e` are `rowsInOrder` from `starts[e]` to `starts[e + 1]`, the most urgent first. */
  sortRows(entryOfRow) {
    this.starts = new Uint32Array(this.length + 1);
    for (const entry of entryOfRow) this.starts[entry + 1] += 1;
    for (let entry = 0; entry < this.length; entry += 1) this.starts[entry + 1] += this.starts[entry];
    const next = this.starts.slice();
    this.rowsInOrder = new Uint32Array(entryOfRow.length);
    entryOfRow.forEach((entry, row) => { this.rowsInOrder[next[entry]++] = row; });
  }

  /** Groups of duplicates: the best image and the others, in the order of the findings. */
  collectGroups(entryOfRow) {
    this.groups = [null];
    this.groupOf = new Uint32Array(this.length);
    const numbers = new Map();
    this.rows.forEach((row, at) => {
      if (!row.group || !row.best) return;
      let number = numbers.get(row.group.id);
      if (number === undefined) {
        const best = this.numbers.get(row.best);
        number = this.groups.push({ best, others: [], via: at }) - 1;
        numbers.set(row.group.id, number);
        this.groupOf[best] = number;
      }
      if (this.groupOf[entryOfRow[at]] !== 0) return;
      this.groups[number].others.push(entryOfRow[at]);
      this.groupOf[entryOfRow[at]] = number;
    });
  }

  /** The entry of a key; -1 if there is none, or its image has not been read. */
  entryOf(key) {
    return this.numbers.get(key) ?? this.all?.entryOf(key) ?? -1;
  }

  /** The key of an entry; undefined if it has not been read. */
  keyOf(entry) {
    return this.keys[entry] ?? this.all?.keyOf(entry);
  }

  /** The score of an entry's most urgent finding; null if it has none. */
  score(entry) {
    return this.starts[entry] < this.starts[entry + 1] ? this.rows[this.rowsInOrder[this.starts[entry]]].score : null;
  }

  /** The findings of an entry, the most urgent first. */
  findings(entry) {
    return Array.from(this.rowsInOrder.subarray(this.starts[entry], this.starts[entry + 1]), (row) => this.rows[row]);
  }

  /** The group of duplicates that the entry is in, or null. */
  group(entry) {
    return this.groups[this.groupOf[entry]];
  }

  isBest(entry) {
    return this.group(entry)?.best === entry;
  }

  labelOf(entry) {
    if (this.starts[entry] < this.starts[entry + 1]) {
      const row = this.rows[this.rowsInOrder[this.starts[entry]]];
      return row.label_class ?? row.label;
    }
    return this.rows[this.group(entry).via].other_label;
  }

  /** The label that is suggested for an entry, if there is one. */
  suggested(entry) {
    for (let at = this.starts[entry]; at < this.starts[entry + 1]; at += 1) {
      const { suggested } = this.rows[this.rowsInOrder[at]];
      if (suggested) return suggested;
    }
    return null;
  }

  /** The kinds of an entry's findings. The best image of a group is in the list for its duplicates. */
  kinds(entry) {
    const kinds = new Set(this.findings(entry).map((row) => row.kind));
    if (this.isBest(entry)) kinds.add('duplicate');
    return [...kinds].sort((a, b) => kindOrder(a) - kindOrder(b));
  }

  /** What an entry shows: its labels, and where its pictures lie. */
  facts(entry) {
    const findings = this.findings(entry);
    const key = this.keyOf(entry);
    if (findings.length === 0) {
      const via = this.rows[this.group(entry)?.via];
      const own = this.all?.facts(entry) ?? {};
      return via ? { ...own, key, label: via.other_label, thumbnail: via.other_thumbnail, image: via.other_image, overlay: via.other_overlay, overlay_thumbnail: via.other_overlay_thumbnail } : own;
    }
    const first = (name) => findings.find((row) => row[name] !== null && row[name] !== undefined)?.[name];
    const [row] = findings;
    return {
      key, label: row.label, label_class: row.label_class, predicted: first('predicted'), probability: first('probability'),
      suggested: first('suggested'), failure: first('failure'), maps: first('class_maps'),
      thumbnail: findings.some((one) => one.thumbnail), image: first('image'), overlay: first('overlay'), overlay_thumbnail: findings.some((one) => one.overlay_thumbnail),
      given_overlay: first('given_overlay'),
    };
  }

  /** Takes over what is decided of these keys. `decisionOf(key)` is a line or nothing. */
  decide(keys, decisionOf) {
    for (const key of keys) {
      const entry = this.entryOf(key);
      if (entry >= 0) this.decided[entry] = DECISION_CODES[decisionOf(key)?.decision] ?? 0;
    }
  }

  /** How many images with findings are decided. */
  decidedImages() {
    let decided = 0;
    for (let entry = 0; entry < this.images; entry += 1) decided += this.decided[entry] > 0;
    return decided;
  }

  /** By row, the text that a search looks through, in lower case; made at the first search. */
  searchedTexts() {
    this.searched ??= this.rows.map((row) => `${row.key ?? ''}\n${row.other ?? ''}\n${row.reason ?? ''}`.toLowerCase());
    return this.searched;
  }

  /** The images with findings: by rank, as they come, or by key. */
  order(sort) {
    if (!this.orders.has(sort)) {
      const order = Uint32Array.from({ length: this.images }, (_, entry) => entry);
      if (sort === 'key') order.sort((a, b) => (this.keys[a] > this.keys[b]) - (this.keys[a] < this.keys[b]));
      this.orders.set(sort, order);
    }
    return this.orders.get(sort);
  }

  /** Whether a decision passes the filter of this name. */
  passesDecision(entry, decision) {
    const code = this.decided[entry];
    return decision === null || (decision === 'decided' ? code > 0 : code === DECISION_CODES[decision]);
  }

  /**
   * The entries that pass the filters: those with a finding that passes all of them. A filter that is null
   * passes everything; an empty name passes what has no name. By rank, the images of a group stand together
   * with their best one in front, which need not pass itself: `passing` tells.
   * `kindCounts` has for each kind the images that pass all other filters.
   */
  query(filters) {
    if (filters.scope === 'images') return this.all.query(filters);
    const { kind, label, decision, sort } = filters;
    const passesRow = this.rowFilter(filters);
    const kindNumber = kind === null ? null : this.kind.numberOf(kind);
    const labelNumber = label === null ? null : this.label.numberOf(label);
    const kindCounts = new Uint32Array(this.kind.names.length);
    const passing = new Uint8Array(this.length);
    const passed = [];
    let any = 0;
    for (const entry of this.order(sort)) {
      if (labelNumber !== null && this.label.values[entry] !== labelNumber) continue;
      if (!this.passesDecision(entry, decision)) continue;
      // One bit a kind; there are fewer than 31.
      let kinds = 0;
      for (let at = this.starts[entry]; at < this.starts[entry + 1]; at += 1) {
        const row = this.rowsInOrder[at];
        if (passesRow(row)) kinds |= 1 << this.kind.values[row];
      }
      if (kinds === 0) continue;
      any += 1;
      for (let number = 1; number < kindCounts.length; number += 1) kindCounts[number] += (kinds >> number) & 1;
      if (kindNumber !== null && (kindNumber < 0 || ((kinds >> kindNumber) & 1) === 0)) continue;
      passing[entry] = 1;
      passed.push(entry);
    }
    const together = sort === 'rank' && (kind === null || kind === 'duplicate');
    return { entries: together ? this.together(passed, passing) : Uint32Array.from(passed), passing, images: passed.length, any, kindCounts };
  }

  /** A test of rows by problem, prediction, score and text. */
  rowFilter({ problem, predicted, text, min }) {
    const problemNumber = problem === null ? null : this.problem.numberOf(problem);
    const predictedNumber = predicted === null ? null : this.predicted.numberOf(predicted);
    const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = terms.length > 0 ? this.searchedTexts() : null;
    return (row) => (problemNumber === null || this.problem.values[row] === problemNumber)
      && (predictedNumber === null || this.predicted.values[row] === predictedNumber)
      && (min === null || this.rows[row].score >= min)
      && (!texts || terms.every((one) => texts[row].includes(one)));
  }

  /** The same entries, with the images of each group at the place of the first of them, and the best in front. */
  together(passed, passing) {
    const placed = new Uint8Array(this.length);
    const entries = [];
    const place = (entry) => {
      if (placed[entry]) return;
      placed[entry] = 1;
      entries.push(entry);
    };
    for (const entry of passed) {
      const group = this.group(entry);
      if (group && !placed[entry] && group.others.some((other) => passing[other])) {
        place(group.best);
        for (const other of group.others) if (passing[other]) place(other);
      }
      place(entry);
    }
    return Uint32Array.from(entries);
  }

  /** The problems of each kind, and under null those of all kinds. */
  problemsOf(kind) {
    this.problems ??= this.collectProblems();
    return this.problems.get(kind) ?? [];
  }

  collectProblems() {
    const { kind, problem } = this;
    const seen = new Map([[null, new Set()]]);
    problem.values.forEach((number, at) => {
      if (number === 0) return;
      const own = kind.names[kind.values[at]];
      if (!seen.has(own)) seen.set(own, new Set());
      seen.get(own).add(problem.names[number]);
      seen.get(null).add(problem.names[number]);
    });
    return new Map([...seen].map(([name, problems]) => [name, [...problems].sort()]));
  }

  /** The names that an image may be given as a label: all labels and classes of the report. */
  labelNames(report) {
    const names = new Set([...this.label.names, ...this.predicted.names, ...this.rows.map((row) => row.suggested), ...this.rows.map((row) => row.label), ...(this.all?.images.data.names ?? [])]);
    for (const entry of list(report.overview?.classes)) names.add(entry.label);
    for (const name of list(report.overview?.confusion?.classes)) names.add(name);
    return [...names].filter((name) => typeof name === 'string' && name.trim() !== '').sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  }
}

const CSV_COLUMNS = ['rank', 'kind', 'problem', 'score', 'key', 'other', 'label', 'suggested', 'predicted', 'probability', 'reason', 'cluster', 'failure'];

/** Rows as CSV (RFC 4180). A text that a spreadsheet would run as a formula has an apostrophe before it. */
function csvOf(head, rows) {
  const field = (value) => {
    let text = value === null || value === undefined ? '' : String(value);
    // A spreadsheet would run it, and it may be the name of a stranger's file.
    if (typeof value === 'string' && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [head, ...rows].map((row) => `${row.map(field).join(',')}\r\n`).join('');
}

/** The findings of these entries as CSV. */
function findingsCsv(index, entries, decisionOf) {
  return csvOf([...CSV_COLUMNS, 'decision', 'new_label'], entries.flatMap((entry) => {
    const decision = decisionOf(index.keyOf(entry));
    return index.findings(entry).map((row) => [...CSV_COLUMNS.map((column) => row[column]), decision?.decision, decision?.label]);
  }));
}

const IMAGE_COLUMNS = ['key', 'label', 'label_class', 'predicted', 'probability', 'failure'];

/** These images as CSV, with the numbers that are read. */
function imagesCsv(index, entries, decisionOf) {
  const { all } = index;
  const numbers = Object.keys(ORDERS).filter((name) => name !== 'probability' && all.images.stored(name));
  return csvOf([...IMAGE_COLUMNS, ...numbers, 'kinds', 'decision', 'new_label'], entries.map((entry) => {
    const facts = all.facts(entry);
    const decision = decisionOf(facts.key);
    return [...IMAGE_COLUMNS.map((column) => facts[column]), ...numbers.map((name) => all.value(name, all.places[entry])), index.kinds(entry).join(' '), decision?.decision, decision?.label];
  }));
}
