// The list of findings: filters, order, pages, and which findings are done. findings-index.js does the
// filtering. Owns the state of the list; the address after # holds it too, so that a link leads to the
// same page.

const PAGE_SIZES = [25, 50, 100, 200];
const NO_FILTERS = { kind: null, problem: null, label: null, predicted: null, text: '', min: null, open: false, sort: 'rank' };

class FindingsList {
  constructor(report) {
    const findings = report.findings ?? {};
    this.index = new FindingsIndex(list(findings.rows));
    this.total = findings.total ?? this.index.rows.length;
    this.runId = report.run?.id ?? 'unknown';
    this.state = { ...NO_FILTERS, page: 1, size: 50 };
    this.found = this.index.rows;
    this.readDone();
  }

  // Which findings are done: kept in the browser's storage, by run.

  readDone() {
    let stored = [];
    try {
      stored = list(JSON.parse(memory.get(`done:${this.runId}`) ?? '[]'));
    } catch {
      // The stored text is not a list. The next mark overwrites it.
    }
    this.doneIds = new Set(stored);
    if (this.doneIds.size === 0) return;
    this.index.rows.forEach((row, at) => { this.index.done[at] = this.doneIds.has(findingIdentity(row)) ? 1 : 0; });
  }

  markDone(at, checked) {
    const identity = findingIdentity(this.index.rows[at]);
    this.index.done[at] = checked ? 1 : 0;
    if (checked) this.doneIds.add(identity);
    else this.doneIds.delete(identity);
    memory.set(`done:${this.runId}`, JSON.stringify([...this.doneIds]));
    this.showDone();
  }

  // The parts of the section.

  draw() {
    const body = bodyOf('findings');
    if (this.index.rows.length === 0) {
      body.append(empty('Nothing was found. The notes at the end say what was not looked for.'));
      return;
    }
    this.status = el('p', { class: 'result', role: 'status' });
    this.doneCount = el('span', { class: 'quiet-text' });
    this.cards = el('ol', { class: 'cards', id: 'finding-cards', tabindex: -1, 'aria-label': 'Findings on this page' });
    this.pagers = [this.pager('Pages'), this.pager('Pages, below the list')];
    if (this.total > this.index.rows.length) body.append(el('p', { class: 'notice' }, `${count(this.total)} were found; the first ${count(this.index.rows.length)} are listed here.`));
    body.append(
      this.filters(),
      el('div', { class: 'list-head' }, el('div', {}, this.status, this.doneCount), this.pagers[0].node),
      this.cards,
      this.pagers[1].node,
    );
    this.readHash();
    this.update();
    pictureView.listeners.add((view) => {
      for (const card of this.cards.children) card.setPictureView?.(view);
      this.writeHash();
    });
    addEventListener('hashchange', () => {
      if (this.readHash()) this.update();
    });
    this.keys();
  }

  filters() {
    const { index } = this;
    const set = (name, read) => ({ on: { change: (event) => this.set({ [name]: read(event.target.value) }) } });
    const picker = (name, text, column) => this.field(text, el('select', { id: `filter-${name}`, ...set(name, (value) => (value === '' ? null : column.names[Number(value)] ?? '')) }, this.options(column)));
    const later = (name, read) => {
      let waiting = 0;
      return (event) => {
        clearTimeout(waiting);
        waiting = setTimeout(() => this.set({ [name]: read(event.target.value) }), 150);
      };
    };
    this.kinds = index.kind.names.slice(1).sort((a, b) => kindOrder(a) - kindOrder(b)).map((kind) => ({ kind, count: el('span', { class: 'pill-count' }) }));
    this.allCount = el('span', { class: 'pill-count' });
    this.meaning = el('p', { class: 'quiet-text meaning' });
    const pill = (kind, text, counter) => el('label', {},
      el('input', { type: 'radio', name: 'kind', value: kind ?? '', prop: { checked: kind === null }, on: { change: () => this.set({ kind, problem: null }) } }),
      el('span', {}, kind !== null && el('span', { class: `dot ${kind}` }), text, ' ', counter));
    this.problemSelect = el('select', { id: 'filter-problem', on: { change: (event) => this.set({ problem: event.target.value === '' ? null : event.target.value }) } });
    this.shortcuts = el('input', { type: 'checkbox', id: 'shortcuts', prop: { checked: memory.get('shortcuts') !== 'off' }, on: { change: (event) => memory.set('shortcuts', event.target.checked ? 'on' : 'off') } });
    return el('form', { class: 'filters', 'aria-label': 'Filters', on: { submit: (event) => event.preventDefault() } },
      el('fieldset', { class: 'pills' }, el('legend', { class: 'unseen' }, 'Kind'), pill(null, 'All', this.allCount), this.kinds.map(({ kind, count: counter }) => pill(kind, kindPlural(kind), counter))),
      this.meaning,
      el('div', { class: 'fields' },
        this.field('Search keys and reasons', el('input', { type: 'search', id: 'filter-text', autocomplete: 'off', spellcheck: 'false', on: { input: later('text', (value) => value.trim()) } }), 'wide'),
        this.field('Problem', this.problemSelect),
        picker('label', 'Given label', index.label),
        picker('predicted', 'Predicted', index.predicted),
        this.field('Minimum score', el('input', { type: 'number', id: 'filter-min', step: 'any', inputmode: 'decimal', placeholder: 'any', on: { input: later('min', (value) => (value === '' || Number.isNaN(Number(value)) ? null : Number(value))) } }), 'small'),
        this.field('Order', el('select', { id: 'filter-sort', ...set('sort', String) }, ['rank', 'score', 'key'].map((sort) => el('option', { value: sort }, `By ${sort}`))), 'small'),
        this.field('Per page', el('select', { id: 'filter-size', ...set('size', Number) }, PAGE_SIZES.map((size) => el('option', { value: size }, count(size)))), 'small')),
      el('div', { class: 'filter-actions' },
        el('label', { class: 'check' }, el('input', { type: 'checkbox', id: 'filter-open', on: { change: (event) => this.set({ open: event.target.checked }) } }), 'Hide findings that are done'),
        el('button', { type: 'button', id: 'reset', on: { click: () => this.set({ ...NO_FILTERS }) } }, 'Clear filters'),
        el('button', { type: 'button', id: 'export', on: { click: () => this.export() } }, 'Export as CSV'),
        el('details', { class: 'help' }, el('summary', {}, 'Keys'),
          el('div', {},
            el('dl', { class: 'pairs' }, [['n or →', 'next page'], ['p or ←', 'previous page'], ['/', 'search'], ['v', 'image, overlay or both']].map(([key, text]) => el('div', {}, el('dt', {}, el('kbd', {}, key)), el('dd', {}, text)))),
            el('label', { class: 'check' }, this.shortcuts, 'Listen to these keys')))));
  }

