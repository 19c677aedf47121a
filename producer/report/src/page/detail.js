// One image of a list, large: its pictures and heat, all that was found about it, and the buttons to
// decide. Owns which image is shown; the address holds it.

class Detail {
  constructor(report, index, all, deciding, work, router) {
    Object.assign(this, { report, index, all, deciding, work, router });
    this.node = byId('image-view');
    this.entry = -1;
    deciding.store.onchange((keys) => {
      if (!this.node.hidden && this.entry >= 0) this.showDecision(keys);
    });
  }

  show(address, how) {
    const { key, filters } = address;
    // An image without findings is known once all images are.
    const waiting = this.all.prepare(filters) ?? (this.index.entryOf(key) < 0 && this.hasImages() ? this.all.find(key) : null);
    this.asked = waiting;
    if (!waiting) {
      this.open(address, how);
      return;
    }
    this.entry = -1;
    document.title = `${key} · ${this.report.title ?? 'Camshaft report'}`;
    this.drawWithout(key, 'Reading the images …');
    const shown = (problem) => {
      if (this.asked !== waiting || this.node.hidden) return;
      if (problem && this.index.entryOf(key) < 0) this.drawWithout(key, problem);
      else this.open(problem ? { key, filters: NO_FILTERS } : address, how);
    };
    waiting.then(() => shown(null), (error) => shown(error.message));
  }

  hasImages() {
    return this.report.overview?.images > 0;
  }

  open({ key, filters }, { focus, first }) {
    // The list stays as it is while the reader goes through it, so that nothing is passed over.
    if (!this.work.isList(filters)) this.work.apply(filters);
    this.entry = this.index.entryOf(key);
    this.work.returned = this.entry >= 0 ? this.entry : undefined;
    document.title = `${key} · ${this.report.title ?? 'Camshaft report'}`;
    this.draw(key);
    scrollTo(0, 0);
    // The button that led here may be gone.
    if (focus || (!first && !this.node.contains(document.activeElement))) this.node.querySelector('h1').focus({ preventScroll: true });
  }

  backButton() {
    return el('button', { type: 'button', id: 'back', on: { click: () => this.leave() } }, this.router.before === 'map' ? '‹ Map' : '‹ List');
  }

  /** Says something in place of an image. */
  drawWithout(key, text) {
    bodyOf('image-view').replaceChildren(el('div', { class: 'detail-head' }, this.backButton(), el('h1', { class: 'key', tabindex: -1 }, keyName(key))), el('p', { class: 'empty', role: 'status' }, text), el('p', {}, el('a', { href: '#work' }, 'Go to the work list')));
  }

  draw(key) {
    const body = bodyOf('image-view');
    if (this.entry < 0) {
      this.drawWithout(key, 'This report lists no image of this name. It may have been corrected since, or the link is of another run.');
      return;
    }
    const { index, entry } = this;
    const facts = index.facts(entry);
    this.stages = new StageGroup();
    body.replaceChildren(
      this.drawHead(key),
      el('div', { class: 'detail' },
        el('div', { class: 'detail-pictures' }, this.drawStages(facts), this.drawTools(facts), this.drawGroup()),
        el('div', { class: 'detail-text' }, this.drawDecision(facts), this.drawLabels(facts), this.drawFindings(), this.drawNumbers(), this.drawLinks(facts))));
    this.showDecision(null);
  }

  drawHead(key) {
    const at = this.work.positionOf(this.entry);
    const step = (by, text, name) => el('button', { type: 'button', 'aria-label': name, 'aria-disabled': at < 0 || !(at + by in this.work.found.entries), on: { click: () => this.step(by) } }, text);
    return el('div', { class: 'detail-head' },
      this.backButton(), el('h1', { class: 'key', tabindex: -1 }, keyName(key)),
      el('nav', { class: 'steps', 'aria-label': 'Images of the list' }, step(-1, '‹', 'Previous image'), el('span', { class: 'place' }, at < 0 ? 'not in this list' : `${count(at + 1)} of ${count(this.work.found.entries.length)}`), step(1, '›', 'Next image')));
  }

