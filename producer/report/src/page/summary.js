// The first screen: what is wrong in one sentence, the worst findings as pictures, what to do next, and
// whether the maps can be trusted. Reads counts and findings; decides nothing.

const WORST = 6;
// Kinds that the first sentence names.
const SAID_PARTS = 3;
const SPLIT_NAMES = { val: 'validation', valid: 'validation', validation: 'validation', dev: 'validation', test: 'test', testing: 'test' };

/** How many findings there are of a kind, or of one of its problems. */
function countOf(findings, kind, problem) {
  return sum(list(findings?.counts).filter((entry) => entry.kind === kind && (problem === undefined || entry.problem === problem)).map((entry) => entry.count));
}

/** `validation` or `test` if that is where all leaks lead; else null. */
function leakedInto(rows) {
  const splitOf = (key) => String(key ?? '').toLowerCase().split('/').slice(0, -1).map((part) => SPLIT_NAMES[part]).find(Boolean);
  const splits = new Set();
  for (const row of rows) if (row.problem === 'leak') splits.add(splitOf(row.key) ?? splitOf(row.other));
  return splits.size === 1 ? [...splits][0] ?? null : null;
}

/** What is wrong, in one sentence: the gravest first. */
function wrongSentence(report) {
  const findings = report.findings ?? {};
  const of = (kind, problem) => countOf(findings, kind, problem);
  const are = (number, one, many) => (number > 0 ? [number, `${count(number)} ${number === 1 ? one : many}`] : null);
  const leaks = of('duplicate', 'leak');
  const groups = findings.duplicate_groups > 0 ? findings.duplicate_groups : 0;
  const into = leakedInto(list(findings.rows));
  const leaking = leaks > 0 && `${leaks === of('duplicate') ? 'all' : count(leaks)} of which ${leaks === 1 ? 'leaks' : 'leak'} ${into ? `into ${into}` : 'between splits'}`;
  const failed = Math.max(report.overview?.failed ?? 0, of('failure'));
  const parts = [
    are(of('label-error'), 'label looks wrong', 'labels look wrong'),
    of('duplicate') > 0 && [of('duplicate'), [counted(of('duplicate'), 'duplicate'), groups > 0 && ` in ${counted(groups, 'group')}`, leaking && `, ${leaking}`].filter(Boolean).join('')],
    are(failed, 'file can\u2019t be read', 'files can\u2019t be read'),
    are(of('shortcut'), 'group of images may give its class away', 'groups of images may give their class away'),
    are(of('image-problem'), 'picture is hard to learn from', 'pictures are hard to learn from'),
    are(of('outlier'), 'picture is unlike all others', 'pictures are unlike all others'),
    are(of('attention'), 'picture is looked at in an odd place', 'pictures are looked at in odd places'),
    are(of('wrong'), 'sure mistake', 'sure mistakes'),
  ].filter(Boolean);
  if (parts.length === 0) return report.overview?.images > 0 ? `Nothing looks wrong in ${counted(report.overview.images, 'image')}.` : 'There are no results to look at.';
  // More would be no sentence that is read. What is left is counted, and said below.
  const said = parts.slice(0, parts.length === SAID_PARTS + 1 ? SAID_PARTS + 1 : SAID_PARTS).map(([, text]) => text);
  const rest = sum(parts.slice(said.length).map(([number]) => number));
  if (rest > 0) said.push(`${count(rest)} other findings`);
  const sentence = said.length === 1 ? said[0] : `${said.slice(0, -1).join(said.some((part) => part.includes(',')) ? '; ' : ', ')}${said.length > 2 ? ',' : ''} and ${said.at(-1)}`.replace(/;([^;]*),( and [^;]*)$/, ';$1;$2');
  return `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`;
}

/** The most urgent entries that have a picture: of each kind one, then of each a second one, and so on. */
function worstEntries(index) {
  const byKind = new Map();
  const seen = new Set();
  for (const [at, row] of index.rows.entries()) {
    const kind = index.kind.values[at];
    const own = byKind.get(kind) ?? [];
    if (own.length === WORST) continue;
    const entry = index.entryOf(row.key);
    if (seen.has(entry) || pictureSources(index.facts(entry), false).length === 0) continue;
    seen.add(entry);
    own.push({ entry, kind: row.kind });
    byKind.set(kind, own);
  }
  const worst = [];
  for (let turn = 0; turn < WORST; turn += 1) for (const own of byKind.values()) if (own[turn] && worst.length < WORST) worst.push(own[turn]);
  return worst;
}

const NEXT_STEPS = {
  'label-error': 'Check the labels',
  duplicate: 'Drop the copies',
  failure: 'Replace or remove files that can\u2019t be read',
  'image-problem': 'Look at poor pictures',
  outlier: 'Look at what does not belong',
  attention: 'See where the model looks oddly',
  shortcut: 'See what may give a class away',
  wrong: 'Look at sure mistakes',
};

