// The addresses after #: which view of the page is open, and what it shows. Owns their form and the
// browser's history; the views draw themselves.
//
//   #predictions                       the report, at a section
//   #work?kind=label-error&label=cat   the work list, filtered
//   #image?key=cat/a.jpg&kind=…        one image; the rest is the list that it was opened from

const NO_FILTERS = { kind: null, problem: null, label: null, predicted: null, decision: null, text: '', min: null, sort: 'rank' };
const NAMED_FILTERS = ['kind', 'problem', 'label', 'predicted', 'decision'];

function filterFields(filters, fields = new URLSearchParams()) {
  for (const name of NAMED_FILTERS) if (filters[name] !== null && filters[name] !== undefined) fields.set(name, filters[name]);
  if (filters.text) fields.set('q', filters.text);
  if (isNumber(filters.min)) fields.set('min', filters.min);
  if (filters.sort && filters.sort !== 'rank') fields.set('sort', filters.sort);
  return fields;
}

function readFilters(fields) {
  const min = Number.parseFloat(fields.get('min') ?? '');
  return {
    ...NO_FILTERS,
    ...Object.fromEntries(NAMED_FILTERS.map((name) => [name, fields.get(name)])),
    text: fields.get('q') ?? '', min: Number.isNaN(min) ? null : min, sort: fields.get('sort') === 'key' ? 'key' : 'rank',
  };
}

/** The address of the work list with these filters. */
function workAddress(filters) {
  const fields = filterFields(filters).toString();
  return fields ? `#work?${fields}` : '#work';
}

/** The address of an image in the list with these filters. */
const imageAddress = (key, filters) => `#image?${filterFields(filters, new URLSearchParams({ key }))}`;

/** What an address after # names: `view` is report, work or image. */
function readAddress(hash) {
  const [, name, rest] = /^#?([^?]*)\??(.*)$/s.exec(hash);
  const fields = new URLSearchParams(rest);
  if (name === 'image' && fields.has('key')) return { view: 'image', key: fields.get('key'), filters: readFilters(fields) };
  if (name === 'work' || name === 'image') return { view: 'work', filters: readFilters(fields) };
  return { view: 'report', section: name };
}

/**
 * Opens views as the address says. Each of `views` has `node` and `show(address, how)`. In `how`, `asked` is
 * false if the reader goes back or forward: then the view is shown as it was left, at `scrolled`. `focus` tells
 * whether the focus has to move there, and `first` whether the page was opened just now.
 */
class Router {
  constructor(views) {
    this.views = views;
    this.open = null;
    this.asked = true;
    // Where the reader was in each view, by address.
    this.scrolled = new Map();
    this.shown = null;
    history.scrollRestoration = 'manual';
    addEventListener('hashchange', () => this.show());
    addEventListener('scroll', () => { if (this.shown !== null) this.scrolled.set(this.shown, scrollY); }, { passive: true });
    document.addEventListener('click', (event) => {
      const link = event.target.closest?.('a[href^="#"]');
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      // The link past the navigation leads into the view that is open.
      if (link.hash === '#main') byId('main').focus();
      else this.go(link.getAttribute('href'));
    });
  }

  /** Goes to an address as a link does. */
  go(hash) {
    this.asked = true;
    // The same address again is no change, but may be asked for: the page may have been scrolled.
    if (hash === location.hash) this.show();
    else location.hash = hash;
  }

  /** Goes to an address that takes the place of this one: back leads to the one before. */
  replace(hash) {
    history.replaceState(null, '', hash);
    this.asked = true;
    this.show();
  }

  /** Writes the address of what is shown already. */
  note(hash, push) {
    if (hash === location.hash) return;
    if (push) history.pushState(null, '', hash);
    else history.replaceState(null, '', hash);
    this.shown = location.hash;
  }

  /** Back to the list that an image was opened from. */
  leave(hash) {
    if (this.before === 'work') history.back();
    else this.replace(hash);
  }

  show() {
    const address = readAddress(location.hash);
    const { asked } = this;
    this.asked = false;
    // When the page is opened, the focus stays at its top.
    const first = this.open === null;
    const changed = this.open !== address.view;
    // What follows may scroll the page, which is not the reader's doing.
    this.shown = null;
    if (changed) {
      this.before = this.open;
      this.open = address.view;
      for (const [name, view] of Object.entries(this.views)) view.node.hidden = name !== address.view;
      document.body.dataset.view = address.view;
    }
    this.views[address.view].show(address, { asked, focus: changed && !first, first, scrolled: this.scrolled.get(location.hash) ?? 0 });
    this.shown = location.hash;
  }
}
