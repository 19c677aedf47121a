// One image as a small tile: its picture, what is wrong with it, and what is decided. The grids of the work
// list and of all images, and the summary, show tiles. Owns no state.

const PROBLEM_WORDS = { exact: 'Same file', near: 'Near copy', leak: 'Leak', conflict: 'Two labels' };
const DECISION_WORDS = { keep: 'Keep', drop: 'Drop', relabel: 'Relabel' };
const DECISION_MARKS = { keep: '✓', drop: '✕', relabel: '→' };

/** A finding in two or three words. */
function findingWords(row) {
  if (row.suggested) return `${row.label ?? 'no label'} → ${row.suggested}?`;
  if (row.kind === 'failure') return row.failure === 'undecodable' ? 'Can\u2019t be read' : words(row.failure ?? 'failure');
  if (row.problem) return PROBLEM_WORDS[row.problem] ?? words(row.problem);
  if (row.kind === 'wrong') return `${row.label_class ?? row.label ?? 'no label'}, not ${row.predicted}?`;
  return kindSingular(row.kind);
}

/** What is wrong with an entry, in short: its most urgent finding, of `kind` if it has one of it. */
function entryWords(index, entry, kind) {
  const findings = index.findings(entry);
  const group = index.group(entry);
  if (index.isBest(entry) && (findings.length === 0 || kind === 'duplicate')) return `Best of ${count(group.others.length + 1)}`;
  if (findings.length === 0) return predictionWords(index.facts(entry));
  return findingWords(findings.find((row) => row.kind === kind) ?? findings[0]);
}

/** What the model says of an image, in short. */
function predictionWords({ failure, predicted, probability }) {
  if (failure) return words(failure);
  return predicted ? `${predicted}${isNumber(probability) ? ` ${percent(probability, 0)}` : ''}` : 'No prediction';
}

/** What is decided, for a badge: nothing if nothing is. */
function decisionBadge(decision) {
  if (!decision || decision.decision === 'undecided') return null;
  const text = decision.decision === 'relabel' ? decision.label : DECISION_WORDS[decision.decision];
  return el('span', { class: `badge ${decision.decision}` }, el('span', { 'aria-hidden': 'true' }, DECISION_MARKS[decision.decision]), ` ${text}`);
}

const decisionWords = (decision) => (!decision || decision.decision === 'undecided' ? 'undecided' : decision.decision === 'relabel' ? `relabel to ${decision.label}` : decision.decision);

/** Whether heat belongs over an entry's picture: not if the picture itself is the problem. */
const showsHeat = (facts) => Boolean(facts.maps);

/**
 * A link with the picture of an entry. `kind` is the kind that the list is filtered by; `heat` whether the map
 * is drawn over the picture. `value` is shown in place of what is wrong: what the list is ordered by.
 */
function workTile(index, entry, { address, kind, decision, heat, value }) {
  const facts = index.facts(entry);
  const what = value ?? entryWords(index, entry, kind);
  const kinds = index.kinds(entry);
  const box = el('span', { class: 'box' });
  showPicture(box, pictureSources(facts, false), facts.key, facts.failure ? 'Can\u2019t be read' : 'No thumbnail', (image, overlaid) => {
    if (!heat || overlaid || !showsHeat(facts)) return;
    const canvas = heatCanvas(facts.maps.predicted, facts.maps.height, facts.maps.width);
    box.append(canvas);
    placeHeat(canvas, image, facts.maps.region);
  });
  const name = facts.key.slice(facts.key.lastIndexOf('/') + 1);
  return el('a', {
    class: `tile-link ${decision && decision.decision !== 'undecided' ? 'decided' : ''}`, href: address, title: facts.key, draggable: 'false',
    'aria-label': `${facts.key}: ${[...kinds.map(kindSingular), what].join(', ')}; ${decisionWords(decision)}`,
  },
  box, decisionBadge(decision),
  el('span', { class: 'tile-what' }, kinds.map((one) => el('span', { class: `dot ${one}`, title: kindSingular(one) })), el('span', { class: 'tile-words' }, what)),
  el('span', { class: 'tile-name' }, name));
}
