// The sections with the numbers of the run: facts, tiles, calibration, confusion, confidence, mean
// maps, speed and notes. Reads `report.run` and `report.overview`, and says what is missing in them.

/** The facts about the run, at the end of the page. */
function drawFacts(report) {
  const run = report.run ?? {};
  const facts = [
    ['Source', run.source],
    ['Results', run.out],
    ['Model', run.model, run.model_digest],
    ['Method', [run.method, run.layer].filter(Boolean).join(' at ')],
    ['Explained', run.target],
    ['Run', run.id],
    ['Begun', run.created_at && time(run.created_at)],
    ['Last changed', run.updated_at && time(run.updated_at)],
  ].filter(([, value]) => value);
  byId('facts').append(...facts.map(([name, value, title]) => el('div', {}, el('dt', {}, name), el('dd', { title }, value))));
  byId('built').replaceChildren(...(report.built_at ? ['Built ', time(report.built_at)] : ['Built at an unknown time']));
  byId('colophon').textContent = `Made by Camshaft ${report.camshaft ?? ''}. Everything shown is in this file and beside it; nothing is loaded from elsewhere.`;
}

function drawOverview(report) {
  const overview = report.overview ?? {};
  const findings = report.findings ?? {};
  bodyOf('overview').append(el('dl', { class: 'tiles' },
    tile('Images', count(overview.images)),
    tile('Predicted', count(overview.predicted), isNumber(overview.predicted) && overview.images > 0 && `${percent(overview.predicted / overview.images)} of the images`),
    tile('Failed', count(overview.failed), overview.failed > 0 ? el('a', { href: '#failures' }, 'See why') : overview.failed === 0 && 'None', overview.failed > 0 && 'warn'),
    tile('Accuracy', percent(overview.accuracy), accuracyLine(overview)),
    tile('Calibration error', decimal(overview.ece, 3), isNumber(overview.ece) ? [term('ECE'), ': mean gap between confidence and accuracy'] : 'Not measured'),
    tile('Label errors', labelErrors(overview), labelErrorsLine(overview)),
    tile('Findings', count(findings.total ?? list(findings.rows).length), el('a', { href: '#work' }, 'Go to the work list')),
  ), ...[drawJudgements(report)].filter(Boolean));
}

/** What people's decisions say of the findings, and what was drawn for them to judge. */
function drawJudgements(report) {
  const { checks, label_errors_left: left } = report.overview?.judgements ?? {};
  const samples = list(report.samples);
  if (list(checks).length === 0 && !left && samples.length === 0) return null;
  const precision = ({ precision: share, low, high, judged, findings }) => (judged === findings ? percent(share) : `${percent(share)} (${percent(low)} to ${percent(high)})`);
  return panel('What people found', {},
    list(checks).length > 0 && table('How many findings are right', ['Check', 'Findings', 'Judged', 'Right', 'Precision'], checks.map((check) => [kindPlural(check.kind), count(check.findings), count(check.judged), count(check.right), precision(check)])),
    left && el('p', {}, el('strong', {}, `At most ${counted(left.at_most, 'wrong label')} left`), ` (95 %): of ${counted(left.judged, 'image')} drawn from ${count(left.of)} without a label finding ${count(left.wrong)} had a wrong label`, left.undecided > 0 && `, and ${counted(left.undecided, 'label finding')} nobody has decided about`, '.'),
    samples.length > 0 && el('p', {}, 'Drawn at random to be judged: ', samples.map((sample, at) => [at > 0 && ' · ', el('a', { href: `#images?sample=${encodeURIComponent(sample.kind)}` }, `${counted(list(sample.keys).length, 'image')} ${sampleWords(sample.kind)}`)])));
}

/** What a sample was drawn from. */
function sampleWords(kind) {
  if (kind === 'any') return 'with findings';
  return kind.startsWith('no-') ? `without a finding of the kind ${words(kind.slice(3))}` : `with a finding of the kind ${words(kind)}`;
}

