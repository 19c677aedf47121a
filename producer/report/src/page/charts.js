// The drawings: reliability diagram, confidence histogram, maps and bars, as plain SVG.
// Each function takes numbers and returns nodes. Colours come from page.css, except those of maps.

const HEIGHT = 264;
const TOP = 30;
const BOTTOM = 218;
const LEFT = 50;
const RIGHT_EDGE = 12;

/** Draws at the available width, one unit a pixel, so that letters keep their size. */
function fitted(draw) {
  const holder = el('div', { class: 'chart-holder' });
  let width = 0;
  new ResizeObserver(([entry]) => {
    const next = Math.round(entry.contentRect.width);
    if (next === width || next === 0) return;
    width = next;
    holder.replaceChildren(draw(width));
  }).observe(holder);
  return holder;
}

const plotX = (share, width) => LEFT + share * (width - LEFT - RIGHT_EDGE);
const plotY = (share) => BOTTOM - share * (BOTTOM - TOP);

/** The axes: percent along the bottom, and quarters up the side, labelled by `sideText`. */
function axes({ label, bottom, side, sideText, width }) {
  const quarters = [0, 0.25, 0.5, 0.75, 1];
  return svg('svg', { class: 'chart', viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', 'aria-label': label },
    quarters.map((share) => [
      svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT_EDGE, y1: plotY(share), y2: plotY(share) }),
      svg('text', { class: 'tick', x: LEFT - 8, y: plotY(share) + 4, 'text-anchor': 'end' }, sideText(share)),
      svg('text', { class: 'tick', x: plotX(share, width) + (share === 1 ? RIGHT_EDGE : 0), y: BOTTOM + 18, 'text-anchor': share === 1 ? 'end' : 'middle' }, percent(share, 0)),
    ]),
    svg('text', { class: 'axis', x: (LEFT + width - RIGHT_EDGE) / 2, y: HEIGHT - 6, 'text-anchor': 'middle' }, bottom),
    svg('text', { class: 'axis', x: 0, y: 12 }, side));
}

/** The accuracy of the model against its confidence. On the diagonal both are equal. */
function reliabilityDiagram(bins, ece) {
  const used = bins.filter((bin) => bin.count > 0 && isNumber(bin.confidence) && isNumber(bin.accuracy));
  const largest = Math.max(1, ...used.map((bin) => bin.count));
  const label = `Reliability diagram. Expected calibration error ${decimal(ece, 3)}. `
    + used.map((bin) => `At ${percent(bin.confidence, 0)} confidence ${percent(bin.accuracy, 0)} right, ${counted(bin.count, 'image')}`).join('; ');
  return fitted((width) => {
    const x = (bin) => plotX(bin.confidence, width);
    const chart = axes({ label, bottom: 'Confidence', side: 'Accuracy', sideText: (share) => percent(share, 0), width });
    chart.append(
      svg('line', { class: 'ideal', x1: plotX(0, width), y1: plotY(0), x2: plotX(1, width), y2: plotY(1) }),
      ...used.map((bin) => svg('line', { class: 'gap', x1: x(bin), x2: x(bin), y1: plotY(bin.confidence), y2: plotY(bin.accuracy) })),
      svg('polyline', { class: 'curve', points: used.map((bin) => `${x(bin)},${plotY(bin.accuracy)}`).join(' ') }),
      ...used.map((bin) => svg('circle', { class: 'point', cx: x(bin), cy: plotY(bin.accuracy), r: 3 + 6 * Math.sqrt(bin.count / largest) },
        svg('title', {}, `${counted(bin.count, 'image')}: ${percent(bin.confidence)} sure, ${percent(bin.accuracy)} right`))));
    return chart;
  });
}

/** A round number at or above `value`, whose quarters are whole numbers. */
function niceTop(value) {
  const scale = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10, 12].map((step) => Math.round(step * scale)).find((top) => top >= value && top % 4 === 0);
}

