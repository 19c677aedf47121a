// The data of all images of the run: keys, labels, numbers, sketches and places on the map, by the place of
// an image in the order of the keys. They are in the page, or in files beside it if there are too many.
// Reads and decodes them when they are asked for. Knows no findings and draws nothing.

const COLUMN_KINDS = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i8: Int8Array };
const SKETCH_NUMBERS = 128;
// Similar images that are listed.
const MOST_SIMILAR = 200;

/** Decodes base64. */
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** The keys of a page: each is how much it shares with the one before, and the rest. */
function unpackKeys(parts) {
  const keys = [];
  let key = '';
  for (let at = 0; at + 1 < parts.length; at += 2) {
    key = key.slice(0, parts[at]) + parts[at + 1];
    keys.push(key);
  }
  // As parts of one text they take half the memory. No key has a control character.
  return keys.join('\n').split('\n');
}

/** The first number in [0, length) for which `holds` is true; `length` if there is none. Later ones hold, too. */
function firstThat(length, holds) {
  let [low, high] = [0, length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** A Uint32Array of what `of` says of each place. Loops are faster than `from`, and leave no list behind. */
function numbersOf(length, of) {
  const numbers = new Uint32Array(length);
  for (let place = 0; place < length; place += 1) numbers[place] = of(place);
  return numbers;
}

/** The places in the order of a column's numbers. The missing come last, and equal ones stay in the order of the keys. */
function orderOf(numbers, missing, descending) {
  const { length } = numbers;
  let order = new Uint32Array(length);
  let next = new Uint32Array(length);
  let known = 0;
  let last = length;
  for (let place = 0; place < length; place += 1) if (numbers[place] !== missing) order[known++] = place;
  for (let place = length - 1; place >= 0; place -= 1) if (numbers[place] === missing) order[--last] = place;
  next.set(order.subarray(known), known);
  // A radix sort: by the lower 16 bits, then by the upper ones.
  const flip = descending ? 0xFFFF : 0;
  for (let shift = 0; shift < 8 * numbers.BYTES_PER_ELEMENT; shift += 16) {
    const starts = new Uint32Array(0x10001);
    for (let at = 0; at < known; at += 1) starts[(((numbers[order[at]] >>> shift) & 0xFFFF) ^ flip) + 1] += 1;
    for (let at = 0; at < 0x10000; at += 1) starts[at + 1] += starts[at];
    for (let at = 0; at < known; at += 1) next[starts[((numbers[order[at]] >>> shift) & 0xFFFF) ^ flip]++] = order[at];
    [order, next] = [next, order];
  }
  return order;
}

class Images {
  constructor(data) {
    this.data = data;
    this.count = data.images;
    this.inFiles = data.in_files;
    this.columns = new Map(data.columns.map((column) => [column.name, column]));
    this.numbers = new Map();
    this.pages = data.keys.map((page) => unpackKeys(page));
    data.keys = null;
  }

  /** Why the files can't be had here, or null. */
  get problem() {
    return this.inFiles && location.protocol === 'file:' ? `This run has ${count(this.count)} images, too many for one file: open the report with camshaft serve OUT.` : null;
  }

  has(name) {
    return this.columns.has(name);
  }

  async fetch(name) {
    // An address stays the same when the report is built again.
    const answer = await fetch(`images/${name}`, { cache: 'no-cache' });
    if (!answer.ok) throw new Error(`images/${name} can't be read (${answer.status})`);
    return answer;
  }

  /** Gets these columns: null if they are here, else a promise. Those that the run does not have are none. */
  load(names) {
    const absent = names.filter((name) => this.has(name) && !this.numbers.has(name));
    if (!this.inFiles) {
      for (const name of absent) {
        const column = this.columns.get(name);
        this.keep(column, bytesOf(column.data).buffer);
        column.data = null;
      }
      return null;
    }
    if (absent.length === 0) return null;
    return Promise.all(absent.map(async (name) => this.keep(this.columns.get(name), await (await this.fetch(`${name}.bin`)).arrayBuffer())));
  }

  keep(column, buffer) {
    this.numbers.set(column.name, new COLUMN_KINDS[column.kind](buffer));
  }

  /** A column that is here, as it is stored. */
  stored(name) {
    return this.numbers.get(name) ?? null;
  }

  /** What a stored number stands for that is missing. */
  missing(name) {
    return this.columns.get(name)?.kind === 'u16' ? 65535 : 0xFFFFFFFF;
  }

  /** The number of an image; null if it has none, or the column is not here. */
  number(name, place) {
    const stored = this.numbers.get(name)?.[place];
    if (stored === undefined || stored === this.missing(name)) return null;
    const { from, step } = this.columns.get(name);
    return from === undefined ? stored : from + step * stored;
  }

  /** The name of an image in a column of names, out of `names` of the data. */
  named(name, names, place) {
    const number = this.numbers.get(name)?.[place] ?? 0;
    return number === 0 ? null : this.data[names][number - 1];
  }

  /** The path of an image's overlay below OUT, or null. */
  overlay(place) {
    const path = this.named('overlay', 'overlays', place);
    return path?.startsWith('.') ? `overlays/${this.key(place)}${path}` : path;
  }

  /** The address of an original image on the disk of the report, or null. */
  original(place) {
    // A name that is no text begins with %= in its key, and is percent-encoded already.
    const encode = (part) => (part.startsWith('%=') ? part.slice(2).split(/(%[0-9A-F]{2})/).map((text, at) => (at % 2 ? text : encodeURIComponent(text))).join('') : encodeURIComponent(part));
    return this.data.originals && `${this.data.originals}/${this.key(place).split('/').map(encode).join('/')}`;
  }

  // Keys.

  pageOf(place) {
    return Math.floor(place / this.data.keys_per_page);
  }

  /** The key of an image; undefined if its page of keys is not here. */
  key(place) {
    return this.pages[this.pageOf(place)]?.[place % this.data.keys_per_page];
  }

  /** Gets the keys of these images: null if they are here, else a promise. */
  loadKeys(places) {
    return this.loadPages(new Set(Array.from(places, (place) => this.pageOf(place))));
  }

  loadAllKeys() {
    return this.loadPages(this.data.first_keys.keys());
  }

  loadPages(pages) {
    this.asked ??= new Map();
    const absent = [...pages].filter((page) => !this.pages[page]);
    if (absent.length === 0) return null;
    for (const page of absent) {
      if (this.asked.has(page)) continue;
      const read = this.fetch(`keys-${page}.json`).then(async (answer) => { this.pages[page] = unpackKeys(await answer.json()); });
      this.asked.set(page, read.finally(() => this.asked.delete(page)));
    }
    return Promise.all(absent.map((page) => this.asked.get(page)));
  }

  /** The page that has a key if any has. */
  pageOfKey(key) {
    return Math.max(0, firstThat(this.data.first_keys.length, (page) => this.data.first_keys[page] > key) - 1);
  }

  /** The place of a key; -1 if there is none, or its page is not here. */
  placeOf(key) {
    const page = this.pageOfKey(key);
    const keys = this.pages[page] ?? [];
    const at = firstThat(keys.length, (number) => keys[number] >= key);
    return keys[at] === key ? page * this.data.keys_per_page + at : -1;
  }

  /** Gets what `placeOf` needs for these keys: null if it is here, else a promise. */
  loadPlaces(keys) {
    return this.count === 0 ? null : this.loadPages(new Set(Array.from(keys, (key) => this.pageOfKey(key))));
  }

  // Similar images.

  /** The images that are most like one, as [place, cosine], the most similar first. */
  similar(place) {
    this.load(['sketch']);
    const sketches = this.stored('sketch');
    if (!sketches) return [];
    this.lengths ??= Float64Array.from({ length: this.count }, (_, other) => Math.sqrt(product(sketches, other, other)));
    const cosines = new Float64Array(this.count).fill(-2);
    if (this.lengths[place] === 0) return [];
    for (let other = 0; other < this.count; other += 1) {
      if (other !== place && this.lengths[other] > 0) cosines[other] = product(sketches, place, other) / (this.lengths[place] * this.lengths[other]);
    }
    // Only what may be among the first is sorted.
    const least = Float64Array.from(cosines).sort()[Math.max(0, this.count - MOST_SIMILAR)];
    const near = [];
    for (let other = 0; other < this.count; other += 1) if (cosines[other] >= least && cosines[other] > -2) near.push([other, cosines[other]]);
    return near.sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, MOST_SIMILAR);
  }
}

function product(sketches, one, other) {
  let sum = 0;
  const [first, second] = [one * SKETCH_NUMBERS, other * SKETCH_NUMBERS];
  for (let at = 0; at < SKETCH_NUMBERS; at += 1) sum += sketches[first + at] * sketches[second + at];
  return sum;
}

/** Reads the block of the page: at once if the page is there to its end, else as a promise. */
function readImages() {
  const read = () => new Images(JSON.parse(byId('images-data').textContent));
  if (document.readyState !== 'loading') return read();
  return new Promise((resolve, reject) => {
    addEventListener('DOMContentLoaded', () => {
      try {
        resolve(read());
      } catch (error) {
        reject(error);
      }
    });
  });
}
