// All images of the run as a list: filters, orders, and which are like another one. It joins the images'
// data with the findings: an entry of the work index is an image with findings, and every other image gets
// an entry after those. Reads the data when the list is opened for the first time. Draws nothing.

// What the list can be ordered by: its name, the columns that it needs if they are others, and how a value is
// written, alone and on a tile (at %).
const asShare = (value) => percent(value);
const asIs = (value) => decimal(value);
const asCount = (value) => count(value);
const ORDERS = {
  key: { name: 'Name' },
  alike: { name: 'Similarity', short: '% alike', write: asIs },
  label: { name: 'Given label' },
  predicted: { name: 'Predicted' },
  score: { name: 'Score of the worst finding', short: 'score %', write: asIs },
  probability: { name: 'Probability', short: '%', write: asShare },
  label_probability: { name: 'Probability of the label', short: '% for the label', write: asShare },
  margin: { name: 'Margin of the first two classes', short: 'margin %', write: asShare },
  entropy: { name: 'Entropy of the classes', short: 'entropy %', write: asIs },
  brightness: { name: 'Brightness', short: 'brightness %', write: asIs },
  contrast: { name: 'Contrast', short: 'contrast %', write: asIs },
  blur: { name: 'Blur', short: 'blur %', write: asIs },
  chroma: { name: 'Colour', short: 'colour %', write: asIs },
  information: { name: 'Information in the picture', short: 'information %', write: asIs },
  border: { name: 'Border around the picture', short: 'border %', write: asShare },
  blocking: { name: 'JPEG blocks', short: 'blocks %', write: asIs },
  pixels: { name: 'Pixels', short: '% pixels', columns: ['width', 'height'], write: asCount },
  width: { name: 'Width', short: '% wide', write: asCount },
  height: { name: 'Height', short: '% high', write: asCount },
  bytes: { name: 'File size', short: '% bytes', write: asCount },
  camera_year: { name: 'Year of the camera', short: '%', write: String },
  map_entropy: { name: 'Spread of the map', short: 'spread %', write: asIs },
  map_border_share: { name: 'Map on the border', short: '% on the border', write: asShare },
};
// Names, states and places that any list of images shows.
const SHOWN_COLUMNS = ['label', 'label_class', 'predicted', 'probability', 'failure', 'overlay', 'thumbnails', 'finding_images', 'best_images'];
const NO_PLACE = 0xFFFFFFFF;
// Orders that are kept, since a reader goes back and forth.
const KEPT_ORDERS = 4;

class AllImages {
  /** `decided()` has the keys of what is decided; `samples` are those that the report knows. */
  constructor(index, decided, decisionOf, samples) {
    Object.assign(this, { index, decided, decisionOf, samples });
    this.images = null;
    this.orders = new Map();
    this.alike = { key: null, places: [], cosines: new Map() };
    this.sampled = { kind: null, sample: null, places: new Set() };
  }

  // Reading. Each of these returns null if everything is here, else a promise; `open` may throw, too.

  /** Gets the images' data. */
  open() {
    if (this.images) return null;
    this.opening ??= this.read()?.catch((error) => {
      // What can't be read now may be there when the reader asks again.
      this.opening = null;
      throw error;
    });
    return this.opening ?? null;
  }

  read() {
    const take = (images) => {
      if (images.problem) throw new Error(images.problem);
      const waiting = images.load(SHOWN_COLUMNS);
      const join = () => {
        this.join(images);
        const keys = [...this.decided()];
        const found = images.loadPlaces(keys);
        const decide = () => this.index.decide(keys, this.decisionOf);
        return found ? found.then(decide) : decide();
      };
      return waiting ? waiting.then(join) : join();
    };
    const images = readImages();
    const done = images instanceof Promise ? images.then(take) : take(images);
    return done instanceof Promise ? done : null;
  }

  /** Gets what a list needs. */
  prepare(filters) {
    if (filters.scope !== 'images') return null;
    const steps = [
      () => this.open(),
      () => this.images.load([...(ORDERS[filters.sort]?.columns ?? [filters.sort]), ...(filters.area ? ['map_x', 'map_y'] : [])]),
      () => (filters.text ? this.images.loadAllKeys() : null),
      () => (filters.like === null ? null : this.prepareAlike(filters.like)),
      () => (filters.sample === null ? null : this.prepareSample(filters.sample)),
    ];
    return inTurn(steps);
  }