  /** The pictures: of both classes on one scale, of a duplicate and the best of its group, or one alone. */
  drawStages(facts) {
    const { index, entry } = this;
    const name = facts.key.slice(facts.key.lastIndexOf('/') + 1);
    const own = { sources: pictureSources(facts, true), missing: facts.failure ? 'This file can\u2019t be read' : 'No picture of it could be found' };
    const { maps } = facts;
    const group = index.group(entry);
    const pair = group && group.best !== entry ? this.entryStage(group.best) : this.otherStage();
    let figures;
    if (maps?.given) {
      figures = [
        { ...own, alt: `${facts.key}, why ${facts.label}`, caption: [el('strong', {}, `Why ${facts.label_class ?? facts.label ?? 'the label'}`), ` (given) · ${name}`], maps, digits: maps.given },
        { ...own, alt: `${facts.key}, why ${facts.predicted}`, caption: [el('strong', {}, `Why ${facts.predicted ?? 'the prediction'}`), ` (predicted) · ${name}`], maps, digits: maps.predicted },
      ];
    } else {
      const why = maps && facts.predicted ? [el('strong', {}, `Why ${facts.predicted}`), ' (predicted) · '] : [];
      figures = [{ ...own, alt: facts.key, caption: [why, pair ? [el('strong', {}, 'This'), ` · ${name}`] : name], maps, digits: maps?.predicted }];
    }
    if (pair) figures.push(pair);
    return el('div', { class: `stages ${figures.length > 1 ? 'several' : ''}` }, figures.map((one) => this.stages.add(one)));
  }

  entryStage(entry) {
    const facts = this.index.facts(entry);
    return { sources: pictureSources(facts, true), alt: facts.key, missing: 'No picture of it could be found', caption: [el('strong', {}, 'The best'), ` · ${facts.key.slice(facts.key.lastIndexOf('/') + 1)}`] };
  }

  /** The other image of a pair, in results without groups. */
  otherStage() {
    const row = this.index.findings(this.entry).find((one) => one.other && !one.group);
    if (!row) return null;
    const facts = { key: row.other, thumbnail: row.other_thumbnail, image: row.other_image, overlay: row.other_overlay, overlay_thumbnail: row.other_overlay_thumbnail };
    return { sources: pictureSources(facts, true), alt: row.other, missing: 'No picture of it could be found', caption: [el('strong', {}, 'The other'), ` · ${row.other}`] };
  }

  drawTools(facts) {
    const size = el('span', { class: 'quiet-text zoom-size', 'aria-hidden': 'true' }, percent(1, 0));
    this.stages.onzoom = (scale) => { size.textContent = percent(scale, 0); };
    const button = (text, name, act) => el('button', { type: 'button', class: 'quiet', 'aria-label': name, title: name, on: { click: act } }, text);
    this.slider = facts.maps && el('input', { type: 'range', id: 'opacity', min: 0, max: 1, step: 0.05, prop: { value: this.stages.opacity }, on: { input: (event) => this.stages.setOpacity(Number(event.target.value)) } });
    return el('div', { class: 'tools' },
      el('span', { class: 'zoom' }, button('−', 'Zoom out', () => this.stages.zoomBy(1 / ZOOM_STEP)), size, button('+', 'Zoom in', () => this.stages.zoomBy(ZOOM_STEP)), button('Fit', 'Fit into the frame', () => this.stages.fit())),
      this.slider && el('span', { class: 'opacity' }, el('label', { for: 'opacity' }, 'Heat'), this.slider, heatLegend()));
  }

  /** All images of the group of duplicates, the best marked. */
  drawGroup() {
    const { index, entry } = this;
    const group = index.group(entry);
    if (!group) return null;
    const members = [group.best, ...group.others];
    const { drop } = this.deciding.copies([entry]);
    return el('div', { class: 'group' },
      el('h2', {}, `${counted(members.length, 'image')} of the same picture`),
      el('div', { class: 'strip', role: 'list' }, members.map((one) => {
        const link = workTile(index, one, { address: imageAddress(index.keyOf(one), this.work.filters), kind: 'duplicate', decision: this.deciding.decisionOf(one), heat: false });
        if (one === entry) link.setAttribute('aria-current', 'true');
        return el('div', { class: `tile ${one === group.best ? 'best' : ''}`, role: 'listitem' }, link);
      })),
      el('p', {}, el('button', { type: 'button', id: 'drop-copies', prop: { disabled: drop.length === 0 }, on: { click: () => this.deciding.decide(drop, 'drop') } }, `Drop all but the best (${count(drop.length)})`)));
  }

