// The map: all images as points, alike ones near each other. Zooms, shows the picture under the pointer,
// and turns an area that the reader draws into a list. The report computes the places (the Rust room
// `projection`), all-images.js has the data. Owns what is in view; the address holds the colours' meaning.

const MAP_COLOURS = 10;
const MOST_MAP_ZOOM = 200;
// From a point to the pointer, in pixels of the screen.
const POINTING_PIXELS = 14;
// A shorter way of the pointer is a click.
const DRAGGED_PIXELS = 5;
// Points of this many images are drawn round and large; more are drawn as dots.
const FEW_POINTS = 3000;
// The margin around all points, as a share of the map's side.
const MAP_MARGIN = 0.03;
const MAP_SIDE = 65534;

// What colours can mean. `of(all, place)` is a name, or null for none.
const MAP_MEANINGS = {
  label: { name: 'Given label', none: 'No label', of: (all, place) => all.label.names[all.label.values[place]] },
  predicted: { name: 'Predicted', none: 'No prediction', of: (all, place) => all.predicted.names[all.predicted.values[place]] },
  right: { name: 'Right or wrong', none: 'Nothing to compare', of: (all, place) => ({ true: 'Right', false: 'Wrong' })[all.isRight(place)] ?? null, colours: { Right: '--right', Wrong: '--wrong' } },
  kind: { name: 'Worst finding', none: 'Nothing found', of: (all, place) => all.worstKind(place), text: kindPlural, colours: Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, kind === 'wrong' ? '--wrong-finding' : `--${kind}`])) },
};

class MapView {
  constructor(report, index, all, router) {
    Object.assign(this, { report, index, all, router });
    this.node = byId('map-view');
    this.by = 'label';
    // The part of the map in view: what lies at the left top, and pixels of the screen for a step of the map.
    this.view = null;
    this.corners = null;
    this.pointed = -1;
  }