  /** Gets the keys of entries. */
  loadKeys(entries) {
    return this.images ? this.images.loadKeys(Array.from(entries, (entry) => this.places[entry]).filter((place) => place !== NO_PLACE)) : null;
  }

  /** Gets what tells the entry of a key. */
  find(key) {
    return inTurn([() => this.open(), () => this.images.loadPlaces([key])]);
  }

  prepareAlike(key) {
    if (this.alike.key === key) return null;
    const keep = (pairs) => { this.alike = { key, places: pairs.map(([place]) => place), cosines: new Map(pairs) }; };
    if (!this.images.inFiles) {
      const place = this.images.placeOf(key);
      return keep(place < 0 ? [] : this.images.similar(place)) ?? null;
    }
    if (!served?.similar) throw new Error('In a run of this size camshaft serve finds similar images: open the report with camshaft serve OUT.');
    return fetch(`${served.similar}?key=${encodeURIComponent(key)}`).then(async (answer) => {
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const similar = await answer.json();
      await this.images.loadPlaces(similar.map((one) => one.key));
      keep(similar.map((one) => [this.images.placeOf(one.key), one.similarity]).filter(([place]) => place >= 0));
    });
  }

  /** Gets the places of a sample's images. camshaft serve knows those that were drawn since the report was built. */
  async prepareSample(kind) {
    if (this.sampled.kind === kind) return;
    const read = async () => {
      const answer = await fetch(served.samples);
      if (!answer.ok) throw new Error((await answer.text()).trim());
      return answer.json();
    };
    const samples = served?.samples ? await read() : this.samples;
    const sample = samples.find((one) => one.kind === kind);
    if (!sample) throw new Error(`The sample ${kind} is not known here. Draw it with camshaft decide OUT --sample 100 --of ${kind}, and open the page with camshaft serve OUT.`);
    await this.images.loadPlaces(sample.keys);
    this.sampled = { kind, sample, places: new Set(sample.keys.map((key) => this.images.placeOf(key)).filter((place) => place >= 0)) };
  }

  // Entries and places.

  join(images) {
    const { index } = this;
    const listed = index.length;
    const entries = new Uint32Array(images.count).fill(NO_PLACE);
    const [own, best] = [images.stored('finding_images'), images.stored('best_images')];
    const take = (key, place) => {
      const entry = key ? index.entryOf(key) : -1;
      if (entry >= 0 && place !== NO_PLACE) entries[place] = entry;
    };
    index.rows.forEach((row, at) => {
      take(row.key, own?.[at] ?? NO_PLACE);
      take(row.best, best?.[at] ?? NO_PLACE);
    });
    let length = listed;
    for (let place = 0; place < entries.length; place += 1) if (entries[place] === NO_PLACE) entries[place] = length++;
    this.places = new Uint32Array(length).fill(NO_PLACE);
    entries.forEach((entry, place) => { this.places[entry] = place; });
    this.entries = entries;
    this.images = images;
    const [given, meant] = [images.stored('label'), images.stored('label_class')];
    const labels = numbersOf(images.count, (place) => meant?.[place] || given?.[place] || 0);
    this.label = this.names(labels);
    this.predicted = this.names(images.stored('predicted') ?? new Uint8Array(images.count));
    index.attach(this, length);
  }

  /** A column of names, as `dictionary` makes it. */
  names(values) {
    this.numbers ??= new Map(this.images.data.names.map((name, at) => [name, at + 1]));
    return { names: [null, ...this.images.data.names], values, numberOf: (name) => (name === '' ? 0 : this.numbers.get(name) ?? -1) };
  }

  keyOf(entry) {
    return this.images.key(this.places[entry]);
  }

  /** The entry of a key; -1 if it is not here. */
  entryOf(key) {
    const place = this.images.placeOf(key);
    return place < 0 ? -1 : this.entries[place];
  }

