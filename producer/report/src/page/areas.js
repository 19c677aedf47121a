// Areas of the map: polygons that a reader draws, as text in an address, and which points lie inside.
// Coordinates are those of the images' data, 0 to 65,534.

// Corners of an area. More would make long addresses, and no difference that can be seen.
const MOST_CORNERS = 60;

/** The text of a polygon of [x, y]. */
function areaText(corners) {
  const step = Math.max(1, Math.ceil(corners.length / MOST_CORNERS));
  const bound = (value) => Math.min(65535, Math.max(0, Math.round(value)));
  return corners.filter((_, at) => at % step === 0).map(([x, y]) => `${bound(x).toString(36)}.${bound(y).toString(36)}`).join('-');
}

/** The polygon of a text; null if it is none. */
function readArea(text) {
  const corners = String(text ?? '').split('-').map((corner) => corner.split('.').map((part) => (/^[0-9a-z]{1,4}$/.test(part) ? parseInt(part, 36) : Number.NaN)));
  return corners.length >= 3 && corners.every((corner) => corner.length === 2 && corner.every((value) => value <= 65535)) ? corners : null;
}

/** A test of points: whether they lie inside of a polygon. */
function insideOf(corners) {
  const [xs, ys] = [0, 1].map((side) => corners.map((corner) => corner[side]));
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  return (x, y) => {
    if (x < left || x > right || y < top || y > bottom) return false;
    let inside = false;
    for (let at = 0, before = corners.length - 1; at < corners.length; before = at, at += 1) {
      const crosses = (ys[at] > y) !== (ys[before] > y) && x < ((xs[before] - xs[at]) * (y - ys[at])) / (ys[before] - ys[at]) + xs[at];
      if (crosses) inside = !inside;
    }
    return inside;
  };
}
