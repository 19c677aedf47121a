// A large picture that can be zoomed and moved, with heat over it. Several stages beside each other show
// the same part at the same size. Owns the zoom; not which pictures are shown.

const MOST_ZOOM = 16;
const ZOOM_STEP = 1.5;

class StageGroup {
  constructor() {
    this.stages = [];
    this.zoom = { scale: 1, x: 0, y: 0 };
    this.opacity = Number(memory.get('heat-opacity') ?? 0.7);
  }

  /** A figure with the first of `sources` that loads. `maps` and `digits` draw the heat; without them there is none. */
  add({ sources, alt, caption, missing, maps, digits }) {
    const moved = el('div', { class: 'stage-moved' });
    const note = el('span', { class: 'quiet-text' });
    const stage = el('div', { class: 'stage' }, moved);
    showPicture(moved, sources, alt, missing, (image, overlaid) => {
      if (overlaid) note.textContent = ' \u00b7 only its overlay could be found';
      if (!digits || overlaid) return;
      const canvas = heatCanvas(digits, maps.height, maps.width);
      moved.append(canvas);
      canvas.style.opacity = this.opacity;
      const place = () => placeHeat(canvas, image, maps.region);
      place();
      new ResizeObserver(place).observe(image);
    });
    this.stages.push({ stage, moved });
    this.listen(stage);
    return el('figure', { class: 'stage-figure' }, stage, el('figcaption', {}, caption, note));
  }

  setOpacity(value) {
    this.opacity = value;
    memory.set('heat-opacity', value);
    for (const { moved } of this.stages) for (const canvas of moved.querySelectorAll('canvas')) canvas.style.opacity = value;
  }

  /** Zooms by a factor around a point of the stage, given as shares of its sides from the middle. */
  zoomBy(factor, x = 0, y = 0) {
    const scale = Math.min(MOST_ZOOM, Math.max(1, this.zoom.scale * factor));
    const by = scale / this.zoom.scale;
    this.put({ scale, x: x - (x - this.zoom.x) * by, y: y - (y - this.zoom.y) * by });
  }

  moveBy(x, y) {
    this.put({ ...this.zoom, x: this.zoom.x + x, y: this.zoom.y + y });
  }

  fit() {
    this.put({ scale: 1, x: 0, y: 0 });
  }

  put({ scale, x, y }) {
    // The picture always covers the stage.
    const most = (scale - 1) / 2;
    const bound = (value) => Math.min(most, Math.max(-most, value));
    this.zoom = { scale, x: bound(x), y: bound(y) };
    for (const { stage, moved } of this.stages) {
      moved.style.transform = `translate(${100 * this.zoom.x}%, ${100 * this.zoom.y}%) scale(${scale})`;
      stage.classList.toggle('zoomed', scale > 1);
    }
    this.onzoom?.(scale);
  }

  /** The mouse wheel and two fingers zoom, dragging moves, a double click zooms in or fits. */
  listen(stage) {
    const pointers = new Map();
    const place = (event) => {
      const { left, top, width, height } = stage.getBoundingClientRect();
      return [(event.clientX - left) / width - 0.5, (event.clientY - top) / height - 0.5];
    };
    const spread = () => {
      const [[ax, ay], [bx, by]] = [...pointers.values()];
      return { size: Math.hypot(ax - bx, ay - by), x: (ax + bx) / 2, y: (ay + by) / 2 };
    };
    stage.addEventListener('wheel', (event) => {
      // At its full size the page scrolls on, unless the reader zooms in on purpose.
      if (this.zoom.scale === 1 && !(event.deltaY < 0 && (event.ctrlKey || event.altKey)) && !stage.matches(':focus-within')) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), ...place(event));
    }, { passive: false });
    stage.addEventListener('dblclick', (event) => (this.zoom.scale > 1 ? this.fit() : this.zoomBy(3, ...place(event))));
    stage.addEventListener('pointerdown', (event) => {
      pointers.set(event.pointerId, place(event));
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener('pointermove', (event) => {
      if (!pointers.has(event.pointerId)) return;
      const before = pointers.size === 2 ? spread() : null;
      const [wasX, wasY] = pointers.get(event.pointerId);
      const [x, y] = place(event);
      pointers.set(event.pointerId, [x, y]);
      if (before && before.size > 0) {
        const now = spread();
        this.zoomBy(now.size / before.size, now.x, now.y);
      } else if (this.zoom.scale > 1) this.moveBy(x - wasX, y - wasY);
    });
    for (const end of ['pointerup', 'pointercancel']) stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
}
