// Starts the page: reads the data, makes the views, and sets up the navigation, the keys, the theme and
// the choice of pictures. The last of the scripts.

// What each view is called in the navigation, where that is not its heading.
const SECTION_NAMES = { summary: 'Summary', overview: 'Numbers', predictions: 'Predictions', attention: 'Where it looks', clusters: 'Clusters', tests: 'Tests' };

/** The report: all sections, one below the other. */
class ReportView {
  constructor(report) {
    this.node = byId('report');
    this.title = `${report.title ?? ''} · Camshaft report`;
  }

  show({ section }, { asked, focus, scrolled }) {
    document.title = this.title;
    drawSummary.refresh?.();
    const target = section ? byId(section) : null;
    if (asked && target && this.node.contains(target)) {
      target.focus({ preventScroll: true });
      target.scrollIntoView({ block: 'start' });
    } else {
      scrollTo(0, asked ? 0 : scrolled);
      if (focus) byId('main').focus({ preventScroll: true });
    }
  }
}

function drawNavigation(report, index) {
  const counts = {
    clusters: list(report.clusters).length,
    tests: list(report.tests).length,
    slices: list(report.slices?.list).length,
    failures: report.overview?.failed ?? sum(list(report.overview?.failures).map((failure) => failure.count)),
    notes: list(report.overview?.notes).length,
  };
  const sections = [...document.querySelectorAll('#report > section')].filter((section) => !section.hidden);
  const link = (id, text, number) => el('a', { href: `#${id}` }, text, number !== undefined && el('span', { class: 'nav-count' }, count(number)));
  const links = new Map(sections.map((section) => [section.id, link(section.id, SECTION_NAMES[section.id] ?? section.querySelector('h2').textContent, counts[section.id])]));
  const { images } = report.overview ?? {};
  const lists = new Map([
    ['work', link('work', 'Work list', index.images)],
    ...(images > 0 ? [['images', link('images', 'All images', images)], ['map', link('map', 'Map')]] : []),
  ]);
  const [first, ...others] = links.values();
  byId('nav').append(...[first, ...lists.values(), ...others].map((one) => el('li', {}, one)));
  let section = 'summary';
  const mark = () => {
    const { view: open, list: scope } = document.body.dataset;
    for (const [id, one] of [...links, ...lists]) {
      if (id !== ({ report: section, map: 'map' }[open] ?? scope)) {
        one.removeAttribute('aria-current');
        continue;
      }
      one.setAttribute('aria-current', 'true');
      // On a narrow screen the links lie in one row. Keeps this one in sight.
      const row = byId('nav');
      row.scrollLeft = one.offsetLeft - (row.clientWidth - one.offsetWidth) / 2;
    }
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) section = entry.target.id || 'summary';
    mark();
  }, { rootMargin: '-20% 0px -75% 0px' });
  for (const part of sections) seen.observe(part);
  new MutationObserver(mark).observe(document.body, { attributeFilter: ['data-view', 'data-list'] });
}

/** Single keys do something unless a field has the focus, or a dialog is open. */
function startKeys(views, router) {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || dialogOpen()) return;
    const { target } = event;
    const letter = event.key.length === 1;
    if (letter && !listensToKeys()) return;
    if (target.closest('select, textarea, input:not([type=checkbox], [type=radio])')) return;
    // Arrows and Home belong to what scrolls, to radio buttons, and to opened menus.
    if (!letter && event.key !== 'Escape' && target.closest('.scroll, input, summary, #nav')) return;
    if (event.key === '?') {
      event.preventDefault();
      showKeys();
    } else if (views[router.open].key?.(event.key)) event.preventDefault();
  });
}

/** Says in every view what the reader should know about the decisions, such as that they are not kept. */
function startNotice(store) {
  const node = byId('unsaved');
  const show = () => {
    node.hidden = !store.notice;
    if (node.textContent !== (store.notice ?? '')) node.textContent = store.notice ?? '';
  };
  store.onchange(show);
  show();
}

function startTheme() {
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');
  const button = byId('theme');
  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : system.matches);
  const show = () => { button.textContent = isDark() ? 'Light theme' : 'Dark theme'; };
  const remembered = memory.get('theme');
  if (remembered === 'dark' || remembered === 'light') root.dataset.theme = remembered;
  button.addEventListener('click', () => {
    root.dataset.theme = isDark() ? 'light' : 'dark';
    memory.set('theme', root.dataset.theme);
    show();
  });
  system.addEventListener('change', show);
  show();
}

function start() {
  startTheme();
  let report;
  try {
    report = JSON.parse(byId('report-data').textContent);
  } catch (error) {
    byId('wrong').textContent = `The report's data can't be read (${error.message}). Build it again.`;
    return;
  }
  byId('view').addEventListener('change', (event) => setPictureView(event.target.value));
  const index = new WorkIndex(list(report.findings?.rows));
  const kindsOf = (key) => (index.entryOf(key) < 0 ? [] : index.kinds(index.entryOf(key)));
  const run = report.run?.id ?? 'unknown';
  const store = served ? new ServedDecisions(run, kindsOf, served.decisions) : new BrowserDecisions(run, kindsOf);
  startNotice(store);
  const deciding = new Deciding(report, index, store);
  const all = new AllImages(index, () => store.all.keys(), (key) => store.all.get(key), list(report.samples));
  const views = { report: new ReportView(report) };
  const router = new Router(views);
  views.work = new WorkList(report, index, all, deciding, router);
  views.image = new Detail(report, index, all, deciding, views.work, router);
  views.map = new MapView(report, index, all, router);
  const show = (filters) => router.go(workAddress({ ...NO_FILTERS, ...filters }));
  const parts = [
    ['summary', () => drawSummary(report, index, deciding)],
    ['overview', () => drawFacts(report)],
    ['overview', () => drawOverview(report)],
    ['predictions', () => drawPredictions(report, show)],
    ['attention', () => drawAttention(report)],
    ['work-view', () => views.work.draw()],
    ['map-view', () => views.map.draw()],
    ['clusters', () => drawClusters(report)],
    ['tests', () => drawTests(report)],
    ['slices', () => drawSlices(report)],
    ['comparison', () => drawComparison(report)],
    ['comparison', () => drawDrift(report)],
    ['failures', () => drawFailures(report)],
    ['speed', () => drawSpeed(report)],
    ['notes', () => drawNotes(report)],
  ];
  for (const [section, draw] of parts) {
    try {
      draw();
    } catch (error) {
      // The other parts are drawn even if one can't be.
      console.error(error);
      bodyOf(section).append(empty(`This part can't be drawn: ${error.message}`));
    }
  }
  drawNavigation(report, index);
  startTerms();
  startKeys(views, router);
  router.show();
  document.documentElement.dataset.ready = '';
}

start();