  field(text, control, size) {
    return el('div', { class: `field ${size ?? ''}` }, el('label', { for: control.id }, text), control);
  }

  options(column) {
    const named = column.names.map((name, number) => [name, number]).slice(1).sort(([a], [b]) => String(a).localeCompare(String(b)));
    const none = column.values.includes(0);
    return [el('option', { value: '' }, 'Any'), named.map(([name, number]) => el('option', { value: number }, name)), none && el('option', { value: 0 }, '(none)')];
  }

  pager(label) {
    const button = (text, name, target) => el('button', { type: 'button', 'aria-label': name, on: { click: (event) => {
      if (event.currentTarget.getAttribute('aria-disabled') !== 'true') this.goTo(target(), label !== 'Pages');
    } } }, text);
    const back = [button('«', 'First page', () => 1), button('‹ Prev', 'Previous page', () => this.state.page - 1)];
    const on = [button('Next ›', 'Next page', () => this.state.page + 1), button('»', 'Last page', () => this.pages())];
    const place = el('span', { class: 'place' });
    return { node: el('nav', { class: 'pager', 'aria-label': label }, back, place, on), back, on, place };
  }

  // The state, and what is shown of it.

  set(changes) {
    this.state = { ...this.state, page: 1, ...changes };
    this.update();
    this.writeHash();
  }

  /** For links from other sections: sets exactly these filters, and scrolls to the list. */
  show(filters) {
    if (this.cards) this.set({ ...NO_FILTERS, ...filters });
    jumpTo('findings');
  }

  pages() {
    return Math.max(1, Math.ceil(this.found.length / this.state.size));
  }

  goTo(page, intoView) {
    const next = Math.min(this.pages(), Math.max(1, page));
    if (next === this.state.page) return;
    const inside = this.cards.contains(document.activeElement);
    this.state.page = next;
    this.drawPage();
    this.writeHash();
    if (inside) this.cards.focus({ preventScroll: true });
    if (intoView || inside) this.status.closest('.list-head').scrollIntoView({ block: 'start' });
  }

  update() {
    const { rows, kindCounts } = this.index.query(this.state);
    this.found = rows;
    this.allCount.textContent = count(sum([...kindCounts]));
    for (const { kind, count: counter } of this.kinds) counter.textContent = count(kindCounts[this.index.kind.numberOf(kind)]);
    this.state.page = Math.min(this.state.page, this.pages());
    this.showState();
    this.drawPage();
  }

