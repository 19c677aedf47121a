// How decisions are made: for one image or for all of a list, with the questions that this takes, and
// how they leave the page and come back. decisions.js keeps them.

class Deciding {
  constructor(report, index, store) {
    this.report = report;
    this.index = index;
    this.store = store;
    this.said = el('p', { class: 'unseen', role: 'status' });
    document.body.append(this.said);
    const decisionOf = (key) => store.all.get(key);
    index.decide(store.all.keys(), decisionOf);
    store.onchange((keys) => {
      index.decide(keys, decisionOf);
      // What others decide may be about images whose keys are not here yet.
      index.all?.images.loadPlaces(keys)?.then(() => index.decide(keys, decisionOf));
    });
  }

  decisionOf(entry) {
    return this.store.all.get(this.index.keyOf(entry));
  }

  say(text) {
    this.said.textContent = '';
    this.said.textContent = text;
  }

  /** Decides about entries, as a store's `set` does. Asks for the reader's name first, once. Returns whether it is done. */
  async decide(entries, decision, label) {
    if (entries.length === 0) return false;
    await this.index.all?.loadKeys(entries);
    if (this.store.by === null) {
      const name = await askName(null);
      if (name === null) return false;
      this.store.setBy(name);
    }
    this.store.set(entries.map((entry) => this.index.keyOf(entry)), decision, label);
    this.say(`${entries.length === 1 ? this.index.keyOf(entries[0]) : counted(entries.length, 'image')}: ${typeof label === 'function' ? 'relabel' : decisionWords({ decision, label })}`);
    return true;
  }

  /** Asks for a label, and relabels. */
  async relabel(entries) {
    const [facts] = entries.map((entry) => this.index.facts(entry));
    const names = this.index.labelNames(this.report);
    const likely = entries.length === 1 ? [[facts.suggested, 'suggested'], [facts.predicted, 'predicted'], [facts.label, 'given']] : [];
    const title = entries.length === 1 ? `Relabel ${facts.key.slice(facts.key.lastIndexOf('/') + 1)}` : `Relabel ${counted(entries.length, 'image')}`;
    const label = await askLabel(title, names, likely);
    return label !== null && this.decide(entries, 'relabel', label);
  }

  /** Relabels an image to what the report suggests; without a suggestion nothing happens. */
  async suggested(entry) {
    const suggested = this.index.suggested(entry);
    if (suggested) return this.decide([entry], 'relabel', suggested);
    this.say('No label is suggested for this image.');
    return false;
  }

  undo() {
    const keys = this.store.undo();
    this.say(keys ? `Undone: ${keys.length === 1 ? keys[0] : counted(keys.length, 'image')}` : 'Nothing to undo.');
    return keys;
  }

  /** What a key of a letter decides about an entry: a promise of whether it did, or null if it is no such key. */
  key(key, entry) {
    const act = {
      k: () => this.decide([entry], 'keep'), d: () => this.decide([entry], 'drop'), r: () => this.relabel([entry]),
      s: () => this.suggested(entry), x: () => this.decide([entry], 'undecided'),
    }[key];
    return act ? act() : null;
  }

  // All of a list at once.

  /** Drops all but the best of the groups in a list: what, of how many groups, and what is left alone. */
  copies(entries) {
    const groups = new Set(Array.from(entries, (entry) => this.index.group(entry)).filter(Boolean));
    const drop = [];
    let decided = 0;
    let touched = 0;
    for (const group of groups) {
      if (this.index.decided[group.best] === DECISION_CODES.drop) continue;
      const open = group.others.filter((entry) => this.index.decided[entry] === 0);
      decided += group.others.length - open.length;
      touched += open.length > 0;
      drop.push(...open);
    }
    return { drop, groups: touched, decided };
  }

