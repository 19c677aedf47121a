// The list of images: filters, the grid, what is decided of them, and how far the reader is. It has two
// scopes: the work list, of images with findings, and all images. work-index.js and all-images.js do the
// filtering, grid.js the drawing, deciding.js decides. Owns which list is shown; the address holds it.

const SCOPES = {
  work: { name: 'Work list', orders: () => [['rank', 'Most urgent first'], ['key', 'By name']] },
  images: { name: 'All images', orders: (all, filters) => all.orderNames(filters).map((name) => [name, ORDERS[name].name]) },
};

class WorkList {
  constructor(report, index, all, deciding, router) {
    Object.assign(this, { report, index, all, deciding, router });
    this.node = byId('work-view');
    this.filters = NO_FILTERS;
    // What is waited for before a list can be shown, so that only the last list asked for is.
    this.waiting = null;
    this.found = index.query(this.filters);
    this.position = new Map();
    deciding.store.onchange((keys) => this.decisionsChanged(keys));
  }

  /** Draws what does not depend on the list. */
  draw() {
    const body = bodyOf('work-view');
    this.progress = progressLine();
    byId('progress-holder').append(this.progress.node);
    const total = this.report.findings?.total ?? this.index.rows.length;
    this.bar = this.drawBar();
    this.grid = new VirtualGrid({ label: 'Images', make: (at) => this.tile(at), covered: () => this.bar.getBoundingClientRect().bottom });
    this.nothing = el('p', { class: 'empty', hidden: true });
    this.chosen = el('p', { class: 'chosen', hidden: true });
    this.cut = total > this.index.rows.length && el('p', { class: 'notice' }, `${count(total)} were found; the first ${count(this.index.rows.length)} are listed here. findings.parquet has all.`);
    this.parts = el('div', { class: 'body' }, this.cut, this.chosen, this.drawFilters(), this.bar, this.grid.node, this.nothing);
    this.wait = el('p', { class: 'empty', role: 'status', hidden: true });
    body.append(this.wait, this.parts);
    this.showProgress();
  }

  // The parts.

  drawFilters() {
    const { index } = this;
    const select = (name, text, options) => this.field(text, el('select', { id: `filter-${name}`, on: { change: (event) => this.set({ [name]: event.target.value === '' ? null : event.target.value }) } }, options), 'small');
    const column = (name, text) => this.field(text, el('select', { id: `filter-${name}`, on: { change: (event) => this.set({ [name]: event.target.value === '' ? null : this.columns()[name].names[Number(event.target.value)] ?? '' }) } }));
    const later = (name, read) => {
      let waiting = 0;
      return (event) => {
        clearTimeout(waiting);
        waiting = setTimeout(() => this.set({ [name]: read(event.target.value) }, false), 150);
      };
    };
    this.kinds = index.kind.names.slice(1).sort((a, b) => kindOrder(a) - kindOrder(b)).map((kind) => ({ kind, count: el('span', { class: 'pill-count' }) }));
    this.allCount = el('span', { class: 'pill-count' });
    this.nothingCount = el('span', { class: 'pill-count' });
    this.nothingPill = null;
    this.meaning = el('p', { class: 'quiet-text meaning' });
    const pill = (kind, text, counter) => el('label', {},
      el('input', { type: 'radio', name: 'kind', value: kind ?? '', prop: { checked: kind === null }, on: { change: () => this.set({ kind, problem: null }) } }),
      el('span', {}, kind !== null && el('span', { class: `dot ${kind}` }), text, ' ', counter));
    const option = ([value, text]) => el('option', { value }, text);
    return el('form', { class: 'filters', 'aria-label': 'Filters', on: { submit: (event) => event.preventDefault() } },
      el('fieldset', { class: 'pills' }, el('legend', { class: 'unseen' }, 'Kind'), pill(null, 'All', this.allCount), this.kinds.map(({ kind, count: counter }) => pill(kind, kindPlural(kind), counter)), this.nothingPill = pill(NOTHING, 'Nothing found', this.nothingCount)),
      this.meaning,
      el('details', { class: 'more-filters', id: 'more-filters' }, el('summary', {}, 'More filters'),
        el('div', { class: 'fields' },
          this.field('Search names and reasons', el('input', { type: 'search', id: 'filter-text', autocomplete: 'off', spellcheck: 'false', on: { input: later('text', (value) => value.trim()) } }), 'wide'),
          select('problem', 'Problem', []),
          select('decision', 'Decision', [['', 'Any'], ['undecided', 'Undecided'], ['decided', 'Decided'], ['keep', 'Keep'], ['drop', 'Drop'], ['relabel', 'Relabel']].map(option)),
          column('label', 'Given label'),
          column('predicted', 'Predicted'),
          select('right', 'Prediction', [['', 'Any'], ['right', 'Right'], ['wrong', 'Wrong'], ['unknown', 'Nothing to compare']].map(option)),
          this.field('Minimum score', el('input', { type: 'number', id: 'filter-min', step: 'any', inputmode: 'decimal', placeholder: 'any', on: { input: later('min', (value) => (value === '' || Number.isNaN(Number(value)) ? null : Number(value))) } }), 'small'),
          select('sort', 'Order', []),
          this.field('Direction', el('select', { id: 'filter-descending', on: { change: (event) => this.set({ descending: event.target.value !== '' }) } }), 'small'),
          el('div', { class: 'field small' }, el('button', { type: 'button', id: 'reset', on: { click: () => this.set(everything(this.filters.scope)) } }, 'Clear filters')))));
  }