function tile(name, value, line, tone) {
  return el('div', { class: `tile ${tone || ''}` }, el('dt', {}, name), el('dd', {}, el('span', { class: 'figure' }, value), line && el('span', { class: 'line' }, line)));
}

/** `25 (19 to 33)`: the estimate and its interval. */
function labelErrors(overview) {
  const { estimated_label_errors: errors, estimated_label_errors_low: low, estimated_label_errors_high: high } = overview;
  return isNumber(errors) && isNumber(low) && isNumber(high) ? `${count(errors)} (${count(low)} to ${count(high)})` : count(errors);
}

/** How labels were judged, and how well. */
function labelErrorsLine(overview) {
  if (!isNumber(overview.estimated_label_errors)) return 'Not estimated';
  const audit = overview.label_audit;
  if (!audit) return 'Estimated';
  const range = (share) => `${percent(share.share)} (${percent(share.low)} to ${percent(share.high)})`;
  return [
    `Estimated by heads that had not seen the image: ${counted(audit.images, 'image')} in ${count(audit.folds)} folds, by ${audit.features}`,
    `they give ${percent(audit.accuracy?.share)} their labels`,
    audit.model?.memorised && `the model gives ${percent(audit.model.model.share)}: it has probably learnt them by heart`,
    audit.all_layers_trained && 'all layers of this model were trained: if that was on these images, few of their wrong labels can be found',
    audit.holdout && `accuracy on ${counted(audit.holdout.before.images, 'image')} held out ${range(audit.holdout.before)}, without the suspected labels ${range(audit.holdout.after)}`,
  ].filter(Boolean).join(' · ');
}

function accuracyLine(overview) {
  const unknown = overview.unknown_labels?.images > 0 && `${counted(overview.unknown_labels.images, 'image')} with an unknown label`;
  if (!isNumber(overview.accuracy)) return unknown || 'No labels to compare with';
  const interval = isNumber(overview.accuracy_low) && isNumber(overview.accuracy_high)
    ? `${percent(overview.accuracy_low)} to ${percent(overview.accuracy_high)}` : null;
  return [interval, isNumber(overview.labelled) && `${count(overview.labelled)} labelled`, unknown].filter(Boolean).join(' · ');
}

/** `show(filters)` shows these findings in the work list. */
function drawPredictions(report, show) {
  const overview = report.overview ?? {};
  const body = bodyOf('predictions');
  const calibration = list(overview.calibration);
  const histogram = list(overview.confidence);
  body.append(el('div', { class: 'charts' },
    panel('Calibration', {},
      calibration.some((bin) => bin.count > 0)
        ? [el('p', { class: 'explain' }, 'Whether the model is right as often as its confidence says. Larger dots stand for more images. ', el('strong', {}, term('ECE'), ` ${decimal(overview.ece, 3)}`)),
          legend([['line measured', 'measured'], ['line as-sure', 'perfect calibration'], ['line apart', 'gap']]),
          reliabilityDiagram(calibration, overview.ece),
          numbers('calibration', ['Bin', 'Images', 'Confidence', 'Accuracy'], calibration.filter((bin) => bin.count > 0).map((bin) =>
            [`${percent(bin.from, 0)} to ${percent(bin.to, 0)}`, count(bin.count), percent(bin.confidence), percent(bin.accuracy)]))]
        : empty('Calibration needs labels, and no image with a prediction has one.')),
    panel('Confidence', {},
      histogram.some((bin) => bin.right + bin.wrong + bin.unlabelled > 0)
        ? [el('p', { class: 'explain' }, 'How sure the model is of its answers, and how many of them agree with the labels.'),
          legend([['right', 'right'], ['wrong', 'wrong'], ['unlabelled', 'no label']]),
          confidenceHistogram(histogram),
          numbers('confidence', ['Bin', 'Right', 'Wrong', 'No label'], histogram.map((bin) =>
            [`${percent(bin.from, 0)} to ${percent(bin.to, 0)}`, count(bin.right), count(bin.wrong), count(bin.unlabelled)]))]
        : empty('No image has a prediction.')),
  ), panel('Confusion', {}, confusionMatrix(report, show)));
}

