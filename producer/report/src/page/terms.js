// Words that need an explanation, and the box that explains them on hover and on focus. There is one
// box; it lies over everything, so that no scrolling table cuts it off.

const TERMS = {
  score: 'How urgent a finding is, from 0 to 1. It ranks the list and is no probability.',
  q: 'False discovery rate: if everything with this q or a smaller one is believed, this share of it is expected to be chance. 0.01 is one in a hundred.',
  p: 'How likely a difference as large as this one is by chance alone. Below 0.01 it is hardly chance.',
  ECE: 'Expected calibration error: by how much the model\u2019s confidence differs from how often it is right, on average. 0 is perfect; 0.05 is five points.',
  apart: 'How much the map differs between the two runs, as Hellinger distance: 0 is the same map, 1 is another place altogether.',
  effect: 'In how many of 100 pairs, one image from each side, the first has more: 0.5 is no difference, 0 and 1 are the largest.',
  drift: 'How different the two runs are: 0 is no difference, except for embeddings, where 0.5 is none. The line above says which measure it is.',
  information: 'How much of the label can be guessed from this property alone: 0 % is nothing, 100 % is all of it.',
  recall: 'Of the images with this label, the share that the model predicts as it.',
  precision: 'Of the images that the model predicts as this class, the share that has its label.',
  ROAD: 'How much more the prediction falls if the hot parts of the picture are removed than if the cold parts are. Above 0 is better than chance; 0.5 is the most.',
  rank: 'How alike the maps are with those of a network with random weights in that part: 1 is the same, 0 is unlike. Maps that depend on what was learnt are below 0.7.',
  interval: 'With 95 % confidence the true value lies between these two numbers.',
};

/** A word of TERMS that explains itself; `text` is what is shown. */
function term(name, text = name) {
  return el('span', { class: 'term', tabindex: 0, 'data-term': name }, text);
}

function startTerms() {
  const tip = el('div', { id: 'tip', role: 'tooltip', hidden: true });
  document.body.append(tip);
  const hide = () => {
    tip.hidden = true;
    document.querySelector('[aria-describedby="tip"]')?.removeAttribute('aria-describedby');
  };
  const show = (word) => {
    hide();
    tip.textContent = TERMS[word.dataset.term] ?? '';
    tip.hidden = false;
    word.setAttribute('aria-describedby', 'tip');
    const at = word.getBoundingClientRect();
    const { width, height } = tip.getBoundingClientRect();
    const below = at.bottom + 6 + height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, at.left))}px`;
    tip.style.top = `${below ? at.bottom + 6 : at.top - height - 6}px`;
  };
  const wordOf = (event) => event.target.closest?.('[data-term]');
  document.addEventListener('pointerover', (event) => {
    const word = wordOf(event);
    if (word) show(word);
    // The box itself may be pointed at, so that it can be read and selected.
    else if (!tip.hidden && !tip.contains(event.target) && !wordOf({ target: document.activeElement })) hide();
  });
  document.addEventListener('focusin', (event) => {
    const word = wordOf(event);
    if (word) show(word);
    else hide();
  });
  document.addEventListener('focusout', hide);
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !tip.hidden) {
      hide();
      event.stopImmediatePropagation();
    }
  }, { capture: true });
  addEventListener('scroll', hide, { passive: true });
}