  drawBar() {
    this.status = el('p', { class: 'result', role: 'status' });
    this.decideButton = el('button', { type: 'button', id: 'decide-all', on: { click: () => this.deciding.decideAll(this.found) } }, 'Decide all …');
    this.undoButton = el('button', { type: 'button', id: 'undo', on: { click: () => this.undo() } }, 'Undo');
    const heat = el('input', { type: 'checkbox', id: 'grid-heat', prop: { checked: memory.get('grid-heat') !== 'off' }, on: { change: () => this.setHeat(heat.checked) } });
    this.heat = heat;
    const upload = el('input', { type: 'file', id: 'upload', accept: '.jsonl,application/jsonl,text/plain', class: 'unseen', tabindex: -1, 'aria-label': 'Upload decisions', on: { change: async () => {
      const [file] = upload.files;
      upload.value = '';
      if (file) await this.deciding.upload(file);
    } } });
    return el('div', { class: 'bar' },
      this.status, this.decideButton, this.undoButton,
      el('label', { class: 'check' }, heat, 'Heat'),
      el('button', { type: 'button', class: 'keys-button', on: { click: () => showKeys() } }, 'Keys ', el('kbd', { 'aria-hidden': 'true' }, '?')),
      el('details', { class: 'menu', id: 'file-menu' }, el('summary', {}, 'Files'), el('div', {},
        el('button', { type: 'button', id: 'download', on: { click: () => this.deciding.download() } }, 'Download decisions'),
        el('button', { type: 'button', id: 'upload-button', on: { click: () => upload.click() } }, 'Upload decisions …'), upload,
        el('button', { type: 'button', id: 'export', on: { click: () => this.export() } }, 'Export this list as CSV'),
        el('button', { type: 'button', id: 'rename', on: { click: () => this.rename() } }, 'Change who decides …'))));
  }

  field(text, control, size) {
    return el('div', { class: `field ${size ?? ''}` }, el('label', { for: control.id }, text), control);
  }

  /** The columns of names that this scope filters by. */
  columns() {
    return this.filters.scope === 'images' ? this.all : this.index;
  }

  options(column) {
    const used = new Set(column.values);
    const named = column.names.map((name, number) => [name, number]).filter(([, number]) => number > 0 && used.has(number)).sort(([a], [b]) => String(a).localeCompare(String(b)));
    const none = column.values.includes(0);
    return [el('option', { value: '' }, 'Any'), named.map(([name, number]) => el('option', { value: number }, name)), none && el('option', { value: 0 }, '(none)')];
  }

  // The list.

  /** Sets some filters, as the reader asks. `push` makes a step that the browser's back button takes back. */
  set(changes, push = true) {
    const filters = { ...this.filters, ...changes };
    this.whenReady(filters, () => {
      this.apply(filters);
      this.router.note(workAddress(this.filters), push);
      this.grid.reset(this.found.entries.length);
      this.showState();
    });
  }