/** `addressOf(filters)` leads into the work list. */
function drawSummary(report, index, deciding) {
  const body = bodyOf('summary');
  byId('wrong').textContent = wrongSentence(report);
  const worst = worstEntries(index);
  if (worst.length > 0) {
    body.append(el('ul', { class: 'worst', 'aria-label': 'The worst findings' }, worst.map(({ entry, kind }) => {
      const link = workTile(index, entry, { address: imageAddress(index.keys[entry], { ...NO_FILTERS, kind }), kind, decision: null, heat: true });
      const what = link.querySelector('.tile-words');
      if (what.textContent !== kindSingular(kind)) what.prepend(el('strong', {}, kindSingular(kind)), ' ');
      return el('li', { class: 'tile' }, link);
    })));
  }
  const steps = drawSteps(report, index);
  body.append(el('div', { class: 'summary-parts' }, steps, panel('Can the maps be trusted?', { class: 'trust' }, trustSentence(report.trust))));
  const showDecided = () => {
    const decided = new Map();
    for (let entry = 0; entry < index.images; entry += 1) {
      if (index.decided[entry] === 0) continue;
      for (const kind of new Set(index.findings(entry).map((row) => row.kind))) decided.set(kind, (decided.get(kind) ?? 0) + 1);
    }
    for (const node of steps.querySelectorAll('[data-decided]')) node.textContent = decided.has(node.dataset.decided) ? `${counted(decided.get(node.dataset.decided), 'image')} decided` : '';
  };
  deciding.store.onchange(() => {
    // A hundred thousand decisions are counted when the summary is looked at.
    if (!byId('report').hidden) showDecided();
  });
  drawSummary.refresh = showDecided;
  showDecided();
}

/** The number of findings by kind and by problem; each kind and problem is a link into the list. */
function drawSteps(report) {
  const counts = list(report.findings?.counts).filter((entry) => entry.count > 0);
  if (counts.length === 0) return panel('What to do next', {}, el('p', { class: 'empty' }, 'Nothing was found. The notes at the end say what was not looked for.'));
  const kinds = [...new Set(counts.map((entry) => entry.kind))].sort((a, b) => kindOrder(a) - kindOrder(b));
  return panel('What to do next', { class: 'next' }, el('ul', { class: 'steps-list' }, kinds.map((kind) => {
    const own = counts.filter((entry) => entry.kind === kind);
    const problems = own.filter((entry) => entry.problem);
    return el('li', {},
      el('a', { class: 'step', href: workAddress({ ...NO_FILTERS, kind }) },
        el('span', { class: `dot ${kind}` }), el('span', { class: 'step-name' }, NEXT_STEPS[kind] ?? kindPlural(kind)), el('span', { class: 'step-count' }, count(sum(own.map((entry) => entry.count))))),
      problems.length > 0
        ? el('ul', { class: 'step-problems' }, problems.map((entry) => el('li', {}, el('a', { href: workAddress({ ...NO_FILTERS, kind, problem: entry.problem }) }, words(entry.problem)), ' ', count(entry.count))))
        : el('p', { class: 'quiet-text' }, kindMeaning(kind)),
      el('p', { class: 'quiet-text', 'data-decided': kind }));
  })));
}

const VERDICT_WORDS = { passed: 'passed', failed: 'failed', unclear: 'unclear' };

/** What trust.json says of the maps: a sentence, and the numbers behind it. */
function trustSentence(trust) {
  const maps = list(trust?.maps);
  if (maps.length === 0) return el('p', {}, 'That was not measured. ', el('code', {}, 'camshaft audit … --trust-sample 100'), ' measures it, and a report that is built afterwards says it here.');
  const verdicts = maps.flatMap((map) => [map.road_verdict, map.head_verdict, map.last_stage_verdict]);
  const warnings = maps.flatMap((map) => list(map.warnings));
  const measured = `As far as ${counted(trust.images, 'image')} tell`;
  const sentence = verdicts.includes('failed')
    ? `Be careful with them: ${warnings[0] ?? 'a check of the maps failed'}.`
    : verdicts.includes('unclear')
      ? `${measured}, it is not clear: ${warnings[0] ?? 'a larger sample may tell'}.`
      : `${measured}, yes: what they show is what the prediction depends on, better than random maps, and they change with what the network has learnt.`;
  const range = (estimate) => (isNumber(estimate?.low) && isNumber(estimate?.high) ? `${decimal(estimate.mean)} (${decimal(estimate.low)} to ${decimal(estimate.high)})` : decimal(estimate?.mean));
  const judged = (estimate, verdict) => `${range(estimate)}, ${VERDICT_WORDS[verdict] ?? verdict}`;
  return [
    el('p', {}, sentence.replace(/\.\.$/, '.')),
    el('details', {}, el('summary', {}, 'The numbers'),
      maps.map((map) => [
        el('h4', {}, `${map.method} at ${map.layer}`),
        pairs([
          [term('ROAD'), judged(map.road, map.road_verdict)], ['the same of random maps', range(map.random_road)],
          [term('rank', 'Likeness without the learnt head'), judged(map.head, map.head_verdict)],
          [term('rank', 'Likeness without the learnt last stage'), judged(map.last_stage, map.last_stage_verdict)],
        ]),
      ]),
      warnings.length > 0 && el('ul', { class: 'notes' }, warnings.map((warning) => el('li', {}, warning)))),
  ];
}