/** The number of images by confidence: right, wrong and without a label. */
function confidenceHistogram(bins) {
  const parts = ['right', 'wrong', 'unlabelled'];
  const names = { right: 'right', wrong: 'wrong', unlabelled: 'without a label' };
  const total = (part) => sum(bins.map((bin) => bin[part]));
  const top = niceTop(Math.max(...bins.map((bin) => sum(parts.map((part) => bin[part])))));
  const label = `Histogram of confidence: ${parts.map((part) => `${count(total(part))} ${names[part]}`).join(', ')}. `
    + `${count(sum(bins.filter((bin) => bin.from >= 0.8999).map((bin) => bin.wrong)))} of the wrong ones at ${percent(0.9, 0)} or more`;
  return fitted((width) => {
    const chart = axes({ label, bottom: 'Confidence', side: 'Images', sideText: (share) => count(share * top), width });
    for (const bin of bins) {
      let base = BOTTOM;
      for (const part of parts) {
        if (!(bin[part] > 0)) continue;
        // A single wrong image among thousands has to stay visible.
        const height = Math.max(2, BOTTOM - plotY(bin[part] / top));
        base -= height;
        const from = plotX(bin.from, width);
        chart.append(svg('rect', { class: part, x: from + 1, width: Math.max(1, plotX(bin.to, width) - from - 2), y: base, height },
          svg('title', {}, `${percent(bin.from, 0)} to ${percent(bin.to, 0)}: ${count(bin[part])} ${names[part]}`)));
      }
    }
    return chart;
  });
}

function legend(entries) {
  return el('ul', { class: 'legend' }, entries.map(([name, text]) => el('li', {}, el('span', { class: `swatch ${name}` }), text)));
}

// The colours of maps, from cold to hot, as red, green and blue.
const RAMP = [[30, 35, 82], [88, 45, 128], [172, 58, 118], [232, 112, 84], [250, 226, 150]];

function rampParts(share) {
  const position = Math.min(1, Math.max(0, share)) * (RAMP.length - 1);
  const below = Math.min(RAMP.length - 2, Math.floor(position));
  return RAMP[below].map((from, channel) => Math.round(from + (RAMP[below + 1][channel] - from) * (position - below)));
}

const rampColour = (share) => `rgb(${rampParts(share).join(',')})`;

const hasMap = (map) => map && map.height > 0 && map.width > 0 && list(map.values).length === map.height * map.width;

/** A mean map, one square a cell; the brightest cell has the most attention. */
function mapGrid(map, name) {
  if (!hasMap(map)) return el('div', { class: 'map' }, el('span', { class: 'placeholder' }, 'No map'));
  const { height, width, values } = map;
  const largest = values.indexOf(Math.max(...values));
  const label = `${name}: strongest at row ${Math.floor(largest / width) + 1} of ${height}, column ${(largest % width) + 1} of ${width}, ${decimal(values[largest])}`;
  return svg('svg', { class: 'map', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label, 'shape-rendering': 'crispEdges', preserveAspectRatio: 'none' },
    svg('title', {}, label),
    values.map((value, cell) => svg('rect', { x: cell % width, y: Math.floor(cell / width), width: 1, height: 1, fill: rampColour(value) })));
}

function mapNumbers(map, name) {
  if (!hasMap(map)) return null;
  const columns = Array.from({ length: map.width }, (_, column) => String(column + 1));
  const rows = Array.from({ length: map.height }, (_, row) =>
    [String(row + 1), ...map.values.slice(row * map.width, (row + 1) * map.width).map((value) => decimal(value))]);
  return numbers(name, ['Row', ...columns], rows);
}

function mapLegend() {
  const steps = Array.from({ length: 24 }, (_, step) => svg('rect', { x: step, y: 0, width: 1.05, height: 1, fill: rampColour(step / 23) }));
  return el('p', { class: 'map-legend' }, 'least attention', svg('svg', { viewBox: '0 0 24 1', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, steps), 'most attention');
}

/** Bars that compare a few named amounts; `text` is the amount as text. */
function bars(label, entries) {
  const largest = Math.max(...entries.map((entry) => entry.value), 0) || 1;
  return el('ul', { class: 'bars', 'aria-label': label }, entries.map((entry) => {
    const bar = el('span', { class: `bar ${entry.tone ?? ''}` });
    bar.style.width = `${Math.max(0.5, (100 * entry.value) / largest)}%`;
    return el('li', {}, el('span', { class: 'bar-name' }, entry.name), el('span', { class: 'bar-track', 'aria-hidden': 'true' }, bar), el('span', { class: 'bar-value' }, entry.text));
  }));
}