  /** Goes on once everything that a list needs is here: at once if it is. Says what is missing if it can't be had. */
  async whenReady(filters, go) {
    const waiting = this.all.prepare(filters);
    this.waiting = waiting;
    if (waiting) {
      const late = setTimeout(() => { if (this.waiting === waiting) this.say('Reading the images …'); }, 150);
      try {
        await waiting;
      } catch (error) {
        if (this.waiting === waiting) this.say(error.message);
        return;
      } finally {
        clearTimeout(late);
      }
      if (this.waiting !== waiting) return;
    }
    this.say(null);
    go();
  }

  /** Says something in place of the list, or shows the list. */
  say(text) {
    this.wait.hidden = text === null;
    this.wait.textContent = text ?? '';
    this.parts.hidden = text !== null;
  }

  /** Takes these filters as the list, without drawing it. */
  apply(filters) {
    this.filters = filters;
    this.found = this.index.query(filters);
    this.positions = null;
  }

  /** The place of an entry in the list; -1 if it is not in it. */
  positionOf(entry) {
    if (!this.positions) {
      this.positions = new Int32Array(this.index.length).fill(-1);
      this.found.entries.forEach((one, at) => { this.positions[one] = at; });
    }
    return this.positions[entry] ?? -1;
  }

  /** Whether these filters are those of the list. */
  isList(filters) {
    return workAddress(filters) === workAddress(this.filters);
  }

  show({ filters }, how) {
    const { name } = SCOPES[filters.scope];
    document.title = `${name} · ${this.report.title ?? 'Camshaft report'}`;
    document.body.dataset.list = filters.scope;
    byId('work-heading').textContent = name;
    this.whenReady(filters, () => this.drawList(filters, how));
  }

  drawList(filters, { asked, focus, scrolled }) {
    const current = filters.scope === this.filters.scope ? this.found.entries[this.grid.current] : undefined;
    // Coming back from an image, the list is as it was left, with that image in sight.
    const entry = this.returned ?? (asked ? undefined : current);
    this.returned = undefined;
    this.apply(filters);
    // The order of all images is what the reader came for. On a small screen it would hide the images.
    if (asked && filters.scope === 'images' && matchMedia('(min-width: 56rem)').matches) byId('more-filters').open = true;
    const position = entry === undefined ? -1 : this.positionOf(entry);
    this.grid.reset(this.found.entries.length, Math.max(0, position));
    this.showState();
    if (position >= 0) {
      scrollTo(0, scrolled);
      this.grid.focus(position);
    } else {
      scrollTo(0, asked ? 0 : scrolled);
      if (focus) this.node.focus({ preventScroll: true });
    }
  }

  tile(at) {
    const { index, filters } = this;
    const entry = this.found.entries[at];
    if (index.keyOf(entry) === undefined) return this.emptyTile(entry);
    const value = filters.scope === 'images' ? this.all.valueWords(filters.sort, entry) : null;
    const group = filters.scope === 'work' ? index.groupOf[entry] : 0;
    const near = (other) => group !== 0 && other >= 0 && other < this.found.entries.length && index.groupOf[this.found.entries[other]] === group;
    const [before, after] = [near(at - 1), near(at + 1)];
    const grouped = before || after;
    const tile = el('div', { class: `tile ${grouped ? 'grouped' : ''} ${before ? '' : 'group-start'} ${after ? '' : 'group-end'} ${grouped && index.isBest(entry) ? 'best' : ''}` },
      workTile(index, entry, { address: imageAddress(index.keyOf(entry), filters), kind: filters.kind, decision: this.deciding.decisionOf(entry), heat: this.heat.checked, value }));
    tile.firstElementChild.addEventListener('focus', () => { this.grid.current = at; });
    return tile;
  }

  /** A tile whose key is not here yet. It is drawn again when it is. */
  emptyTile(entry) {
    const draw = () => this.grid.refresh([this.positionOf(entry)]);
    this.all.loadKeys([entry]).then(draw, () => {});
    return el('div', { class: 'tile' }, el('a', { class: 'tile-link', href: workAddress(this.filters), 'aria-label': 'An image that is being read' }, el('span', { class: 'box' })));
  }

