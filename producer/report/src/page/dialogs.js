// Dialogs: one question at a time, over the page. Each returns a promise of the answer, null if the
// reader closes it. Owns no state of the report.

let dialogsMade = 0;

/**
 * Opens a dialog. `build(close)` returns its content; `close(answer)` ends it. Enter in a field presses the
 * button of class `main`.
 */
function openDialog(title, build, props) {
  return new Promise((resolve) => {
    let answer = null;
    const heading = `dialog-${(dialogsMade += 1)}`;
    const close = (value) => {
      answer = value;
      dialog.close();
    };
    const dialog = el('dialog', { 'aria-labelledby': heading, class: props?.class, on: {
      close: () => {
        dialog.remove();
        back?.focus?.({ preventScroll: true });
        resolve(answer);
      },
      click: (event) => { if (event.target === dialog) dialog.close(); },
    } });
    dialog.append(el('form', { class: 'dialog-body', on: { submit: (event) => event.preventDefault() } }, el('h2', { id: heading }, title), build(close)));
    const back = document.activeElement;
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector('[data-first]')?.focus();
  });
}

const dialogOpen = () => document.querySelector('dialog[open]') !== null;

const dialogButtons = (...buttons) => el('div', { class: 'dialog-buttons' }, buttons);
const cancelButton = (close) => el('button', { type: 'button', on: { click: () => close(null) } }, 'Cancel');

/** Asks for the reader's name. */
function askName(before) {
  return openDialog('Who decides?', (close) => {
    const field = el('input', { type: 'text', id: 'decider', autocomplete: 'name', maxlength: 200, 'data-first': true, required: true, prop: { value: before ?? '' } });
    const done = () => { if (field.value.trim() !== '') close(field.value.trim()); };
    field.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter') return;
      event.preventDefault();
      done();
    });
    return [
      el('p', { class: 'quiet-text' }, 'Each decision says who made it. This browser remembers the name.'),
      el('div', { class: 'field' }, el('label', { for: 'decider' }, 'Your name'), field),
      dialogButtons(cancelButton(close), el('button', { type: 'button', class: 'main', on: { click: done } }, 'Go on')),
    ];
  });
}

// Names that are shown at once; the others are found by typing.
const SHOWN_NAMES = 40;

/**
 * Asks for a label: by a digit, by typing a part of its name, or a new one. `likely` has pairs of a name and
 * why it may be meant; these come first.
 * Where labels begin with digits, digits are typed as letters are.
 */
function askLabel(title, names, likely) {
  const reasons = new Map([...likely].reverse().filter(([name]) => name));
  const ordered = [...new Set([...likely.map(([name]) => name).filter(Boolean), ...names])];
  const byDigit = !ordered.some((name) => /^\d/.test(name));
  return openDialog(title, (close) => {
    const options = el('ul', { class: 'label-options', id: 'label-options', role: 'listbox', 'aria-label': 'Labels' });
    const status = el('p', { class: 'quiet-text', role: 'status' });
    const field = el('input', { type: 'text', id: 'new-label', role: 'combobox', 'aria-expanded': 'true', 'aria-controls': 'label-options', 'aria-autocomplete': 'list', autocomplete: 'off', spellcheck: 'false', 'data-first': true });
    let shown = [];
    let chosen = 0;
    const choose = (at) => {
      chosen = at;
      [...options.children].forEach((option, number) => option.setAttribute('aria-selected', number === at));
      if (shown.length > 0) field.setAttribute('aria-activedescendant', `label-option-${at}`);
      else field.removeAttribute('aria-activedescendant');
      options.children[at]?.scrollIntoView({ block: 'nearest' });
    };
    const draw = () => {
      const typed = field.value.trim();
      const wanted = typed.toLowerCase();
      const matches = ordered.filter((name) => name.toLowerCase().includes(wanted));
      // Names that begin with what is typed are meant more often.
      matches.sort((a, b) => b.toLowerCase().startsWith(wanted) - a.toLowerCase().startsWith(wanted));
      shown = matches.slice(0, SHOWN_NAMES).map((name) => ({ name, text: name }));
      if (isLabel(typed) && !ordered.includes(typed)) shown.push({ name: typed, text: `New label “${typed}”` });
      options.replaceChildren(...shown.map(({ name, text }, at) => el('li', { id: `label-option-${at}`, role: 'option', on: { click: () => close(name) } },
        byDigit && typed === '' && at < 9 ? el('kbd', {}, at + 1) : el('span', { class: 'no-digit' }), el('span', {}, text), reasons.has(name) && el('span', { class: 'quiet-text' }, reasons.get(name)))));
      status.textContent = matches.length > SHOWN_NAMES ? `${count(SHOWN_NAMES)} of ${count(matches.length)} labels: type to find others` : counted(matches.length, 'label');
      choose(0);
    };
    field.addEventListener('input', draw);
    field.addEventListener('keydown', (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && shown.length > 0) choose((chosen + step + shown.length) % shown.length);
      else if (event.key === 'Enter') { if (shown[chosen]) close(shown[chosen].name); }
      else if (byDigit && field.value === '' && /^[1-9]$/.test(event.key) && shown[event.key - 1]) close(shown[event.key - 1].name);
      else return;
      event.preventDefault();
    });
    draw();
    return [
      el('div', { class: 'field' }, el('label', { for: 'new-label' }, byDigit ? 'Press a digit, or type a part of the name' : 'Type a part of the name'), field),
      options, status, dialogButtons(cancelButton(close)),
    ];
  });
}

const KEYS = [
  ['j or →', 'next image'], ['p or ←', 'previous image'], ['↑ ↓ Home End', 'move in the grid'], ['Enter', 'open the image'], ['Esc', 'back to the grid'],
  ['k', 'keep'], ['d', 'drop'], ['r', 'relabel: then a digit, or type the class'], ['s', 'relabel to the suggested label'], ['x', 'take the decision back'], ['u', 'undo the last step'],
  ['+ − 0', 'zoom in, out, and fit'], ['h', 'heat on and off'], ['m', 'more images like this one'], ['/', 'search'], ['?', 'these keys'],
];

/** Whether single keys do something. They can be turned off, because speech input and screen readers type letters. */
const listensToKeys = () => memory.get('shortcuts') !== 'off' && !listensToKeys.off;

function showKeys() {
  return openDialog('Keys', (close) => [
    el('dl', { class: 'pairs keys' }, KEYS.map(([keys, text]) => el('div', {}, el('dt', {}, keys.split(' ').map((key) => (key === 'or' ? ' or ' : [el('kbd', {}, key), ' ']))), el('dd', {}, text)))),
    el('label', { class: 'check' }, el('input', { type: 'checkbox', id: 'shortcuts', prop: { checked: listensToKeys() }, on: { change: (event) => {
      listensToKeys.off = !event.target.checked;
      memory.set('shortcuts', event.target.checked ? 'on' : 'off');
    } } }), 'Listen to the keys that are single letters'),
    dialogButtons(el('button', { type: 'button', class: 'main', 'data-first': true, on: { click: () => close(null) } }, 'Close')),
  ]);
}

/** Says something that needs no answer. */
function tell(title, ...content) {
  return openDialog(title, (close) => [content, dialogButtons(el('button', { type: 'button', class: 'main', 'data-first': true, on: { click: () => close(null) } }, 'Close'))]);
}
