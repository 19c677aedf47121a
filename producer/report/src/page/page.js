// Starts the page: reads the data, draws each section, and sets up the navigation, the theme and the
// choice of pictures. The last of the scripts.

/** Scrolls to a section and moves the focus there. The address stays, because it holds the list's state. */
function jumpTo(id) {
  const section = byId(id);
  section.focus({ preventScroll: true });
  section.scrollIntoView({ block: 'start' });
}

function drawNavigation(report) {
  const findings = report.findings ?? {};
  const counts = {
    findings: findings.total ?? list(findings.rows).length,
    clusters: list(report.clusters).length,
    tests: list(report.tests).length,
    slices: list(report.slices?.list).length,
    failures: report.overview?.failed ?? sum(list(report.overview?.failures).map((failure) => failure.count)),
    notes: list(report.overview?.notes).length,
  };
  const names = { predictions: 'Predictions', attention: 'Where it looks', clusters: 'Clusters', tests: 'Tests' };
  const sections = [...document.querySelectorAll('main > section')].filter((section) => !section.hidden);
  const links = new Map(sections.map((section) => [section.id, el('a', { href: `#${section.id}` },
    names[section.id] ?? section.querySelector('h2').textContent,
    counts[section.id] !== undefined && el('span', { class: 'nav-count' }, count(counts[section.id])))]));
  byId('nav').append(...[...links.values()].map((link) => el('li', {}, link)));
  document.addEventListener('click', (event) => {
    const target = event.target.closest?.('a[href^="#"]')?.getAttribute('href').slice(1);
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    jumpTo(target);
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const [id, link] of links) {
        if (id !== (entry.target.id || 'overview')) {
          link.removeAttribute('aria-current');
          continue;
        }
        link.setAttribute('aria-current', 'true');
        // On a narrow screen the links lie in one row. Keeps this one in sight.
        const row = byId('nav');
        row.scrollLeft = link.offsetLeft - (row.clientWidth - link.offsetWidth) / 2;
      }
    }
  }, { rootMargin: '-20% 0px -75% 0px' });
  for (const part of [document.querySelector('.masthead'), ...sections]) seen.observe(part);
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
    byId('built').textContent = `The report's data can't be read (${error.message}). Build it again.`;
    return;
  }
  byId('view').addEventListener('change', (event) => setPictureView(event.target.value));
  const findings = new FindingsList(report);
  const show = (filters) => findings.show(filters);
  const parts = [
    ['overview', () => drawHeader(report)],
    ['overview', () => drawOverview(report, show)],
    ['predictions', () => drawPredictions(report, show)],
    ['attention', () => drawAttention(report)],
    ['findings', () => findings.draw()],
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
  drawNavigation(report);
  if (location.hash.includes('=')) jumpTo('findings');
  document.documentElement.dataset.ready = '';
}

start();