/** Rows are given labels, columns predictions. A click on a wrong cell shows its examples and leads to its findings. */
function confusionMatrix(report, show) {
  const confusion = report.overview?.confusion;
  const classes = list(confusion?.classes);
  if (classes.length === 0) return empty('A confusion matrix needs labels that the model knows.');
  const counts = list(confusion.counts);
  const examples = el('div', { class: 'cell-examples', tabindex: -1, hidden: true });
  const open = (cell) => openCell(cell, report, examples, show);
  const head = el('tr', {}, el('th', { scope: 'col', class: 'corner' }, 'Given ↓ predicted →'),
    classes.map((name) => el('th', { scope: 'col', class: 'class-name' }, el('span', {}, name))), el('th', { scope: 'col', class: 'number' }, 'Right'));
  const rows = classes.map((given, row) => {
    const total = sum(list(counts[row]));
    return el('tr', {}, el('th', { scope: 'row', class: 'class-name' }, given),
      classes.map((predicted, column) => confusionCell({ given, predicted, images: counts[row]?.[column] ?? 0, total, right: row === column }, () => open({ row, column, given, predicted }))),
      el('td', { class: 'number recall' }, total > 0 ? percent((counts[row]?.[row] ?? 0) / total) : MISSING));
  });
  return [
    el('p', { class: 'explain' }, 'Rows are the given labels, columns the predictions. Click a wrong cell to see some of its images, and its findings.'),
    el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Confusion matrix' },
      el('table', { class: `confusion ${classes.length > 8 ? 'many' : ''}` }, el('caption', { class: 'unseen' }, 'Confusion matrix: given labels by predicted classes'), el('thead', {}, head), el('tbody', {}, rows))),
    examples,
    confusion.left_out > 0 && el('p', { class: 'quiet-text' }, `${counted(confusion.left_out, 'image')} of other classes left out.`),
  ];
}

/** Shows a cell's surest images below the matrix, with the way to its findings. Without images, leads to the findings. */
function openCell({ row, column, given, predicted }, report, box, show) {
  const filters = { label: given, predicted };
  const images = list(list(report.confused).find((cell) => cell.row === row && cell.column === column)?.examples);
  if (images.length === 0) {
    show(filters);
    return;
  }
  const found = list(report.findings?.rows).filter((finding) => (finding.label_class ?? finding.label) === given && finding.predicted === predicted).length;
  box.replaceChildren(
    el('h4', {}, `${given} taken for ${predicted}`),
    el('p', { class: 'quiet-text' }, images.length === 1 ? 'Its image:' : `The ${count(images.length)} images that the model is surest of:`),
    el('ul', { class: 'gallery', 'aria-label': `Examples of ${given} taken for ${predicted}` }, gallery(images)),
    el('p', {}, found > 0
      ? el('button', { type: 'button', on: { click: () => show(filters) } }, `Show ${counted(found, 'finding')}`)
      : el('span', { class: 'quiet-text' }, 'None of its images is a finding: the model was not sure of them.')));
  box.hidden = false;
  box.focus({ preventScroll: true });
  box.scrollIntoView({ block: 'nearest' });
}

function confusionCell({ given, predicted, images, total, right }, open) {
  const cell = el('td', { class: 'heat' });
  if (images === 0) {
    cell.append(el('span', { class: 'zero' }, count(0)));
    return cell;
  }
  // Wrong cells have far smaller shares than right ones. The square root makes them visible.
  const share = total > 0 ? images / total : 0;
  const strength = Math.round(8 + 36 * (right ? share : Math.sqrt(share)));
  cell.style.backgroundColor = `color-mix(in srgb, var(${right ? '--right' : '--wrong'}) ${strength}%, var(--surface))`;
  cell.append(right ? count(images) : el('button', {
    type: 'button', class: 'cell', title: `${given} taken for ${predicted}: ${percent(share)} of ${given}`,
    'aria-label': `${counted(images, 'image')} of ${given} predicted as ${predicted}: show them`,
    on: { click: open },
  }, count(images)));
  return cell;
}