  /** Draws what does not depend on the data. */
  draw() {
    this.meaning = el('select', { id: 'map-by', on: { change: (event) => { this.setMeaning(event.target.value); this.router.note(this.address(), true); } } }, Object.entries(MAP_MEANINGS).map(([value, { name }]) => el('option', { value }, name)));
    const mode = (value, text) => el('label', {}, el('input', { type: 'radio', name: 'map-mode', value, prop: { checked: value === 'select' }, on: { change: () => this.showMode() } }), el('span', {}, text));
    const button = (text, name, act) => el('button', { type: 'button', class: 'quiet', 'aria-label': name, title: name, on: { click: act } }, text);
    this.list = el('button', { type: 'button', id: 'map-list', on: { click: () => this.listView() } }, 'List the images in view');
    this.legend = el('ul', { class: 'map-legend-names', 'aria-label': 'Colours' });
    this.canvas = el('canvas', { tabindex: 0, role: 'img' });
    this.tip = el('div', { class: 'map-tip', hidden: true });
    this.frame = el('div', { class: 'map-frame' }, this.canvas, this.tip);
    this.status = el('p', { class: 'quiet-text', role: 'status' });
    this.wait = el('p', { class: 'empty', role: 'status' }, 'Reading the images …');
    this.parts = el('div', { class: 'body', hidden: true },
      el('p', { class: 'explain' }, 'Each point is an image; images that look alike to the model lie near each other. Draw around points to list their images and to decide about them.'),
      el('div', { class: 'map-tools' },
        el('div', { class: 'map-by' }, el('label', { for: 'map-by' }, 'Colour'), this.meaning),
        el('fieldset', { class: 'segmented' }, el('legend', { class: 'unseen' }, 'Dragging'), mode('select', 'Select'), mode('move', 'Move')),
        el('span', { class: 'zoom' }, button('−', 'Zoom out', () => this.zoomBy(1 / ZOOM_STEP)), button('+', 'Zoom in', () => this.zoomBy(ZOOM_STEP)), button('Fit', 'Show the whole map', () => this.fit())),
        this.list),
      this.frame, this.legend, this.status);
    bodyOf('map-view').append(this.wait, this.parts);
    this.listen();
    const redraw = () => this.paint(true);
    new ResizeObserver(() => this.resize()).observe(this.frame);
    new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ['data-theme'] });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  }

  address() {
    return this.by === 'label' ? '#map' : `#map?by=${this.by}`;
  }

  show({ by }, { asked, focus, scrolled }) {
    document.title = `Map · ${this.report.title ?? 'Camshaft report'}`;
    scrollTo(0, asked ? 0 : scrolled);
    if (focus) this.node.focus({ preventScroll: true });
    const say = (text) => {
      this.wait.textContent = text;
      this.wait.hidden = false;
      this.parts.hidden = true;
    };
    const waiting = inTurn([() => this.all.open(), () => this.all.images.load(['map_x', 'map_y'])]);
    const go = () => this.showMap(by, say);
    if (!waiting) {
      go();
      return;
    }
    say('Reading the images …');
    waiting.then(() => { if (!this.node.hidden) go(); }, (error) => say(error.message));
  }

  showMap(by, say) {
    const { images } = this.all;
    if (!images.has('map_x')) {
      say('There is no map: too few images have an embedding.');
      return;
    }
    this.wait.hidden = true;
    this.parts.hidden = false;
    if (!this.places) {
      const [xs, ys] = ['map_x', 'map_y'].map((name) => images.stored(name));
      this.places = numbersOf(images.count, (place) => place).filter((place) => xs[place] !== 65535);
      Object.assign(this, { xs, ys });
      const left = images.count - this.places.length;
      const why = images.inFiles ? 'the map of a run of this size shows a sample' : 'no embedding was recorded';
      this.status.textContent = `${counted(this.places.length, 'image')} on the map.${left > 0 ? ` Not on it: ${count(left)}, since ${why}.` : ''}`;
    }
    this.resize();
    this.setMeaning(by in MAP_MEANINGS ? by : this.all.label.values.some(Boolean) ? 'label' : 'predicted');
  }

  // Colours.

  /** Gives each point the colour of a name. The most frequent names have colours; the others share one. */
  setMeaning(by) {
    this.by = by;
    this.meaning.value = by;
    const meaning = MAP_MEANINGS[by];
    const byName = new Map();
    for (const place of this.places) {
      const name = meaning.of(this.all, place) ?? null;
      if (!byName.has(name)) byName.set(name, []);
      byName.get(name).push(place);
    }
    const none = byName.get(null) ?? [];
    byName.delete(null);
    const named = [...byName].sort((a, b) => b[1].length - a[1].length);
    const shown = meaning.colours ? named : named.slice(0, named.length > MAP_COLOURS ? MAP_COLOURS - 1 : MAP_COLOURS);
    const groups = shown.map(([name, places], at) => ({ name: meaning.text?.(name) ?? name, places, colour: meaning.colours?.[name] ?? `--map-${at + 1}` }));
    const rest = named.slice(shown.length).flatMap(([, places]) => places);
    if (rest.length > 0) groups.push({ name: `${count(named.length - shown.length)} others`, places: rest, colour: '--map-others' });
    if (none.length > 0) groups.push({ name: meaning.none, places: none, colour: '--map-none' });
    this.groups = groups;
    this.legend.replaceChildren(...groups.map((group) => {
      group.swatch = el('span', { class: 'dot' });
      group.swatch.style.backgroundColor = `var(${group.colour})`;
      return el('li', {}, group.swatch, ' ', group.name, ' ', el('span', { class: 'quiet-text' }, count(group.places.length)));
    }));
    this.canvas.setAttribute('aria-label', `Map of ${counted(this.places.length, 'image')}, coloured by ${meaning.name.toLowerCase()}. Arrow keys move, plus and minus zoom, Enter lists the images in view.`);
    this.paint(true);
  }

  // What is in view.

  resize() {
    const { clientWidth: width, clientHeight: height } = this.frame;
    if (width === 0 || height === 0 || !this.places) return;
    const dense = devicePixelRatio || 1;
    const middle = this.view && this.middle();
    Object.assign(this, { width, height, dense });
    this.canvas.width = Math.round(width * dense);
    this.canvas.height = Math.round(height * dense);
    if (middle) this.putView({ ...this.view, x: middle[0] - width / 2 / this.view.scale, y: middle[1] - height / 2 / this.view.scale });
    else this.fit();
  }

  middle() {
    return [this.view.x + this.width / 2 / this.view.scale, this.view.y + this.height / 2 / this.view.scale];
  }

  /** Shows all points. */
  fit() {
    let [left, right, top, bottom] = [MAP_SIDE, 0, MAP_SIDE, 0];
    for (const place of this.places) {
      left = Math.min(left, this.xs[place]);
      right = Math.max(right, this.xs[place]);
      top = Math.min(top, this.ys[place]);
      bottom = Math.max(bottom, this.ys[place]);
    }
    const margin = MAP_MARGIN * MAP_SIDE;
    const [wide, high] = [right - left + 2 * margin, bottom - top + 2 * margin];
    this.whole = Math.min(this.width / wide, this.height / high);
    const scale = this.whole;
    this.putView({ scale, x: (left + right) / 2 - this.width / 2 / scale, y: (top + bottom) / 2 - this.height / 2 / scale });
  }

  putView(view) {
    this.view = view;
    this.point(-1);
    this.paint();
  }

  /** Zooms by a factor around a point of the frame. */
  zoomBy(factor, x = this.width / 2, y = this.height / 2) {
    const { view } = this;
    const scale = Math.min(MOST_MAP_ZOOM * this.whole, Math.max(this.whole / 2, view.scale * factor));
    this.putView({ scale, x: view.x + x / view.scale - x / scale, y: view.y + y / view.scale - y / scale });
  }

  moveBy(x, y) {
    this.putView({ ...this.view, x: this.view.x + x / this.view.scale, y: this.view.y + y / this.view.scale });
  }

  /** A point of the frame as coordinates of the map. */
  onMap([x, y]) {
    return [this.view.x + x / this.view.scale, this.view.y + y / this.view.scale];
  }

  viewCorners() {
    return [[0, 0], [this.width, 0], [this.width, this.height], [0, this.height]].map((corner) => this.onMap(corner));
  }

  // Drawing.

  /** Draws at the browser's next turn. `recoloured`: the colours may be others. */
  paint(recoloured) {
    if (recoloured) this.colours = null;
    if (!this.view || !this.groups || this.painting) return;
    this.painting = requestAnimationFrame(() => {
      this.painting = 0;
      this.paintNow();
    });
  }

  paintNow() {
    const { canvas, xs, ys, view, dense, width, height } = this;
    const drawing = canvas.getContext('2d');
    this.colours ??= this.groups.map((group) => getComputedStyle(group.swatch).backgroundColor);
    drawing.setTransform(dense, 0, 0, dense, 0, 0);
    drawing.clearRect(0, 0, width, height);
    const few = this.places.length <= FEW_POINTS;
    const radius = Math.min(7, (few ? 3.5 : this.places.length <= 10 * FEW_POINTS ? 1.6 : 1) * Math.sqrt(Math.max(1, view.scale / this.whole)));
    let seen = 0;
    // Rare names last, so that they lie above the others.
    const order = this.groups.map((_, at) => at).sort((a, b) => this.groups[b].places.length - this.groups[a].places.length);
    for (const at of order) {
      drawing.fillStyle = this.colours[at];
      drawing.globalAlpha = few ? 0.9 : 0.75;
      for (const place of this.groups[at].places) {
        const x = (xs[place] - view.x) * view.scale;
        const y = (ys[place] - view.y) * view.scale;
        if (x < -radius || y < -radius || x > width + radius || y > height + radius) continue;
        seen += x >= 0 && y >= 0 && x <= width && y <= height;
        if (few || radius > 3) {
          drawing.beginPath();
          drawing.arc(x, y, radius, 0, 2 * Math.PI);
          drawing.fill();
        } else drawing.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
      }
    }
    drawing.globalAlpha = 1;
    this.paintMarks(drawing, radius);
    this.list.textContent = `List the ${counted(seen, 'image')} in view`;
    this.list.disabled = seen === 0;
    this.seen = seen;
    canvas.dataset.painted = '';
  }

  /** The point under the pointer, and the area that is being drawn. */
  paintMarks(drawing, radius) {
    const ink = getComputedStyle(this.canvas).color;
    drawing.strokeStyle = ink;
    drawing.lineWidth = 1.5;
    if (this.pointed >= 0) {
      drawing.beginPath();
      drawing.arc(...this.onScreen(this.pointed), radius + 3, 0, 2 * Math.PI);
      drawing.stroke();
    }
    if (!this.corners) return;
    drawing.beginPath();
    for (const corner of this.corners) drawing.lineTo(...corner);
    drawing.closePath();
    drawing.globalAlpha = 0.12;
    drawing.fillStyle = ink;
    drawing.fill();
    drawing.globalAlpha = 1;
    drawing.stroke();
  }

  onScreen(place) {
    return [(this.xs[place] - this.view.x) * this.view.scale, (this.ys[place] - this.view.y) * this.view.scale];
  }

  // The pointer.

  showMode() {
    this.frame.classList.toggle('moves', this.isMoving(false));
  }

  /** Whether dragging moves the map. With Shift it does what it else does not. */
  isMoving(shift) {
    return (this.node.querySelector('input[name=map-mode]:checked').value === 'move') !== shift;
  }

  listen() {
    const { canvas } = this;
    const pointers = new Map();
    const place = (event) => {
      const { left, top } = canvas.getBoundingClientRect();
      return [event.clientX - left, event.clientY - top];
    };
    const spread = () => {
      const [[ax, ay], [bx, by]] = [...pointers.values()];
      return { size: Math.hypot(ax - bx, ay - by), x: (ax + bx) / 2, y: (ay + by) / 2 };
    };
    let drag = null;
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), ...place(event));
    }, { passive: false });
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button > 0) return;
      const at = place(event);
      pointers.set(event.pointerId, at);
      canvas.setPointerCapture(event.pointerId);
      drag = pointers.size === 1 ? { from: at, moves: this.isMoving(event.shiftKey), far: false } : null;
      this.corners = null;
    });
    canvas.addEventListener('pointermove', (event) => {
      const at = place(event);
      if (!pointers.has(event.pointerId)) {
        if (event.pointerType !== 'touch') this.point(this.nearest(at));
        return;
      }
      const before = pointers.size === 2 ? spread() : null;
      const [wasX, wasY] = pointers.get(event.pointerId);
      pointers.set(event.pointerId, at);
      if (before && before.size > 0) {
        const now = spread();
        this.moveBy(before.x - now.x, before.y - now.y);
        this.zoomBy(now.size / before.size, now.x, now.y);
      } else if (drag) {
        drag.far ||= Math.hypot(at[0] - drag.from[0], at[1] - drag.from[1]) > DRAGGED_PIXELS;
        if (!drag.far) return;
        if (drag.moves) this.moveBy(wasX - at[0], wasY - at[1]);
        else {
          this.corners ??= [drag.from];
          this.corners.push(at);
          this.point(-1);
          this.paint();
        }
      }
    });
    canvas.addEventListener('pointerup', (event) => {
      if (!pointers.delete(event.pointerId) || !drag) return;
      const { corners } = this;
      this.corners = null;
      if (corners) this.listArea(corners.map((corner) => this.onMap(corner)));
      else if (!drag.far) this.openImage(this.nearest(place(event)));
      drag = null;
    });
    canvas.addEventListener('pointercancel', (event) => {
      pointers.delete(event.pointerId);
      [drag, this.corners] = [null, null];
      this.paint();
    });
    canvas.addEventListener('pointerleave', () => this.point(-1));
  }

  /** The place of the nearest point; -1 if none is near. */
  nearest([x, y]) {
    if (!this.view) return -1;
    const [mapX, mapY] = this.onMap([x, y]);
    let [best, least] = [-1, (POINTING_PIXELS / this.view.scale) ** 2];
    for (const place of this.places) {
      const far = (this.xs[place] - mapX) ** 2 + (this.ys[place] - mapY) ** 2;
      if (far < least) [best, least] = [place, far];
    }
    return best;
  }

  /** Shows the image of a point beside it; -1 for none. */
  point(place) {
    if (place === this.pointed) return;
    this.pointed = place;
    this.canvas.classList.toggle('points', place >= 0);
    this.tip.hidden = true;
    this.paint();
    if (place < 0) return;
    const entry = this.all.entries[place];
    const show = () => {
      if (this.pointed !== place) return;
      const facts = this.index.facts(entry);
      const box = el('span', { class: 'box' });
      showPicture(box, pictureSources(facts, false), facts.key, facts.failure ? 'Can\u2019t be read' : 'No thumbnail');
      const given = facts.label_class ?? facts.label;
      this.tip.replaceChildren(box, el('span', { class: 'key' }, facts.key.slice(facts.key.lastIndexOf('/') + 1)), el('span', {}, [given && `given ${given}`, facts.predicted && `predicted ${predictionWords(facts)}`].filter(Boolean).join(', ')));
      this.tip.hidden = false;
      const [x, y] = this.onScreen(place);
      const { offsetWidth: wide, offsetHeight: high } = this.tip;
      this.tip.style.left = `${Math.max(0, Math.min(this.width - wide, x + (x + 14 + wide > this.width ? -wide - 14 : 14)))}px`;
      this.tip.style.top = `${Math.max(0, Math.min(this.height - high, y - high / 2))}px`;
    };
    const waiting = this.all.loadKeys([entry]);
    if (waiting) waiting.then(show, () => {});
    else show();
  }

  openImage(place) {
    if (place < 0) return;
    const entry = this.all.entries[place];
    const go = () => this.router.go(imageAddress(this.index.keyOf(entry), everything('images')));
    const waiting = this.all.loadKeys([entry]);
    if (waiting) waiting.then(go, () => {});
    else go();
  }

  listArea(corners) {
    const area = areaText(corners);
    const read = readArea(area);
    const inside = read && insideOf(read);
    if (inside && this.places.some((place) => inside(this.xs[place], this.ys[place]))) this.router.go(workAddress({ ...everything('images'), area }));
    else this.paint();
  }

  listView() {
    this.listArea(this.viewCorners());
  }

  /** Does what a key says. Returns whether it is a key of the map. */
  key(key) {
    if (this.parts.hidden) return false;
    const step = Math.min(this.width, this.height) / 8;
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const focused = document.activeElement === this.canvas;
    if (key === '+' || key === '=') this.zoomBy(ZOOM_STEP);
    else if (key === '-' || key === '−') this.zoomBy(1 / ZOOM_STEP);
    else if (key === '0') this.fit();
    else if (focused && key in ways) this.moveBy(...ways[key]);
    else if (focused && key === 'Enter') this.listView();
    else return false;
    return true;
  }
}