  drawDecision(facts) {
    this.current = el('p', { class: 'current', role: 'status' });
    const button = (key, text, kind, act) => el('button', { type: 'button', class: `choice ${kind}`, 'data-choice': kind, on: { click: act } }, text, ' ', el('kbd', { 'aria-hidden': 'true' }, key));
    const does = (key) => () => this.decideBy(key);
    return el('div', { class: 'decide' },
      el('div', { class: 'choices-row' },
        button('k', 'Keep', 'keep', does('k')), button('d', 'Drop', 'drop', does('d')),
        facts.suggested && button('s', `Relabel to ${facts.suggested}`, 'suggested', does('s')),
        button('r', 'Relabel …', 'relabel', does('r')), button('u', 'Undo', 'undo', () => this.undo())),
      this.current);
  }

  /** The given label, the suggested label and the prediction, as far as they are known. */
  drawLabels(facts) {
    const known = [
      ['Given', facts.label_class ? `${facts.label} (${facts.label_class})` : facts.label], ['Suggested', facts.suggested],
      ['Predicted', facts.predicted && (isNumber(facts.probability) ? `${facts.predicted}, ${percent(facts.probability)}` : facts.predicted)],
    ].filter(([, value]) => value);
    return known.length > 0 && el('dl', { class: 'verdict' }, known.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))));
  }

  drawFindings() {
    const findings = this.index.findings(this.entry);
    if (findings.length === 0) return el('p', { class: 'reason' }, this.index.isBest(this.entry) ? 'Nothing was found about this image itself. It is the best of a group of duplicates: the one to keep.' : 'Nothing was found about this image.');
    return el('ul', { class: 'problems' }, findings.map((row) => el('li', {},
      el('h2', { class: 'chip' }, el('span', { class: `dot ${row.kind}` }), kindSingular(row.kind), (row.problem ?? row.failure) && el('span', { class: 'problem' }, words(row.problem ?? row.failure))),
      el('p', { class: 'reason' }, unbroken(row.reason)),
      row.kind === 'shortcut' && el('p', {}, el('a', { href: '#clusters' }, 'See its cluster')),
      row.best && el('p', { class: 'key' }, el('span', { class: 'quiet-text' }, 'keep '), keyName(row.best)),
      el('p', { class: 'quiet-text' }, term('score', 'Score'), ` ${decimal(row.score, 3)}, rank ${count(row.rank)}`))));
  }

  /** What is measured of the image, as far as it is read. */
  drawNumbers() {
    const { images, places } = this.all;
    const place = images ? places[this.entry] : undefined;
    if (place === undefined || place === NO_PLACE) return null;
    // In files they would be fetched for all images.
    if (!images.inFiles) images.load(Object.keys(ORDERS));
    const known = Object.entries(ORDERS).filter(([name, { write }]) => write && !['alike', 'score', 'pixels'].includes(name)).map(([name, order]) => [order.name, images.number(name, place), order.write]).filter(([, value]) => value !== null);
    return known.length > 0 && el('details', { class: 'measured' }, el('summary', {}, 'Numbers'), pairs(known.map(([name, value, write]) => [name, write(value)])));
  }

  drawLinks(facts) {
    const links = [
      [originalHref(facts.image, facts.key), 'Original'],
      [facts.overlay && overlayHref(facts.overlay), 'Overlay'],
      [facts.given_overlay && overlayHref(facts.given_overlay), `Overlay for ${facts.label ?? 'the label'}`],
      [facts.failure ? failureHref(facts.key) : predictionHref(facts.key), facts.failure ? 'Failure' : 'Prediction'],
    ].filter(([href]) => href);
    const copyPath = !originalHref(facts.image, facts.key) && /^file:/i.test(facts.image ?? '');
    return el('div', { class: 'detail-links' },
      el('ul', { class: 'links' }, links.map(([href, text]) => el('li', {}, el('a', { href }, text)))),
      el('div', { class: 'actions' }, this.hasImages() && el('button', { type: 'button', class: 'quiet', id: 'alike', on: { click: () => this.showAlike() } }, 'More like this ', el('kbd', { 'aria-hidden': 'true' }, 'm')), copyButton('Copy name', facts.key), copyPath && copyButton('Copy path', facts.image)));
  }

  showDecision(keys) {
    const decision = this.deciding.decisionOf(this.entry);
    const chosen = decision?.decision ?? 'undecided';
    const facts = this.index.facts(this.entry);
    for (const button of this.node.querySelectorAll('[data-choice]')) {
      const kind = button.dataset.choice;
      const pressed = kind === 'suggested' ? chosen === 'relabel' && decision.label === facts.suggested : kind === 'relabel' ? chosen === 'relabel' && decision.label !== facts.suggested : kind === chosen;
      if (kind !== 'undo') button.setAttribute('aria-pressed', pressed);
    }
    this.current.replaceChildren(...(chosen === 'undecided' ? ['Undecided'] : [decisionBadge(decision), el('span', { class: 'quiet-text' }, ' by ', decision.by || 'nobody named', ', ', time(decision.at), ' '), el('button', { type: 'button', class: 'link', id: 'take-back', on: { click: () => this.decideBy('x') } }, 'Take back')]));
    const group = this.index.group(this.entry);
    const inGroup = (key) => group && this.index.group(this.index.entryOf(key)) === group;
    if (group && (keys === null ? false : keys.some(inGroup))) this.node.querySelector('.group')?.replaceWith(this.drawGroup());
  }

  // What the reader does.

  step(by) {
    const { entry } = this;
    const at = this.work.positionOf(entry) + by;
    const next = this.work.found.entries[at];
    if (next === undefined || at < 0) return false;
    const go = () => { if (this.entry === entry) this.router.replace(imageAddress(this.index.keyOf(next), this.work.filters)); };
    const waiting = this.all.loadKeys([next]);
    if (waiting) waiting.then(go, () => {});
    else go();
    return true;
  }

  /** Lists the images that are most like this one. */
  showAlike() {
    if (this.entry >= 0 && this.hasImages()) this.router.go(alikeAddress(this.index.keyOf(this.entry)));
  }

  leave() {
    this.router.leave(workAddress(this.work.filters));
  }

  async decideBy(key) {
    const { entry } = this;
    const done = this.deciding.key(key, entry);
    if (done === null) return;
    // A question may have been asked meanwhile.
    if (await done && this.entry === entry && !this.node.hidden && key !== 'x') this.step(1);
  }

  /** Takes the last step back, and shows the image that it was about. */
  undo() {
    const keys = this.deciding.undo();
    if (keys?.length === 1 && keys[0] !== this.index.keyOf(this.entry) && this.index.entryOf(keys[0]) >= 0) this.router.replace(imageAddress(keys[0], this.work.filters));
  }

  /** Does what a key says. Returns whether it is a key of this view. */
  key(key) {
    if (key === 'Escape') this.leave();
    else if (this.entry < 0) return false;
    else if (['j', 'ArrowRight'].includes(key)) this.step(1);
    else if (['p', 'ArrowLeft'].includes(key)) this.step(-1);
    else if (key === 'Home') this.step(-this.work.positionOf(this.entry));
    else if (key === 'End') this.step(this.work.found.entries.length - 1 - this.work.positionOf(this.entry));
    else if (key === '+' || key === '=') this.stages.zoomBy(ZOOM_STEP);
    else if (key === '-' || key === '−') this.stages.zoomBy(1 / ZOOM_STEP);
    else if (key === '0') this.stages.fit();
    else if (key === 'h') this.toggleHeat();
    else if (key === 'm') this.showAlike();
    else if (key === 'u') this.undo();
    else if ('kdrsx'.includes(key)) this.decideBy(key);
    else return false;
    return true;
  }

  toggleHeat() {
    if (!this.slider) return;
    if (this.stages.opacity > 0) this.lastOpacity = this.stages.opacity;
    this.stages.setOpacity(this.stages.opacity > 0 ? 0 : this.lastOpacity ?? 0.7);
    this.slider.value = this.stages.opacity;
  }
}

function copyButton(text, value) {
  const button = el('button', { type: 'button', class: 'quiet', on: { click: async () => {
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