function drawAttention(report) {
  const body = bodyOf('attention');
  const classes = list(report.overview?.classes);
  if (classes.length === 0) {
    body.append(empty('No class has a prediction to average maps over.'));
    return;
  }
  body.append(
    el('p', { class: 'explain' }, 'The mean of all maps of a class: where the model looks when it names the class.'),
    mapLegend(),
    ...more(classes, 24, classCard, el('ul', { class: 'class-cards' }), 'classes'),
    el('details', { class: 'numbers' }, el('summary', {}, 'All classes as a table'), table('Classes', ['Class', 'Images', 'Predicted', 'Recall', 'Precision', 'Mean probability'],
      classes.map((entry) => [entry.label ?? MISSING, count(entry.images), count(entry.predicted), percent(entry.recall), percent(entry.precision), percent(entry.mean_probability)]))),
  );
}

function classCard(entry) {
  const name = `Mean map of ${entry.label}`;
  return el('li', { class: 'class-card' },
    mapGrid(entry.map, name),
    el('div', { class: 'class-text' },
      el('h3', {}, entry.label ?? 'No label'),
      pairs([['Images', count(entry.images)], ['Predicted', count(entry.predicted)], [term('recall', 'Recall'), percent(entry.recall)], [term('precision', 'Precision'), percent(entry.precision)], ['Mean probability', percent(entry.mean_probability)]]),
      mapNumbers(entry.map, name)));
}

/** Names and values, one pair on a line. */
function pairs(entries) {
  return el('dl', { class: 'pairs' }, entries.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))));
}

const STAGES = { fetch: 'Fetch', decode: 'Decode', model: 'Model', overlay: 'Overlay', store: 'Store' };

function drawSpeed(report) {
  const body = bodyOf('speed');
  const throughput = report.overview?.throughput;
  if (!throughput) {
    body.append(empty('The results do not say how long the work took.'));
    return;
  }
  const timings = Object.entries(throughput.timings_ms ?? {}).filter(([, value]) => isNumber(value));
  const workers = list(throughput.workers);
  body.append(el('div', { class: 'charts' },
    panel('Throughput', {},
      pairs([['Images a second', decimal(throughput.images_per_second, 1)], ['From first to last', isNumber(throughput.seconds) ? duration(throughput.seconds) : MISSING]]),
      workers.length > 0 && bars('Images by worker', workers.map((worker) => ({ name: worker.name, value: worker.images ?? 0, text: counted(worker.images, 'image') })))),
    panel('Time for an image', {},
      timings.length > 0
        ? [bars('Milliseconds by stage', timings.map(([stage, value]) => ({ name: STAGES[stage] ?? words(stage), value, text: `${decimal(value, 1)} ms` }))),
          el('p', { class: 'quiet-text' }, `${decimal(sum(timings.map(([, value]) => value)), 1)} ms of work an image; stages overlap.`)]
        : empty('The results hold no timings.'))));
}

function duration(seconds) {
  if (seconds < 90) return `${decimal(seconds, 1)} s`;
  if (seconds < 5400) return `${decimal(seconds / 60, 1)} min`;
  return `${decimal(seconds / 3600, 1)} h`;
}

function drawNotes(report) {
  const notes = list(report.overview?.notes);
  bodyOf('notes').append(notes.length > 0 ? el('ul', { class: 'notes' }, notes.map((note) => el('li', {}, note))) : empty('No notes: everything that can be looked for was looked for.'));
}
