// The sections about groups of images: clusters of attention, attention tests, the comparison with
// another run, and failures by kind. The pictures follow the page-wide choice of view.

function drawClusters(report) {
  const clusters = list(report.clusters);
  const body = bodyOf('clusters');
  if (clusters.length === 0) {
    body.append(empty('No clusters: there were too few maps of a class to group, or none stood out.'));
    return;
  }
  const flagged = clusters.filter((cluster) => cluster.shortcut).length;
  const cards = el('ul', { class: 'clusters' });
  const ordered = [...clusters].sort((a, b) => Boolean(b.shortcut) - Boolean(a.shortcut) || String(a.class).localeCompare(String(b.class)) || (b.images ?? 0) - (a.images ?? 0));
  body.append(
    el('p', { class: 'explain' }, 'Images of a class whose maps look alike. If the model looks at an odd place in a cluster, and is surer of its images than of others, it may have learned a shortcut: a watermark, a frame, a backdrop. ',
      el('strong', {}, flagged === 0 ? 'None is flagged.' : `${count(flagged)} of ${count(clusters.length)} flagged.`)),
    // Clusters that nothing speaks against are there to be looked up.
    ...(flagged > 0 ? more(ordered, 12, clusterCard, cards, 'clusters') : [el('details', { class: 'folded' }, el('summary', {}, `Show ${counted(clusters.length, 'cluster')}`), more(ordered, 12, clusterCard, cards, 'clusters'))]));
}

function clusterCard(cluster) {
  const name = `Mean map of cluster ${cluster.id}`;
  const examples = list(cluster.examples);
  return el('li', { class: `cluster ${cluster.shortcut ? 'flagged' : ''}` },
    el('div', { class: 'cluster-map' }, mapGrid(cluster.map, name)),
    el('div', { class: 'cluster-text' },
      el('h3', {}, cluster.class ?? 'Any class', cluster.place && el('span', { class: 'quiet-text' }, ` · ${cluster.place}`)),
      el('p', { class: 'card-head' }, cluster.shortcut && el('span', { class: 'chip' }, el('span', { class: 'dot shortcut' }), PROOF_CHIPS[cluster.proof?.verdict] ?? 'Possible shortcut'), el('span', { class: 'quiet-text' }, `Cluster ${cluster.id}`)),
      cluster.reason && el('p', { class: 'reason' }, cluster.reason),
      pairs([
        ['Images', count(cluster.images)],
        ['Share of the class', percent(cluster.share)],
        ['Accuracy', percent(cluster.accuracy)],
        ['Mean probability', percent(cluster.mean_probability)],
        ['Mean probability of the rest', percent(cluster.rest_mean_probability)],
        [term('q'), significance(cluster.q)],
        ...proofPairs(cluster.proof),
        ...refitPairs(cluster.refit),
      ]),
      mapNumbers(cluster.map, name)),
    examples.length > 0 && el('ul', { class: 'gallery', 'aria-label': `Examples of cluster ${cluster.id}` }, gallery(examples)));
}

const PROOF_CHIPS = { confirmed: 'Confirmed shortcut', refuted: 'Refuted shortcut', undecided: 'Possible shortcut, undecided' };

/** What --prove-shortcuts measured of a cluster. */
function proofPairs(proof) {
  if (!proof) return [];
  const flips = (effect) => `${count(effect?.flips)} (${interval(effect?.rate)})`;
  return [
    ['Images of other classes', count(proof.sample?.measured)],
    ['Changed by its patch', flips(proof.patch)],
    ['Changed by random places', [flips(proof.random_place), ', ', term('p'), ` ${significance(proof.random_place?.p)}`]],
    ['Changed by usual places', [flips(proof.usual_place), ', ', term('p'), ` ${significance(proof.usual_place?.p)}`]],
    ['Rise of the probability', interval(proof.patch?.probability_rise)],
  ];
}

/** What heads learn with and without the images of a cluster. */
function refitPairs(refit) {
  if (!refit) return [];
  return [
    ['Head fitted without it', `${percent(refit.accuracy_without)} of ${count(refit.images)} others`],
    ['Head fitted with it', percent(refit.accuracy_with)],
  ];
}

/** A share with its confidence interval. */
function interval(estimate) {
  const ends = isNumber(estimate?.low) && isNumber(estimate?.high) ? `, ${percent(estimate.low)} to ${percent(estimate.high)}` : '';
  return `${percent(estimate?.mean)}${ends}`;
}

function drawTests(report) {
  const tests = list(report.tests);
  const body = bodyOf('tests');
  if (tests.length === 0) {
    body.append(empty('No test of attention stood out, or there were too few maps to test.'));
    return;
  }
  const ordered = [...tests].sort((a, b) => (a.q ?? 1) - (b.q ?? 1) || Math.abs((b.effect ?? 0.5) - 0.5) - Math.abs((a.effect ?? 0.5) - 0.5));
  const head = () => ['Class', 'Measure', term('effect', 'Effect'), term('q'), 'Images', 'What it says'];
  const rows = (some) => some.map((test) => [test.class ?? MISSING, test.measure ?? MISSING, effectBar(test.effect), significance(test.q), count(test.count), test.reason ?? '']);
  const shown = ordered.slice(0, 30);
  const holder = el('div', { class: 'sheet' }, table('Attention tests', head(), rows(shown), { class: 'tests' }));
  body.append(
    el('p', { class: 'explain' }, 'Does the model look at a place more for one class than for the others? The effect is the chance that one of the class\u2019s maps has more attention there than one of the others\u2019: 0.5 is no difference. q is the false discovery rate at which the test counts as a discovery.'),
    holder);
  if (ordered.length > shown.length) {
    const button = el('button', { type: 'button', on: { click: () => {
      holder.replaceChildren(table('Attention tests', head(), rows(ordered), { class: 'tests' }));
      foot.remove();
      holder.firstChild.focus();
    } } }, `Show all ${count(ordered.length)}`);
    const foot = el('p', { class: 'more' }, button);
    body.append(foot);
  }
}

