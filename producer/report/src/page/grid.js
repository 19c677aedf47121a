// A grid of very many tiles, of which only those on the screen exist. Scrolls with the page. Owns which
// tile is current, and draws no tile itself.

// Rows beyond the screen that are drawn, so that none is missing while the page scrolls.
const SPARE_ROWS = 3;

class VirtualGrid {
  /** `make(position)` returns a tile; `covered()` is the height that lies over the top of the screen. */
  constructor({ label, make, covered }) {
    this.make = make;
    this.covered = covered;
    this.length = 0;
    this.current = 0;
    this.tiles = new Map();
    this.node = el('div', { class: 'grid-holder', role: 'list', 'aria-label': label });
    addEventListener('scroll', () => this.draw(), { passive: true });
    new ResizeObserver(() => { if (this.measure()) this.redraw(); }).observe(this.node);
  }

  /** The columns and sizes at this width. Returns whether they changed. */
  measure() {
    const width = this.node.clientWidth;
    if (width === 0) return false;
    const style = getComputedStyle(this.node);
    const [least, gap, text] = ['--tile', '--tile-gap', '--tile-text'].map((name) => parseFloat(style.getPropertyValue(name)));
    const columns = Math.max(2, Math.floor((width + gap) / (least + gap)));
    const tile = (width - gap * (columns - 1)) / columns;
    const row = Math.round(tile + text + gap);
    if (columns === this.columns && tile === this.tile && row === this.row) return false;
    Object.assign(this, { columns, tile, row, gap });
    return true;
  }

  /** Shows `length` new tiles. */
  reset(length, current = 0) {
    this.length = length;
    this.current = Math.max(0, Math.min(current, length - 1));
    this.measure();
    this.redraw();
  }

  /** Draws all tiles on the screen anew. */
  redraw() {
    if (!this.columns) return;
    const focused = this.node.contains(document.activeElement);
    this.node.style.height = `${Math.ceil(this.length / this.columns) * this.row}px`;
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
    this.draw();
    if (focused) this.focus(this.current);
  }

  /** Draws those of these positions anew that exist. */
  refresh(positions) {
    for (const at of positions) {
      const old = this.tiles.get(at);
      if (!old) continue;
      const focused = old.contains(document.activeElement);
      const tile = this.place(at);
      old.replaceWith(tile);
      this.tiles.set(at, tile);
      if (focused) tile.firstElementChild.focus({ preventScroll: true });
    }
  }

  place(at) {
    const tile = this.make(at);
    tile.setAttribute('role', 'listitem');
    tile.setAttribute('aria-setsize', this.length);
    tile.setAttribute('aria-posinset', at + 1);
    const column = at % this.columns;
    tile.style.width = `${this.tile}px`;
    tile.style.height = `${this.row - this.gap}px`;
    tile.style.left = `${column * (this.tile + this.gap)}px`;
    tile.style.top = `${Math.floor(at / this.columns) * this.row}px`;
    tile.firstElementChild.tabIndex = at === this.current ? 0 : -1;
    return tile;
  }

  draw() {
    if (!this.columns || this.node.clientWidth === 0) return;
    const above = -this.node.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(above / this.row) - SPARE_ROWS) * this.columns;
    const last = Math.min(this.length, (Math.ceil((above + innerHeight) / this.row) + SPARE_ROWS) * this.columns);
    const wanted = [];
    for (let at = first; at < last; at += 1) wanted.push(at);
    // The current tile stays, so that the focus is not lost when it scrolls away.
    if (this.length > 0 && (this.current < first || this.current >= last)) {
      if (this.current < first) wanted.unshift(this.current);
      else wanted.push(this.current);
    }
    const keep = new Set(wanted);
    for (const [at, tile] of this.tiles) {
      if (keep.has(at)) continue;
      tile.remove();
      this.tiles.delete(at);
    }
    let next = this.node.firstChild;
    for (const at of wanted) {
      const tile = this.tiles.get(at);
      if (tile) {
        next = tile.nextSibling;
        continue;
      }
      const made = this.place(at);
      this.tiles.set(at, made);
      this.node.insertBefore(made, next);
    }
  }

  /** Makes a tile the current one, scrolls it into sight, and moves the focus there. */
  focus(position, { quiet = false } = {}) {
    if (this.length === 0) return;
    const at = Math.max(0, Math.min(position, this.length - 1));
    const before = this.tiles.get(this.current);
    if (before) before.firstElementChild.tabIndex = -1;
    this.current = at;
    this.reveal(at);
    this.draw();
    const link = this.tiles.get(at)?.firstElementChild;
    if (!link) return;
    link.tabIndex = 0;
    if (!quiet) link.focus({ preventScroll: true });
  }

  reveal(at) {
    const top = this.node.getBoundingClientRect().top + Math.floor(at / this.columns) * this.row;
    const covered = this.covered() + 8;
    if (top < covered) scrollBy(0, top - covered);
    else if (top + this.row > innerHeight) scrollBy(0, top + this.row - innerHeight);
  }

  /** The tile that a key leads to, or null if it is no key of the grid. */
  target(key) {
    const page = Math.max(1, Math.floor((innerHeight - this.covered()) / this.row)) * this.columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, j: 1, p: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: page, PageUp: -page };
    if (key === 'Home') return 0;
    if (key === 'End') return this.length - 1;
    return key in steps ? Math.max(0, Math.min(this.length - 1, this.current + steps[key])) : null;
  }
}