  /** Writes the state into the controls, except the one that the reader is typing in. */
  showState() {
    const { filters, index, found } = this;
    const images = filters.scope === 'images';
    const columns = this.columns();
    this.fillControls(images, columns);
    this.showProgress();
    const put = (id, value) => {
      const control = byId(id);
      if (control !== document.activeElement || control.tagName === 'SELECT') control.value = value;
    };
    const number = (column, name) => (name === null ? '' : String(column.numberOf(name)));
    for (const input of this.node.querySelectorAll('input[name=kind]')) input.checked = input.value === (filters.kind ?? '');
    this.meaning.textContent = filters.kind ? kindMeaning(filters.kind) : images ? '' : 'The most urgent images come first.';
    this.meaning.hidden = images && this.meaning.textContent === '';
    this.showChosen();
    byId('filter-problem').replaceChildren(el('option', { value: '' }, 'Any'), ...index.problemsOf(filters.kind).map((problem) => el('option', { value: problem }, words(problem))));
    put('filter-problem', filters.problem ?? '');
    put('filter-decision', filters.decision ?? '');
    put('filter-label', number(columns.label, filters.label));
    put('filter-predicted', number(columns.predicted, filters.predicted));
    put('filter-right', filters.right ?? '');
    put('filter-descending', filters.descending ? '1' : '');
    put('filter-text', filters.text);
    put('filter-min', filters.min ?? '');
    put('filter-sort', filters.sort);
    const more = ['problem', 'decision', 'label', 'predicted', 'right', 'min'].some((name) => filters[name] !== null) || filters.text !== '' || filters.sort !== usualOrder(filters);
    if (more) byId('more-filters').open = true;
    this.allCount.textContent = count(found.any);
    this.nothingCount.textContent = count(found.nothing);
    for (const { kind, count: counter } of this.kinds) counter.textContent = count(found.kindCounts[index.kind.numberOf(kind)]);
    this.showCount();
  }

  /** The choices of the controls that are others in the other scope. */
  fillControls(images, columns) {
    const option = ([value, text]) => el('option', { value }, text);
    const [up, down] = this.filters.sort === 'alike' ? ['Most similar first', 'Least similar first'] : ['Ascending', 'Descending'];
    byId('filter-descending').replaceChildren(option(['', up]), option(['1', down]));
    // The orders depend on the columns, and on whether the list is of similar images.
    byId('filter-sort').replaceChildren(...SCOPES[this.filters.scope].orders(this.all, this.filters).map(option));
    if (this.filled === this.filters.scope) return;
    this.filled = this.filters.scope;
    for (const name of ['label', 'predicted']) byId(`filter-${name}`).replaceChildren(...this.options(columns[name]).flat().filter(Boolean));
    for (const id of ['filter-right', 'filter-descending']) byId(id).closest('.field').hidden = !images;
    this.nothingPill.hidden = !images;
    if (this.cut) this.cut.hidden = images;
  }

  /** Of which images a list of all images is, if not of all. */
  showChosen() {
    const { like, area, sample } = this.filters;
    const all = el('a', { href: workAddress({ ...this.filters, like: null, area: null, sample: null, sort: this.filters.sort === 'alike' ? 'key' : this.filters.sort }) }, 'Show all');
    this.chosen.hidden = like === null && area === null && sample === null;
    this.chosen.replaceChildren(...[
      like !== null && ['The images most similar to ', el('a', { class: 'key', href: imageAddress(like, everything('images')) }, like), ', by the angle between their embeddings\u2019 sketches. '],
      sample !== null && [`Drawn at random from ${counted(this.all.sampled.sample.of, 'image')}: ${sampleWords(sample)}. Decide about every one, and keep those that are right. `],
      area !== null && ['Selected on the map. ', el('a', { href: '#map' }, 'Back to the map'), ' · '], all,
    ].flat().filter(Boolean));
  }

  /** The images of the scope. */
  scopeImages() {
    return this.filters.scope === 'images' ? this.all.images.count : this.index.images;
  }