  /** Asks what to decide about all images of a list, says of how many, and does it. */
  async decideAll(found) {
    const entries = Array.from(found.entries).filter((entry) => found.passing[entry]);
    const withLabel = entries.filter((entry) => this.index.suggested(entry));
    const copies = this.copies(found.entries);
    const choices = [
      copies.drop.length > 0 && { id: 'copies', text: 'Drop all but the best of each group', entries: copies.drop, does: 'Drop',
        note: `${counted(copies.groups, 'group')}${copies.decided > 0 ? `; ${counted(copies.decided, 'copy', 'copies')} that you have decided about stay as they are` : ''}` },
      { id: 'keep', text: 'Keep', entries, does: 'Keep' },
      { id: 'drop', text: 'Drop', entries, does: 'Drop' },
      withLabel.length > 0 && { id: 'suggested', text: 'Relabel to the suggested label', entries: withLabel, does: 'Relabel', note: withLabel.length < entries.length && `${counted(entries.length - withLabel.length, 'image')} without a suggestion ${entries.length - withLabel.length === 1 ? 'stays as it is' : 'stay as they are'}` },
      { id: 'relabel', text: 'Relabel to one label …', entries, does: 'Choose a label for' },
      { id: 'undecided', text: 'Take decisions back', entries: entries.filter((entry) => this.index.decided[entry] > 0), does: 'Take back' },
    ].filter(Boolean);
    const chosen = await openDialog(`All ${counted(entries.length, 'image')} of this list`, (close) => {
      const note = el('p', { class: 'quiet-text', role: 'status' });
      const button = el('button', { type: 'button', class: 'main' });
      let choice = choices[0];
      const show = () => {
        const replaced = choice.id === 'copies' || choice.id === 'undecided' ? 0 : choice.entries.filter((entry) => this.index.decided[entry] > 0).length;
        note.textContent = [choice.note, replaced > 0 && `${counted(replaced, 'image')} ${replaced === 1 ? 'is' : 'are'} decided already; that is replaced`].filter(Boolean).join('. ') || 'One step of undo takes it back.';
        button.textContent = choice.id === 'undecided' ? `Take back ${counted(choice.entries.length, 'decision')}` : `${choice.does} ${counted(choice.entries.length, 'image')}`;
        button.disabled = choice.entries.length === 0;
      };
      button.addEventListener('click', () => close(choice));
      show();
      return [
        el('fieldset', { class: 'choices' }, el('legend', { class: 'unseen' }, 'What to decide'), choices.map((one, at) => el('label', { class: 'check' },
          el('input', { type: 'radio', name: 'all', value: one.id, 'data-first': at === 0, prop: { checked: at === 0 }, on: { change: () => { choice = one; show(); } } }),
          el('span', {}, one.text), el('span', { class: 'quiet-text' }, count(one.entries.length))))),
        note,
        dialogButtons(cancelButton(close), button),
      ];
    });
    if (chosen === null) return false;
    if (chosen.id === 'relabel') return this.relabel(chosen.entries);
    if (chosen.id === 'suggested') return this.decide(chosen.entries, 'relabel', (key) => this.index.suggested(this.index.entryOf(key)));
    return this.decide(chosen.entries, chosen.id === 'copies' ? 'drop' : chosen.id);
  }

  // Files.

  download() {
    saveFile('decisions.jsonl', writeDecisions(this.store.all), 'application/jsonl');
  }

  async upload(file) {
    const { lines, refused } = readDecisions(await file.text());
    const taken = this.store.merge(lines);
    const keys = new Set(lines.map((line) => line.key));
    const foreign = [...keys].filter((key) => this.index.entryOf(key) < 0).length;
    const older = keys.size - taken.length;
    await tell('Decisions were read', el('ul', { class: 'told' },
      el('li', {}, `${counted(taken.length, 'decision')} taken.`),
      older > 0 && el('li', {}, `${counted(older, 'decision')} not taken: this page has the same or a later one of the image.`),
      foreign > 0 && el('li', {}, `${counted(foreign, 'image')} ${foreign === 1 ? 'is' : 'are'} not in this list: kept, and downloaded with the others.`),
      refused.length > 0 && el('li', { class: 'refused' }, `${counted(refused.length, 'line')} refused:`, el('ol', {}, refused.slice(0, 20).map(({ number, reason }) => el('li', {}, `line ${count(number)}: ${reason}`))), refused.length > 20 && `and ${count(refused.length - 20)} more`)));
  }
}

/** Offers a text as a file. */
function saveFile(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  el('a', { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