  /** What an image without findings shows, as the index's `facts`. */
  facts(entry) {
    const { images } = this;
    const place = this.places[entry];
    if (place === NO_PLACE) return {};
    const thumbnails = images.stored('thumbnails')?.[place] ?? 0;
    const key = images.key(place);
    const label = images.named('label', 'names', place);
    const meant = images.named('label_class', 'names', place);
    return {
      key, label, label_class: meant === label ? null : meant, predicted: images.named('predicted', 'names', place), probability: images.number('probability', place),
      failure: images.named('failure', 'failures', place), thumbnail: (thumbnails & 1) > 0, overlay_thumbnail: (thumbnails & 2) > 0,
      overlay: key === undefined ? null : images.overlay(place), image: key === undefined ? null : images.original(place),
    };
  }

  /** Whether the prediction is right: true, false, or null if there is nothing to compare. */
  isRight(place) {
    const [meant, predicted] = ['label_class', 'predicted'].map((name) => this.images.stored(name)?.[place] ?? 0);
    return meant === 0 || predicted === 0 ? null : meant === predicted;
  }

  /** The kind of the most urgent finding about an image, or null. */
  worstKind(place) {
    const entry = this.entries[place];
    const first = this.index.starts[entry];
    return first < this.index.starts[entry + 1] ? this.index.rows[this.index.rowsInOrder[first]].kind : null;
  }

  /** The orders that this run has columns for. */
  orderNames(filters) {
    const has = { key: true, alike: filters.like !== null, label: this.label.values.some(Boolean), predicted: this.predicted.values.some(Boolean), score: this.index.rows.length > 0 };
    return Object.keys(ORDERS).filter((name) => has[name] ?? (ORDERS[name].columns ?? [name]).every((column) => this.images.has(column)));
  }

  /** The number of an image that an order is by; null if it has none. */
  value(name, place) {
    if (name === 'alike') return this.alike.cosines.get(place) ?? null;
    if (name === 'score') return this.index.score(this.entries[place]);
    if (name === 'pixels') {
      const sides = ['width', 'height'].map((side) => this.images.number(side, place));
      return sides.includes(null) ? null : sides[0] * sides[1];
    }
    return this.images.number(name, place);
  }

  /** The value of an image in words, or null if the order is not by a number. */
  valueWords(name, entry) {
    const order = ORDERS[name];
    const value = order?.write ? this.value(name, this.places[entry]) : null;
    return value === null || value === undefined ? null : order.short.replace('%', () => order.write(value));
  }

  // The list.

  /** All places in an order. */
  order(sort, descending) {
    const name = `${sort} ${descending}`;
    let order = this.orders.get(name);
    if (!order) {
      order = this.makeOrder(sort, descending);
      this.orders.set(name, order);
      if (this.orders.size > KEPT_ORDERS) this.orders.delete(this.orders.keys().next().value);
    }
    return order;
  }

  makeOrder(sort, descending) {
    const { images } = this;
    const length = images.count;
    const ranked = ({ names, values }) => {
      const sorted = names.map((_, number) => number).slice(1).sort((a, b) => names[a].localeCompare(names[b], undefined, { numeric: true }));
      const ranks = new Uint32Array(names.length).fill(NO_PLACE);
      sorted.forEach((number, rank) => { ranks[number] = rank; });
      return numbersOf(length, (place) => ranks[values[place]]);
    };
    const numbers = {
      key: () => numbersOf(length, (place) => place),
      label: () => ranked(this.label),
      predicted: () => ranked(this.predicted),
      score: () => numbersOf(length, (place) => {
        const score = this.value('score', place);
        return score === null ? NO_PLACE : Math.round(score * 1e6);
      }),
      pixels: () => {
        const [wide, high] = ['width', 'height'].map((side) => images.stored(side));
        return numbersOf(length, (place) => (wide[place] === NO_PLACE || high[place] === NO_PLACE ? NO_PLACE : Math.min(NO_PLACE - 1, wide[place] * high[place])));
      },
    }[sort];
    if (numbers) return orderOf(numbers(), NO_PLACE, descending);
    return orderOf(images.stored(sort) ?? new Uint8Array(length), images.missing(sort), descending);
  }

