// Heat over a thumbnail, drawn from a map's cells. Maps that are to be compared share one scale, which
// overlay files do not: there each map is scaled by its own maximum.

// Pixels of a drawn cell. The browser stretches the drawing to the picture.
const CELL_PIXELS = 12;
// Where nothing speaks for a class, the picture stays as it is; elsewhere this share of it is covered at most.
const MOST_OPAQUE = 0.8;

/** The levels of a map's cells, 0 to 1: two hexadecimal digits each. */
const mapLevels = (digits) => Array.from({ length: digits.length / 2 }, (_, cell) => parseInt(digits.slice(2 * cell, 2 * cell + 2), 16) / 255);

/** A canvas with the heat of a map: bilinear between the middles of the cells. */
function heatCanvas(levels, height, width) {
  const canvas = el('canvas', { class: 'map-heat', width: width * CELL_PIXELS, height: height * CELL_PIXELS, 'aria-hidden': 'true' });
  const drawing = canvas.getContext('2d');
  const pixels = drawing.createImageData(canvas.width, canvas.height);
  const between = (position, cells) => {
    const clamped = Math.min(cells - 1, Math.max(0, (position + 0.5) / CELL_PIXELS - 0.5));
    const before = Math.min(Math.floor(clamped), Math.max(0, cells - 2));
    return [before, Math.min(before + 1, cells - 1), clamped - before];
  };
  for (let y = 0; y < canvas.height; y += 1) {
    const [top, bottom, down] = between(y, height);
    for (let x = 0; x < canvas.width; x += 1) {
      const [left, right, across] = between(x, width);
      const row = (at) => levels[at * width + left] * (1 - across) + levels[at * width + right] * across;
      const level = row(top) * (1 - down) + row(bottom) * down;
      pixels.data.set([...rampParts(0.35 + 0.65 * level), 255 * MOST_OPAQUE * Math.min(1, 1.4 * level)], 4 * (y * canvas.width + x));
    }
  }
  drawing.putImageData(pixels, 0, 0);
  return canvas;
}

/** Lays the canvas over the part `region` of the image, which is centred in its box. */
function placeHeat(canvas, image, region) {
  const [left, top, right, bottom] = region ?? [0, 0, 1, 1];
  const { width: boxWidth, height: boxHeight } = image.getBoundingClientRect();
  const shape = image.naturalWidth / image.naturalHeight;
  if (!(shape > 0 && boxWidth > 0 && boxHeight > 0)) return;
  const [shownWidth, shownHeight] = shape > boxWidth / boxHeight ? [1, boxWidth / boxHeight / shape] : [shape / (boxWidth / boxHeight), 1];
  const share = (value) => `${(100 * value).toFixed(3)}%`;
  canvas.style.left = share((1 - shownWidth) / 2 + left * shownWidth);
  canvas.style.top = share((1 - shownHeight) / 2 + top * shownHeight);
  canvas.style.width = share((right - left) * shownWidth);
  canvas.style.height = share((bottom - top) * shownHeight);
}
