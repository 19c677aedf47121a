"""Questions that report_page.py asks inside the page: each is JavaScript that returns a list of
complaints, empty if all is well. The questions suit any page, not only reports."""

ACCESSIBILITY = """() => {
  const complaints = [];
  const say = (node, what) => complaints.push(`${what}: ${node.outerHTML.slice(0, 160)}`);
  const named = (node) => node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.textContent.trim();
  for (const img of document.querySelectorAll('img')) if (!img.alt) say(img, 'an image without alt');
  for (const control of document.querySelectorAll('input, select, textarea')) {
    if (![...control.labels].some((label) => label.textContent.trim()) && !control.getAttribute('aria-label')) say(control, 'a control without a label');
  }
  for (const control of document.querySelectorAll('button, a, summary')) {
    if (!named(control) && !control.querySelector('img[alt]')) say(control, 'a button or link without a name');
  }
  for (const drawing of document.querySelectorAll('main svg:not([aria-hidden])')) {
    if (drawing.getAttribute('role') !== 'img' || !drawing.getAttribute('aria-label')) say(drawing, 'a drawing without role and label');
  }
  for (const table of document.querySelectorAll('table')) if (!table.caption) say(table, 'a table without a caption');
  const heads = [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].filter((head) => head.checkVisibility());
  if (heads.filter((head) => head.tagName === 'H1').length !== 1) complaints.push('not exactly one h1');
  let before = 0;
  for (const head of heads) {
    const level = Number(head.tagName[1]);
    if (level > before + 1) say(head, `a heading that skips from h${before}`);
    if (!head.textContent.trim()) say(head, 'an empty heading');
    before = level;
  }
  const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) complaints.push(`the id ${id} is there twice`);
  for (const landmark of ['main', 'nav', 'header', 'footer']) if (!document.querySelector(landmark)) complaints.push(`no <${landmark}>`);
  if (!document.documentElement.lang) complaints.push('no language');
  if (document.querySelector('input[type=search]') && !document.querySelector('[role=status], [aria-live]')) complaints.push('nothing announces changes');
  return complaints;
}"""

# Text against the nearest backgrounds below it, mixed where they are translucent (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const known = new Map();
  const channels = (colour) => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(colour, [red, green, blue, alpha / 255]);
    }
    return known.get(colour);
  };
  const luminance = (colour) => colour.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((total, value, at) => total + value * [0.2126, 0.7152, 0.0722][at], 0);
  const over = (top, bottom) => [0, 1, 2].map((at) => top[at] * top[3] + bottom[at] * (1 - top[3])).concat(1);
  const below = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((bottom, top) => over(top, bottom), [255, 255, 255, 1]);
  };
  const complaints = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || node.closest('script, noscript, svg title, .unseen, option') || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const ground = below(node);
    const ink = over(channels(node instanceof SVGElement ? style.fill : style.color), ground);
    const [light, dark] = [luminance(ink), luminance(ground)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) complaints.add(`${ratio.toFixed(2)} for "${walker.currentNode.data.trim().slice(0, 40)}" (${node.className.baseVal ?? node.className})`);
  }
  return [...complaints];
}"""

OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const wide = [...document.querySelectorAll('body *')].filter((node) => node.getBoundingClientRect().right > width + 1 && !node.closest('.scroll, #nav'));
  return [`the page is ${document.documentElement.scrollWidth} wide in ${width}`, ...wide.slice(0, 5).map((node) => node.outerHTML.slice(0, 160))];
}"""

# Pictures that could not be loaded.
PICTURES = """() => [...document.querySelectorAll('.placeholder')].filter((node) => node.textContent === 'Not found').map((node) => (node.closest('li, [role=listitem]') ?? node.parentElement).textContent.slice(0, 120))"""

WATCH_SHIFTS = """() => {
  window.shifts = [];
  new PerformanceObserver((seen) => {
    for (const entry of seen.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value);
  }).observe({ type: 'layout-shift' });
}"""

SCROLL_THROUGH = """async () => {
  for (let top = 0; top < document.documentElement.scrollHeight; top += innerHeight * 0.8) {
    scrollTo(0, top);
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  await Promise.all([...document.images].filter((img) => !img.complete).map((img) => new Promise((resolve) => {
    img.addEventListener('load', resolve);
    img.addEventListener('error', resolve);
    setTimeout(resolve, 5000);
  })));
}"""

# What is wrong with the grid of the work list as it stands on the screen: tiles that are missing, and too
# many that are not seen. The current tile stays wherever it is.
GRID = """() => {
  const holder = document.querySelector('.grid-holder');
  const tiles = [...holder.children].map((tile) => ({ at: Number(tile.getAttribute('aria-posinset')), box: tile.getBoundingClientRect(), size: Number(tile.getAttribute('aria-setsize')) }));
  const complaints = [];
  if (tiles.length > 400) complaints.push(`${tiles.length} tiles are there at once`);
  const ordered = tiles.every((tile, number) => number === 0 || tile.at > tiles[number - 1].at);
  if (!ordered) complaints.push('tiles are out of order');
  const area = holder.getBoundingClientRect();
  const [top, bottom] = [Math.max(0, area.top), Math.min(innerHeight, area.bottom)];
  const seen = tiles.filter((tile) => tile.box.bottom > top && tile.box.top < bottom);
  if (seen.length === 0) return [...complaints, 'no tile is on the screen'];
  seen.forEach((tile, number) => { if (number > 0 && tile.at !== seen[number - 1].at + 1) complaints.push(`a gap before tile ${tile.at}`); });
  const row = tiles[0].box.height + 12;
  if (seen[0].box.top > top + row) complaints.push('a gap at the top');
  if (seen.at(-1).box.bottom < bottom - row && seen.at(-1).at !== seen.at(-1).size) complaints.push('a gap at the bottom');
  return complaints;
}"""

# The opacity of the heat over each large picture, and how the heat lies on it: shares of the picture's box.
HEAT = """() => [...document.querySelectorAll('.stage canvas')].map((canvas) => {
  const [heat, box] = [canvas.getBoundingClientRect(), canvas.parentElement.getBoundingClientRect()];
  return { opacity: Number(canvas.style.opacity), width: heat.width / box.width, height: heat.height / box.height };
})"""