  /** The entries that pass the filters, as the index's `query`. An image without findings passes if no filter is about findings. */
  query(filters) {
    const { index, images } = this;
    const { kind, label, predicted, right, decision, area, like, sample } = filters;
    const aboutFindings = filters.problem !== null || filters.min !== null;
    const passesRow = index.rowFilter({ ...filters, predicted: null, text: '' });
    const passesText = this.textFilter(filters.text);
    const labelNumber = label === null ? null : this.label.numberOf(label);
    const predictedNumber = predicted === null ? null : this.predicted.numberOf(predicted);
    const kindNumber = kind === null || kind === NOTHING ? null : index.kind.numberOf(kind);
    const inside = area === null ? null : this.areaFilter(area);
    const wanted = { right: true, wrong: false, unknown: null }[right];
    const kindCounts = new Uint32Array(index.kind.names.length);
    const passing = new Uint8Array(index.length);
    const passed = new Uint32Array(this.entries.length);
    let [found, any, nothing] = [0, 0, 0];
    const alike = like !== null && filters.sort === 'alike';
    const order = alike ? (filters.descending ? [...this.alike.places].reverse() : this.alike.places) : this.order(filters.sort, filters.descending);
    for (const place of order) {
      if (labelNumber !== null && this.label.values[place] !== labelNumber) continue;
      if (predictedNumber !== null && this.predicted.values[place] !== predictedNumber) continue;
      if (like !== null && !this.alike.cosines.has(place)) continue;
      if (inside && !inside(place)) continue;
      if (sample !== null && !this.sampled.places.has(place)) continue;
      if (right !== null && this.isRight(place) !== wanted) continue;
      const entry = this.entries[place];
      if (!index.passesDecision(entry, decision)) continue;
      if (passesText && !passesText(entry, place)) continue;
      let kinds = 0;
      for (let at = index.starts[entry]; at < index.starts[entry + 1]; at += 1) {
        const row = index.rowsInOrder[at];
        if (passesRow(row)) kinds |= 1 << index.kind.values[row];
      }
      if (aboutFindings && kinds === 0) continue;
      any += 1;
      const without = index.starts[entry] === index.starts[entry + 1];
      nothing += without;
      for (let number = 1; number < kindCounts.length; number += 1) kindCounts[number] += (kinds >> number) & 1;
      if (kind === NOTHING ? !without : kindNumber !== null && (kindNumber < 0 || ((kinds >> kindNumber) & 1) === 0)) continue;
      passing[entry] = 1;
      passed[found++] = entry;
    }
    return { entries: passed.slice(0, found), passing, images: found, any, nothing, kindCounts };
  }

  /** A test of images by text: every part is in the key or in a finding. Null without a text. */
  textFilter(text) {
    const parts = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (parts.length === 0) return null;
    const { index, images } = this;
    const texts = index.searchedTexts();
    return (entry, place) => {
      const key = images.key(place).toLowerCase();
      if (parts.every((part) => key.includes(part))) return true;
      for (let at = index.starts[entry]; at < index.starts[entry + 1]; at += 1) if (parts.every((part) => texts[index.rowsInOrder[at]].includes(part))) return true;
      return false;
    };
  }

  /** A test of places by an area of the map. */
  areaFilter(area) {
    const corners = readArea(area);
    const [xs, ys] = ['map_x', 'map_y'].map((name) => this.images.stored(name));
    if (!corners || !xs || !ys) return () => false;
    const inside = insideOf(corners);
    return (place) => xs[place] !== 65535 && inside(xs[place], ys[place]);
  }

  /** How many images are decided. */
  decidedImages() {
    let decided = 0;
    for (const entry of this.entries) decided += this.index.decided[entry] > 0;
    return decided;
  }
}

/** Does steps that are done at once or promise to be. Returns null if all were done at once, else a promise, also of what failed at once. */
function inTurn(steps) {
  try {
    for (let at = 0; at < steps.length; at += 1) {
      const waiting = steps[at]();
      if (waiting) return Promise.resolve(waiting).then(() => inTurn(steps.slice(at + 1)));
    }
    return null;
  } catch (error) {
    return Promise.reject(error);
  }
}
