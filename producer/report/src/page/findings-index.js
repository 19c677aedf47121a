// Filters and sorts up to some hundred thousand findings. Columns are typed arrays of small numbers,
// so that a filter is one pass over them. Knows nothing of the page.

/** A column of names, stored as numbers; 0 stands for no name. */
function dictionary(rows, read) {
  const names = [null];
  const numberOf = new Map();
  const values = new Uint32Array(rows.length);
  rows.forEach((row, at) => {
    const name = read(row);
    if (name === null || name === undefined) return;
    let number = numberOf.get(name);
    if (number === undefined) {
      number = names.push(name) - 1;
      numberOf.set(name, number);
    }
    values[at] = number;
  });
  return { names, values, numberOf: (name) => (name === '' ? 0 : numberOf.get(name) ?? -1) };
}

class FindingsIndex {
  constructor(rows) {
    this.rows = rows;
    this.kind = dictionary(rows, (row) => row.kind);
    this.problem = dictionary(rows, (row) => row.problem);
    this.label = dictionary(rows, (row) => row.label_class ?? row.label);
    this.predicted = dictionary(rows, (row) => row.predicted);
    this.score = Float64Array.from(rows, (row) => (isNumber(row.score) ? row.score : -Infinity));
    this.done = new Uint8Array(rows.length);
    this.orders = new Map();
    this.searched = null;
  }

  /** By row, the text that a search looks through, in lower case; made at the first search. */
  searchedTexts() {
    this.searched ??= this.rows.map((row) => `${row.key ?? ''}\n${row.other ?? ''}\n${row.reason ?? ''}`.toLowerCase());
    return this.searched;
  }

  /** All rows, sorted by rank, score or key; ties by rank. */
  order(sort) {
    if (!this.orders.has(sort)) {
      const { rows, score } = this;
      const rank = (at) => rows[at].rank ?? at;
      const compare = {
        rank: (a, b) => rank(a) - rank(b),
        score: (a, b) => (score[b] > score[a]) - (score[b] < score[a]) || rank(a) - rank(b),
        key: (a, b) => (rows[a].key > rows[b].key) - (rows[a].key < rows[b].key) || rank(a) - rank(b),
      }[sort];
      this.orders.set(sort, Uint32Array.from(rows.keys()).sort(compare));
    }
    return this.orders.get(sort);
  }

  /**
   * The rows that pass the filters, and for each kind the number of rows that pass all other
   * filters. A filter that is null passes every row; an empty name passes rows without a name.
   */
  query({ kind, problem, label, predicted, text, min, open, sort }) {
    const wanted = (column, name) => (name === null ? null : column.numberOf(name));
    const [kindNumber, problemNumber, labelNumber, predictedNumber] =
      [wanted(this.kind, kind), wanted(this.problem, problem), wanted(this.label, label), wanted(this.predicted, predicted)];
    const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = terms.length > 0 ? this.searchedTexts() : null;
    const order = this.order(sort);
    const passed = new Uint32Array(order.length);
    const kindCounts = new Uint32Array(this.kind.names.length);
    let length = 0;
    for (const at of order) {
      if (problemNumber !== null && this.problem.values[at] !== problemNumber) continue;
      if (labelNumber !== null && this.label.values[at] !== labelNumber) continue;
      if (predictedNumber !== null && this.predicted.values[at] !== predictedNumber) continue;
      if (min !== null && this.score[at] < min) continue;
      if (open && this.done[at]) continue;
      if (texts && !terms.every((term) => texts[at].includes(term))) continue;
      kindCounts[this.kind.values[at]] += 1;
      if (kindNumber !== null && this.kind.values[at] !== kindNumber) continue;
      passed[length++] = at;
    }
    return { rows: passed.subarray(0, length), kindCounts };
  }
}

/** Identifies a finding in later reports of the run, in which its rank may be another. */
const findingIdentity = (row) => [row.kind, row.problem ?? '', row.key, row.other ?? ''].join('\n');

const CSV_COLUMNS = ['rank', 'kind', 'problem', 'score', 'key', 'other', 'label', 'suggested', 'predicted', 'probability', 'reason', 'cluster', 'failure'];

/** These rows as CSV (RFC 4180). A text that a spreadsheet would run as a formula has an apostrophe before it. */
function csvOf(index, rows) {
  const field = (value) => {
    let text = value === null || value === undefined ? '' : String(value);
    // A spreadsheet would run it, and it may be the name of a stranger's file.
    if (typeof value === 'string' && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [[...CSV_COLUMNS, 'done'].join(',')];
  for (const at of rows) lines.push([...CSV_COLUMNS.map((column) => index.rows[at][column]), index.done[at] === 1].map(field).join(','));
  return `${lines.join('\r\n')}\r\n`;
}
