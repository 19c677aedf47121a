// Heat over a picture, drawn from a map's cells: turbo, as opaque as it is hot, so that what is cold
// stays the photograph. Maps that are to be compared share one scale, which overlay files do not: there
// each map is scaled by its own maximum.

// Turbo (Mikhailov 2019) at 25 levels, the coldest first. Between them colours are mixed, which is at
// most 7 of 255 off.
const TURBO = [
  0x22171b, 0x433088, 0x4a4ccb, 0x4469ee, 0x3886f8, 0x2ca2f2, 0x25bce1, 0x26d2c9, 0x2ee4ae,
  0x3ff293, 0x57fa79, 0x74fd63, 0x94fa50, 0xb5f141, 0xd3e336, 0xecd02d, 0xfdb927, 0xff9e22,
  0xff821d, 0xf96418, 0xe44813, 0xca2e0c, 0xaf1a05, 0x980d00, 0x900c00,
];

// Pixels of a drawn cell. The browser stretches the drawing to the picture.
const CELL_PIXELS = 8;

/** 256 colours of four bytes: turbo, and the level itself as opacity. */
const HEAT_COLOURS = (() => {
  const parts = (colour) => [colour >> 16, (colour >> 8) & 255, colour & 255];
  const colours = new Uint8ClampedArray(4 * 256);
  for (let level = 0; level < 256; level += 1) {
    const position = (level / 255) * (TURBO.length - 1);
    const below = Math.min(TURBO.length - 2, Math.floor(position));
    const [from, to] = [parts(TURBO[below]), parts(TURBO[below + 1])];
    for (let channel = 0; channel < 3; channel += 1) colours[4 * level + channel] = from[channel] + (to[channel] - from[channel]) * (position - below);
    colours[4 * level + 3] = level;
  }
  return colours;
})();

/** The levels of a map's cells, 0 to 255: two hexadecimal digits each. */
const mapLevels = (digits) => Array.from({ length: digits.length / 2 }, (_, cell) => parseInt(digits.slice(2 * cell, 2 * cell + 2), 16));

/** A canvas with the heat of a map: bilinear between the middles of the cells. */
function heatCanvas(digits, height, width) {
  const levels = mapLevels(digits);
  const canvas = el('canvas', { class: 'map-heat', width: width * CELL_PIXELS, height: height * CELL_PIXELS, 'aria-hidden': 'true' });
  const drawing = canvas.getContext('2d');
  const pixels = drawing.createImageData(canvas.width, canvas.height);
  /** For each pixel of a side the two cells that it lies between, and how near it is to the second. */
  const between = (cells) => Array.from({ length: cells * CELL_PIXELS }, (_, position) => {
    const clamped = Math.min(cells - 1, Math.max(0, (position + 0.5) / CELL_PIXELS - 0.5));
    const before = Math.min(Math.floor(clamped), Math.max(0, cells - 2));
    return [before, Math.min(before + 1, cells - 1), clamped - before];
  });
  const columns = between(width);
  let at = 0;
  for (const [top, bottom, down] of between(height)) {
    for (const [left, right, across] of columns) {
      const mix = (row) => levels[row * width + left] * (1 - across) + levels[row * width + right] * across;
      const colour = 4 * Math.round(mix(top) * (1 - down) + mix(bottom) * down);
      for (let channel = 0; channel < 4; channel += 1) pixels.data[at + channel] = HEAT_COLOURS[colour + channel];
      at += 4;
    }
  }
  drawing.putImageData(pixels, 0, 0);
  return canvas;
}

/** Lays the canvas over the part `region` of the image, which is centred in its box. */
function placeHeat(canvas, image, region) {
  const [left, top, right, bottom] = region ?? [0, 0, 1, 1];
  // Layout sizes: those on the screen are of the zoomed picture.
  const { clientWidth: boxWidth, clientHeight: boxHeight } = image;
  const shape = image.naturalWidth / image.naturalHeight;
  if (!(shape > 0 && boxWidth > 0 && boxHeight > 0)) return;
  const [shownWidth, shownHeight] = shape > boxWidth / boxHeight ? [1, boxWidth / boxHeight / shape] : [shape / (boxWidth / boxHeight), 1];
  const share = (value) => `${(100 * value).toFixed(3)}%`;
  canvas.style.left = share((1 - shownWidth) / 2 + left * shownWidth);
  canvas.style.top = share((1 - shownHeight) / 2 + top * shownHeight);
  canvas.style.width = share((right - left) * shownWidth);
  canvas.style.height = share((bottom - top) * shownHeight);
}

/** The colours of heat, from cold to hot. */
function heatLegend() {
  const steps = TURBO.map((colour, step) => svg('rect', { x: step, y: 0, width: 1.05, height: 1, fill: `#${colour.toString(16).padStart(6, '0')}`, 'fill-opacity': step / (TURBO.length - 1) }));
  return el('p', { class: 'map-legend' }, 'cold', svg('svg', { viewBox: `0 0 ${TURBO.length} 1`, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, steps), 'hot');
}
