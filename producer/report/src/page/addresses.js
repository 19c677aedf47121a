// The addresses after #: which view of the page is open, and what it shows. Owns their form and the
// browser's history; the views draw themselves.
//
//   #predictions                       the report, at a section
//   #work?kind=label-error&label=cat   the work list, filtered
//   #images?sort=brightness&desc=1     all images, filtered and in an order; `like` is a key: those like it,
//                                      `area` a part of the map: those in it; `sample` what was drawn for
//                                      people to judge
//   #map?by=predicted                  the map, and what its colours mean
//   #image?key=cat/a.jpg&kind=…        one image; the rest is the list that it was opened from

const NO_FILTERS = {
  scope: 'work', kind: null, problem: null, label: null, predicted: null, right: null, decision: null, text: '', min: null, like: null, area: null, sample: null, sort: 'rank', descending: false,
};
const NAMED_FILTERS = ['kind', 'problem', 'label', 'predicted', 'right', 'decision', 'like', 'area', 'sample'];
/** The filters of a list that shows everything. */
const everything = (scope) => (scope === 'images' ? { ...NO_FILTERS, scope, sort: 'key' } : NO_FILTERS);
/** The kind of images that nothing was found about. */
const NOTHING = 'nothing';
/** The list of images that are like one. */
const alikeAddress = (key) => workAddress({ ...everything('images'), like: key, sort: 'alike' });

/** The order of a list whose address names none. */
const usualOrder = ({ scope, like }) => (scope !== 'images' ? 'rank' : like === null || like === undefined ? 'key' : 'alike');

function filterFields(filters, fields = new URLSearchParams()) {
  for (const name of NAMED_FILTERS) if (filters[name] !== null && filters[name] !== undefined) fields.set(name, filters[name]);
  if (filters.text) fields.set('q', filters.text);
  if (isNumber(filters.min)) fields.set('min', filters.min);
  if (filters.sort && filters.sort !== usualOrder(filters)) fields.set('sort', filters.sort);
  if (filters.descending) fields.set('desc', 1);
  return fields;
}

function readFilters(fields, scope) {
  const min = Number.parseFloat(fields.get('min') ?? '');
  const sort = fields.get('sort');
  const like = fields.get('like');
  const known = scope === 'images' ? Object.hasOwn(ORDERS, sort ?? '') && (sort !== 'alike' || like !== null) : sort === 'key';
  return {
    ...everything(scope),
    ...Object.fromEntries(NAMED_FILTERS.map((name) => [name, fields.get(name)])),
    text: fields.get('q') ?? '', min: Number.isNaN(min) ? null : min, sort: known ? sort : usualOrder({ scope, like }), descending: scope === 'images' && fields.get('desc') === '1',
  };
}

/** The address of a list with these filters: the work list, or all images. */
function workAddress(filters) {
  const fields = filterFields(filters).toString();
  return fields ? `#${filters.scope}?${fields}` : `#${filters.scope}`;
}

/** The address of an image in the list with these filters. */
function imageAddress(key, filters) {
  const fields = new URLSearchParams({ key });
  if (filters.scope === 'images') fields.set('in', 'images');
  return `#image?${filterFields(filters, fields)}`;
}

/** What an address after # names: `view` is report, work (with a scope of its own), image or map. */
function readAddress(hash) {
  const [, name, rest] = /^#?([^?]*)\??(.*)$/s.exec(hash);
  const fields = new URLSearchParams(rest);
  const scope = name === 'images' || fields.get('in') === 'images' ? 'images' : 'work';
  if (name === 'image' && fields.has('key')) return { view: 'image', key: fields.get('key'), filters: readFilters(fields, scope) };
  if (['work', 'images', 'image'].includes(name)) return { view: 'work', filters: readFilters(fields, scope) };
  if (name === 'map') return { view: 'map', by: fields.get('by') };
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

  /** Back to the list or the map that an image was opened from. */
  leave(hash) {
    if (['work', 'map'].includes(this.before)) history.back();
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
