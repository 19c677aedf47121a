// Thumbnails and overlays: where they lie relative to the page, and which of them an example or a changed
// image shows. Owns the choice between image, overlay and both for the galleries of the report.

const VIEWS = ['image', 'overlay', 'both'];
const VIEW_NAMES = { image: 'image', overlay: 'overlay', both: 'both' };

const pictureView = { current: 'both', listeners: new Set() };

function setPictureView(view) {
  if (!VIEWS.includes(view) || view === pictureView.current) return;
  pictureView.current = view;
  for (const input of document.querySelectorAll('#view input')) input.checked = input.value === view;
  for (const listener of pictureView.listeners) listener(view);
}

// Addresses of files, relative to OUT/report/index.html.
const predictionHref = (key) => `../predictions/${encodePath(key)}.json`;
const failureHref = (key) => `../failures/${encodePath(key)}.json`;
const overlayHref = (overlay) => `../${encodePath(overlay)}`;
const imageThumbnailHref = (key) => `thumbnails/image/${encodePath(key)}.jpg`;
const overlayThumbnailHref = (overlay) => `thumbnails/${encodePath(overlay)}.jpg`;

/** The picture of an image. It links to the original if the browser can open it. */
function imagePicture(key, thumbnail, image, caption) {
  return { kind: 'image', caption, alt: `${caption}: ${key}`, source: thumbnail ? imageThumbnailHref(key) : null, href: originalHref(image, key), missing: 'No thumbnail' };
}

/** The picture of an overlay: its thumbnail, or the overlay itself without one. Null without an overlay. */
function overlayPicture(key, overlay, thumbnail, caption) {
  if (!overlay) return null;
  return { kind: 'overlay', caption, alt: `${caption}: ${key}`, source: thumbnail ? overlayThumbnailHref(overlay) : overlayHref(overlay), href: overlayHref(overlay), missing: 'No overlay' };
}

/** The pictures of one image (`key`, `thumbnail`, `overlay`, `overlay_thumbnail`). */
function picturesOfImage(image) {
  return [
    imagePicture(image.key, image.thumbnail, image.image, 'Image'),
    overlayPicture(image.key, image.overlay, image.overlay_thumbnail, 'Overlay'),
  ];
}

/** The figures of `pictures` that belong to `view`. A placeholder stands for what is missing. */
function figures(pictures, view) {
  const present = pictures.filter(Boolean);
  let chosen = present.filter((picture) => view === 'both' || picture.kind === view);
  // Without a thumbnail of the image, its overlay is shown, since it shows the image too.
  if (view === 'image' && chosen.every((picture) => !picture.source)) {
    const overlays = present.filter((picture) => picture.kind === 'overlay');
    if (overlays.length > 0) chosen = overlays;
  }
  if (chosen.length === 0) chosen = [{ caption: 'Overlay', alt: 'No overlay was made', source: null, href: null, missing: 'No overlay' }];
  return chosen.map(figure);
}

function figure(picture) {
  const box = el(picture.href ? 'a' : 'span', { class: 'box', href: picture.href, tabindex: picture.href ? -1 : null });
  const placeholder = (text) => box.replaceChildren(el('span', { class: 'placeholder' }, text));
  if (picture.source) {
    const image = el('img', {
      src: picture.source, alt: picture.alt, width: 144, height: 144, loading: 'lazy', decoding: 'async',
      on: { error: () => placeholder('Not found') },
    });
    box.append(image);
  } else {
    placeholder(picture.missing);
  }
  return el('figure', { class: 'picture' }, box, el('figcaption', {}, picture.caption));
}

/** A gallery of images that follows the page-wide choice of view. `describe` adds lines to each image. */
function gallery(images, describe) {
  return images.map((image) => {
    const pictures = el('div', { class: 'pictures' });
    const draw = (view) => pictures.replaceChildren(...figures(picturesOfImage(image), view));
    draw(pictureView.current);
    pictureView.listeners.add(draw);
    return el('li', {}, pictures, el('p', { class: 'key' }, el('a', { href: predictionHref(image.key), title: image.key }, keyName(image.key))), describe?.(image));
  });
}

/**
 * Where the picture of an image may be found, the best first: `large` prefers the original. An overlay is the
 * last resort, since the picture can be seen through it. `facts` are those of the work list's index.
 */
function pictureSources(facts, large) {
  const original = originalHref(facts.image, facts.key);
  // camshaft serve makes thumbnails when they are asked for.
  const thumbnail = facts.thumbnail || (served && !facts.failure) ? imageThumbnailHref(facts.key) : null;
  const overlay = facts.overlay && { source: facts.overlay_thumbnail && !large ? overlayThumbnailHref(facts.overlay) : overlayHref(facts.overlay), overlaid: true };
  const plain = (large ? [original, thumbnail] : [thumbnail, original]).filter(Boolean).map((source) => ({ source, overlaid: false }));
  // A file that can't be read may still show in part.
  return Object.assign([...plain, overlay].filter(Boolean), { lost: facts.failure ? 'Can’t be shown' : 'Not found' });
}

/**
 * Puts the first picture that loads into `box`, and calls `loaded(image, overlaid)`. If there is none, a
 * placeholder says `missing`.
 */
function showPicture(box, sources, alt, missing, loaded) {
  const next = (at) => {
    if (at === sources.length) {
      box.replaceChildren(el('span', { class: 'placeholder' }, at === 0 ? missing : sources.lost));
      return;
    }
    const { source, overlaid } = sources[at];
    const image = el('img', { alt, width: 144, height: 144, decoding: 'async', draggable: 'false', on: {
      error: () => next(at + 1),
      load: () => loaded?.(image, overlaid),
    } });
    box.replaceChildren(image);
    image.src = source;
  };
  next(0);
}