  showCount() {
    const { found } = this;
    const best = found.entries.length - found.images;
    const all = this.scopeImages();
    this.nothing.textContent = all > 0 ? 'No image passes these filters.' : 'Nothing was found. The notes of the report say what was not looked for.';
    this.status.replaceChildren(el('strong', {}, count(found.images)), found.images === all ? ` ${found.images === 1 ? 'image' : 'images'}` : ` of ${counted(all, 'image')}`, best > 0 ? `, and the best of ${counted(best, 'group')}` : '');
    this.nothing.hidden = found.entries.length > 0;
    this.decideButton.disabled = found.images === 0;
  }

  // Decisions.

  decisionsChanged(keys) {
    if (!this.grid) return;
    this.showProgress();
    const open = !this.node.hidden;
    if (this.filters.decision !== null && open) {
      // Images that no longer pass leave the list; the place in it stays.
      const at = this.grid.current;
      this.apply(this.filters);
      this.grid.reset(this.found.entries.length, at);
      this.showState();
      return;
    }
    if (!open) return;
    if (keys === null || keys.length > this.grid.tiles.size) this.grid.refresh([...this.grid.tiles.keys()]);
    else this.grid.refresh(keys.map((key) => this.positionOf(this.index.entryOf(key))));
  }

  showProgress() {
    this.progress.node.hidden = this.scopeImages() === 0;
    if (this.filters.scope === 'images') this.progress.show(this.all.decidedImages(), this.all.images.count);
    else this.progress.show(this.index.decidedImages(), this.index.images);
  }

  undo() {
    const keys = this.deciding.undo();
    if (!keys || this.node.hidden) return keys;
    const at = this.positionOf(this.index.entryOf(keys[0]));
    if (at >= 0) this.grid.focus(at, { quiet: !this.grid.node.contains(document.activeElement) });
    return keys;
  }

  async rename() {
    const name = await askName(this.deciding.store.by);
    if (name !== null) this.deciding.store.setBy(name);
  }

  setHeat(on) {
    this.heat.checked = on;
    memory.set('grid-heat', on ? 'on' : 'off');
    this.grid.redraw();
  }

  async export() {
    const entries = Array.from(this.found.entries).filter((entry) => this.found.passing[entry]);
    const decisionOf = (key) => this.deciding.store.all.get(key);
    if (this.filters.scope === 'work') {
      saveFile('findings.csv', findingsCsv(this.index, entries, decisionOf), 'text/csv');
      return;
    }
    await this.all.loadKeys(entries);
    saveFile('images.csv', imagesCsv(this.index, entries, decisionOf), 'text/csv');
  }

  /** Does what a key says. Returns whether it is a key of the list. */
  key(key) {
    const { grid } = this;
    if (!grid) return false;
    if (key === '/') {
      byId('more-filters').open = true;
      byId('filter-text').focus();
      return true;
    }
    if (key === 'u') return this.undo() !== undefined;
    if (key === 'h') {
      this.setHeat(!this.heat.checked);
      return true;
    }
    if (this.parts.hidden || this.found.entries.length === 0) return false;
    const inside = grid.node.contains(document.activeElement);
    const target = grid.target(key);
    if (target !== null) {
      // From elsewhere the first key goes into the grid, where the reader was; arrows there scroll the page.
      if (!inside && !['j', 'p'].includes(key)) return false;
      grid.focus(inside ? target : grid.current);
      return true;
    }
    if (!inside) return false;
    const entry = this.found.entries[grid.current];
    if (key === 'm') {
      if (this.index.keyOf(entry) !== undefined) this.router.go(alikeAddress(this.index.keyOf(entry)));
      return true;
    }
    const length = this.found.entries.length;
    const done = this.deciding.key(key, entry);
    if (done === null) return false;
    // On to the next one, unless the decided one has left the list.
    done.then((did) => { if (did) grid.focus(this.found.entries.length < length ? grid.current : grid.current + 1); });
    return true;
  }
}

/** How many images are decided, as a bar and in words. */
function progressLine() {
  const bar = el('progress', { max: 1, value: 0, 'aria-label': 'Decided images' });
  const text = el('span', { class: 'progress-text' });
  return {
    node: el('p', { class: 'progress-line' }, bar, text),
    show(decided, all) {
      bar.max = Math.max(1, all);
      bar.value = decided;
      text.textContent = `${count(decided)} of ${count(all)} decided`;
    },
  };
}