/** An effect, 0 to 1, as a number and as a bar that starts in the middle. */
function effectBar(effect) {
  if (!isNumber(effect)) return el('span', {}, MISSING);
  const bar = el('span', { class: effect < 0.5 ? 'less' : 'more-than' });
  bar.style.width = `${Math.min(50, Math.abs(effect - 0.5) * 100)}%`;
  return el('span', { class: 'effect' }, el('span', { class: 'effect-number' }, decimal(effect)), el('span', { class: 'effect-track', 'aria-hidden': 'true' }, bar));
}

function drawComparison(report) {
  const comparison = report.comparison;
  if (!comparison) return;
  byId('comparison').hidden = false;
  if (comparison.both === 0) {
    bodyOf('comparison').append(el('p', { class: 'explain' }, 'Against ', el('code', {}, comparison.against ?? 'another run'), `: no image is predicted in both runs (${count(comparison.only_here)} here, ${count(comparison.only_there)} there), so that only their inputs are compared.`));
    return;
  }
  const flows = list(comparison.flows);
  const moved = list(comparison.moved);
  const gain = isNumber(comparison.accuracy_here) && isNumber(comparison.accuracy_there) ? comparison.accuracy_here - comparison.accuracy_there : null;
  bodyOf('comparison').append(
    el('p', { class: 'explain' }, 'Against ', el('code', {}, comparison.against ?? 'another run'), ': ',
      `${counted(comparison.both, 'image')} in both, ${count(comparison.only_here)} only here, ${count(comparison.only_there)} only there.`,
      comparison.relabelled > 0 && ` ${counted(comparison.relabelled, 'image')} had another label there: each run is judged by its own labels.`),
    el('dl', { class: 'tiles' },
      tile('Changed predictions', count(comparison.changed), comparison.both > 0 && isNumber(comparison.changed) && `${percent(comparison.changed / comparison.both)} of both`),
      tile('Accuracy here', percent(comparison.accuracy_here), gain !== null && `${gain >= 0 ? '+' : '−'}${decimal(Math.abs(gain) * 100, 1)} points`),
      tile('Accuracy there', percent(comparison.accuracy_there)),
      tile('Fixed', count(comparison.fixed), 'Wrong there, right here'),
      tile('Broken', count(comparison.broken), 'Right there, wrong here'),
      tile(term('p'), significance(comparison.p), 'Chance of such a difference by luck')),
    panel('Changes of class', {}, flows.length > 0
      ? bars('Changed predictions', flows.map((flow) => ({ name: `${flow.from} → ${flow.to}`, value: flow.count ?? 0, text: count(flow.count) })))
      : empty('No prediction changed.')),
    panel('Images whose map changed most', {}, moved.length > 0
      ? more(moved, 12, (image) => gallery([image], movedLine)[0], el('ul', { class: 'gallery' }), 'images')
      : empty('No image has a map in both runs.')));
}

function movedLine(image) {
  return el('p', { class: 'quiet-text' }, `${image.before ?? MISSING} → ${image.now ?? MISSING}`, image.label && ` · given ${image.label}`, isNumber(image.distance) && [' · ', term('apart', `${decimal(image.distance)} apart`)]);
}

const FAILURES = {
  undecodable: 'Corrupt, truncated or empty, or too slow to decode.',
  unsupported: 'Not an image, or in a format that is not supported.',
  'too-large': 'More bytes, pixels or memory than the run allows.',
  'not-found': 'Deleted since it was listed.',
  'access-denied': 'The store denied access.',
  'explain-failed': 'The model gave no finite numbers, or lacks the class to explain.',
};

function drawFailures(report) {
  const failures = list(report.overview?.failures);
  const body = bodyOf('failures');
  if (failures.length === 0) {
    body.append(empty('No image failed.'));
    return;
  }
  body.append(...failures.map((failure) => {
    const examples = list(failure.examples);
    return panel([words(failure.class), el('span', { class: 'heading-count' }, count(failure.count))], { class: 'failure' },
      FAILURES[failure.class] && el('p', { class: 'explain' }, FAILURES[failure.class]),
      el('ul', { class: 'failed' }, examples.map((example) => el('li', {},
        el('p', { class: 'key' }, el('a', { href: failureHref(example.key) }, keyName(example.key))), example.message && el('p', { class: 'quiet-text' }, example.message)))),
      failure.count > examples.length && el('p', { class: 'quiet-text' }, `${count(failure.count - examples.length)} more; all are in failures/.`));
  }));
}