  /** Writes the state into the controls, except the one that the reader is typing in. */
  showState() {
    const { state, index } = this;
    const put = (id, value) => {
      const control = byId(id);
      if (control !== document.activeElement || control.tagName === 'SELECT') control.value = value;
    };
    const number = (column, name) => (name === null ? '' : String(column.numberOf(name)));
    for (const input of document.querySelectorAll('#findings input[name=kind]')) input.checked = input.value === (state.kind ?? '');
    this.meaning.textContent = state.kind ? kindMeaning(state.kind) : 'The most urgent findings come first.';
    this.problemSelect.replaceChildren(el('option', { value: '' }, 'Any'), ...this.problemsOf(state.kind).map((problem) => el('option', { value: problem }, words(problem))));
    this.problemSelect.value = state.problem ?? '';
    put('filter-label', number(index.label, state.label));
    put('filter-predicted', number(index.predicted, state.predicted));
    put('filter-text', state.text);
    put('filter-min', state.min ?? '');
    put('filter-sort', state.sort);
    put('filter-size', state.size);
    byId('filter-open').checked = state.open;
  }

  problemsOf(kind) {
    this.problems ??= this.collectProblems();
    return this.problems.get(kind) ?? [];
  }

  /** The problems of each kind, and under null those of all kinds. */
  collectProblems() {
    const { kind, problem } = this.index;
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

  drawPage() {
    const { page, size } = this.state;
    const from = (page - 1) * size;
    const shown = [...this.found.subarray(from, from + size)];
    this.cards.start = from + 1;
    this.cards.replaceChildren(...shown.map((at) => findingCard(this.index.rows[at], { done: this.index.done[at] === 1, onDone: (checked) => this.markDone(at, checked) })));
    if (shown.length === 0) this.cards.append(el('li', { class: 'empty' }, 'No finding passes these filters.'));
    const all = this.index.rows.length;
    this.status.replaceChildren(el('strong', {}, count(this.found.length)), this.found.length === all ? ` ${all === 1 ? 'finding' : 'findings'}` : ` of ${counted(all, 'finding')}`,
      this.found.length > size ? `, ${count(from + 1)} to ${count(from + shown.length)} shown` : '');
    for (const pager of this.pagers) {
      pager.place.textContent = `Page ${count(page)} of ${count(this.pages())}`;
      for (const button of pager.back) button.setAttribute('aria-disabled', page === 1);
      for (const button of pager.on) button.setAttribute('aria-disabled', page === this.pages());
    }
    this.pagers[1].node.hidden = this.pages() === 1;
    this.showDone();
  }

  showDone() {
    const done = this.index.done.reduce((total, one) => total + one, 0);
    this.doneCount.textContent = done > 0 ? `${count(done)} done, as remembered by this browser` : '';
  }

  // The address.

  writeHash() {
    const { state } = this;
    const fields = new URLSearchParams();
    for (const name of ['kind', 'problem', 'label', 'predicted']) if (state[name] !== null) fields.set(name, state[name]);
    if (state.text) fields.set('q', state.text);
    if (state.min !== null) fields.set('min', state.min);
    if (state.open) fields.set('open', '1');
    if (state.sort !== 'rank') fields.set('sort', state.sort);
    if (state.size !== 50) fields.set('size', state.size);
    if (state.page > 1) fields.set('page', state.page);
    if (pictureView.current !== 'both') fields.set('view', pictureView.current);
    history.replaceState(null, '', `#${fields}`);
  }

  /** Returns whether the address held a state of the list. The name of a section is not a state. */
  readHash() {
    const hash = location.hash.slice(1);
    if (!hash.includes('=')) return false;
    const fields = new URLSearchParams(hash);
    const whole = (name, otherwise) => (/^\d{1,9}$/.test(fields.get(name) ?? '') ? Number(fields.get(name)) : otherwise);
    const min = Number.parseFloat(fields.get('min') ?? '');
    const size = whole('size', 50);
    this.state = {
      kind: fields.get('kind'), problem: fields.get('problem'), label: fields.get('label'), predicted: fields.get('predicted'),
      text: fields.get('q') ?? '', min: Number.isNaN(min) ? null : min, open: fields.get('open') === '1',
      sort: ['rank', 'score', 'key'].includes(fields.get('sort')) ? fields.get('sort') : 'rank',
      size: PAGE_SIZES.includes(size) ? size : 50, page: Math.max(1, whole('page', 1)),
    };
    setPictureView(fields.get('view') ?? 'both');
    return true;
  }

  export() {
    const address = URL.createObjectURL(new Blob([csvOf(this.index, this.found)], { type: 'text/csv;charset=utf-8' }));
    el('a', { href: address, download: 'findings.csv' }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  /** Listens to keys in the list and while nothing has the focus, never in a field. */
  keys() {
    document.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.shortcuts.checked) return;
      const target = event.target;
      if (target.closest('select, textarea, input:not([type=checkbox]), .scroll')) return;
      if (target !== document.body && !target.closest('#findings, #main')) return;
      const act = { n: () => this.goTo(this.state.page + 1, true), p: () => this.goTo(this.state.page - 1, true), '/': () => byId('filter-text').focus(), v: () => setPictureView(VIEWS[(VIEWS.indexOf(pictureView.current) + 1) % 3]) };
      act.ArrowRight = act.n;
      act.ArrowLeft = act.p;
      if (!act[event.key]) return;
      event.preventDefault();
      act[event.key]();
    });
  }
}
