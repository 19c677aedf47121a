// One finding as a card: its pictures, why it is listed, and what the reader can do with it.
// findings.js owns which findings are done; a card owns which of its pictures are shown.

let cardsMade = 0;

/** `done` is the state at first; `onDone(checked)` is called when the reader changes it. */
function findingCard(row, { done, onDone }) {
  const heading = `finding-${(cardsMade += 1)}`;
  const card = el('li', { class: `card ${done ? 'done' : ''}` });
  const pictures = el('div', { class: 'pictures' });
  let view = pictureView.current;
  const flip = el('button', { type: 'button', class: 'quiet', 'aria-describedby': heading, on: { click: () => draw(VIEWS[(VIEWS.indexOf(view) + 1) % VIEWS.length]) } });
  function draw(next) {
    view = next;
    pictures.replaceChildren(...figures(picturesOfFinding(row), view));
    flip.replaceChildren('Show ', VIEW_NAMES[VIEWS[(VIEWS.indexOf(view) + 1) % VIEWS.length]]);
  }
  draw(view);
  card.setPictureView = draw;
  card.append(el('article', { 'aria-labelledby': heading },
    pictures,
    el('div', { class: 'card-text' },
      cardHead(row),
      el('h3', { id: heading, class: 'key' }, keyName(row.key)),
      row.other && el('p', { class: 'key other' }, el('span', { class: 'quiet-text' }, 'and '), keyName(row.other)),
      row.reason && el('p', { class: 'reason' }, row.reason),
      row.group && row.best && el('p', { class: 'key other' }, el('span', { class: 'quiet-text' }, `group of ${count(row.group.images)}, keep `), keyName(row.best)),
      labelsOfFinding(row),
      cardLinks(row),
      el('div', { class: 'actions' },
        flip, copyButton('Copy key', row.key, heading), originalButton(row, heading),
        el('label', { class: 'check' }, el('input', { type: 'checkbox', prop: { checked: done }, on: { change: (event) => {
          card.classList.toggle('done', event.target.checked);
          onDone(event.target.checked);
        } } }), 'Done', el('span', { class: 'unseen' }, ` with ${row.key}`))))));
  return card;
}

function cardHead(row) {
  return el('p', { class: 'card-head' },
    el('span', { class: 'chip' }, el('span', { class: `dot ${row.kind}` }), kindSingular(row.kind), row.problem && el('span', { class: 'problem' }, words(row.problem))),
    el('span', { class: 'standing' },
      el('span', { class: 'score', title: 'Score' }, el('span', { class: 'unseen' }, 'Score '), decimal(row.score, 3)),
      isNumber(row.rank) && el('span', { class: 'rank', title: 'Rank' }, el('span', { class: 'unseen' }, ', rank '), `#${count(row.rank)}`)));
}

/** The given label, the suggested label and the prediction, as far as they are known. */
function labelsOfFinding(row) {
  const facts = [
    ['Given', row.label_class ? `${row.label} (${row.label_class})` : row.label], ['Suggested', row.suggested],
    ['Predicted', row.predicted && (isNumber(row.probability) ? `${row.predicted} ${percent(row.probability)}` : row.predicted)],
  ].filter(([, value]) => value);
  return facts.length > 0 && el('dl', { class: 'verdict' }, facts.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))));
}

function cardLinks(row) {
  const links = [
    [originalHref(row.image), 'Image'],
    [row.overlay && overlayHref(row.overlay), 'Overlay'],
    [row.given_overlay && overlayHref(row.given_overlay), `Overlay for ${row.label ?? 'the label'}`],
    [row.key && predictionHref(row.key), 'Prediction'],
    [row.other && row.other_overlay && overlayHref(row.other_overlay), 'Other overlay'],
    [row.other && predictionHref(row.other), 'Other prediction'],
  ].filter(([href]) => href);
  return el('ul', { class: 'links' }, links.map(([href, text]) => el('li', {}, el('a', { href }, text))));
}

/** A button to copy the path of the original, since a page from HTTP can't open local files. */
function originalButton(row, heading) {
  if (originalHref(row.image) || !/^file:/i.test(row.image ?? '')) return null;
  return copyButton('Copy path', row.image, heading);
}

function copyButton(text, value, heading) {
  const button = el('button', { type: 'button', class: 'quiet', 'aria-describedby': heading, on: { click: async () => {
    const copied = await copyText(value);
    button.textContent = copied ? 'Copied' : 'Not copied';
    setTimeout(() => { button.textContent = text; }, 1500);
  } } }, text);
  return button;
}

async function copyText(value) {
  try {
    await navigator.clipboard.writeText(value);
    return true;
  } catch {
    // Outside secure contexts there is no clipboard. Copying a selection works there.
    const field = el('textarea', { class: 'unseen', 'aria-hidden': 'true', prop: { value } });
    const back = document.activeElement;
    document.body.append(field);
    field.select();
    const copied = document.execCommand('copy');
    field.remove();
    back?.focus();
    return copied;
  }
}
