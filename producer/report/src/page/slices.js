// The sections about many images at once: slices of the data set, and the drift of its inputs against
// another run. Each slice is a card with its numbers and examples.

function drawSlices(report) {
  const slices = list(report.slices?.list);
  const notes = list(report.slices?.notes);
  const body = bodyOf('slices');
  const rest = notes.length > 0 && el('ul', { class: 'notes' }, notes.map((note) => el('li', {}, note[0].toUpperCase() + note.slice(1))));
  if (slices.length === 0) {
    const alike = [
      report.slices?.tested_accuracy && 'accuracy is alike everywhere as far as labels tell',
      report.slices?.compared_labels && 'no property gives a label away',
    ].filter(Boolean);
    body.append(empty(alike.length > 0 ? `No slice stood out: ${alike.join(', and ')}.` : 'Slices were not looked for.'));
    if (rest) body.append(rest);
    return;
  }
  const weak = slices.filter((slice) => slice.question === 'accuracy');
  const nuisances = slices.filter((slice) => slice.question !== 'accuracy');
  if (weak.length > 0) {
    body.append(
      el('h3', {}, 'Where the model is wrong more often'),
      el('p', { class: 'explain' }, 'Images that share a property, against all other images of the same labels. q is the false discovery rate at which the difference counts as a discovery. A slice that is worse only because of one above it is left out.'),
      ...more(weak, 12, sliceCard, el('ul', { class: 'slices' }), 'slices'));
  }
  if (nuisances.length > 0) {
    body.append(
      el('h3', {}, 'What gives a label away'),
      el('p', { class: 'explain' }, 'A property of the picture from which the label can be guessed. A model may learn it instead of what the label means.'),
      ...more(nuisances, 12, nuisanceCard, el('ul', { class: 'slices' }), 'nuisances'));
  }
  if (rest) body.append(rest);
}

function sliceCard(slice) {
  const interval = isNumber(slice.accuracy_low) && isNumber(slice.accuracy_high) ? `${percent(slice.accuracy_low)} to ${percent(slice.accuracy_high)}` : null;
  return sliceItem(slice, [
    ['Images', count(slice.images)],
    ['Wrong', count(slice.wrong)],
    ['Accuracy', percent(slice.accuracy)],
    [term('interval', '95 % interval'), interval],
    ['Accuracy of the others', percent(slice.rest_accuracy)],
    [term('q'), significance(slice.q)],
  ]);
}

function nuisanceCard(slice) {
  return sliceItem(slice, [
    ['Images', count(slice.images)],
    [term('effect', 'Effect'), slice.class ? effectBar(slice.effect) : null],
    [term('information', 'Share of the label it tells'), percent(slice.information, 0)],
    [term('q'), significance(slice.q)],
  ]);
}

function sliceItem(slice, numbers) {
  const examples = list(slice.examples);
  const property = slice.value ? `${slice.feature} ${slice.value}` : slice.feature;
  return el('li', {},
    el('div', { class: 'cluster-text' },
      el('h4', {}, slice.class ?? 'All labels', el('span', { class: 'quiet-text' }, ` · ${property}`)),
      el('p', { class: 'reason' }, slice.reason),
      pairs(numbers)),
    examples.length > 0 && el('ul', { class: 'gallery', 'aria-label': `Examples: ${slice.reason}` }, gallery(examples)));
}

const DRIFT_TESTS = { 'kolmogorov-smirnov': 'Kolmogorov and Smirnov', 'g-test': 'G-test', classifier: 'Linear classifier' };

function drawDrift(report) {
  const drift = list(report.comparison?.drift);
  if (drift.length === 0) return;
  const drifted = drift.filter((input) => input.drifted).length;
  bodyOf('comparison').append(panel('Inputs', {},
    el('p', { class: 'explain' }, 'Whether the images, labels and embeddings of both runs are alike. The effect of numbers is the largest difference of their distributions, that of names Cramér\u2019s V, and that of embeddings how often a classifier tells the runs apart, where 0.5 is by chance. ',
      el('strong', {}, drifted === 0 ? 'None differs.' : `${count(drifted)} of ${count(drift.length)} differ.`)),
    table('Inputs of both runs', ['Input', 'Differs', 'What it says', 'Here', 'There', term('drift', 'Effect'), term('q'), 'Test'], drift.map((input) =>
      [words(input.input), input.drifted ? 'yes' : 'no', input.drifted ? input.reason : MISSING, decimal(input.here), decimal(input.there), decimal(input.effect), significance(input.q), DRIFT_TESTS[input.test] ?? input.test]), { class: 'drift' })));
}
