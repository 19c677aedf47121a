// Thumbnails and overlays: which pictures a finding, an example or a changed image shows, and
// where they lie relative to the page. Owns the page-wide choice between image, overlay and both.

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
  return { kind: 'image', caption, alt: `${caption}: ${key}`, source: thumbnail ? imageThumbnailHref(key) : null, href: originalHref(image), missing: 'No thumbnail' };
}

/** The picture of an overlay: its thumbnail, or the overlay itself without one. Null without an overlay. */
function overlayPicture(key, overlay, thumbnail, caption) {
  if (!overlay) return null;
  return { kind: 'overlay', caption, alt: `${caption}: ${key}`, source: thumbnail ? overlayThumbnailHref(overlay) : overlayHref(overlay), href: overlayHref(overlay), missing: 'No overlay' };
}

/** The picture of an image with the heat of a map, on the scale of `maps`. It links to the overlay, if there is one. */
function heatPicture(image, maps, digits, overlay, caption) {
  return { ...image, kind: 'overlay', caption, alt: `${caption}: ${image.alt}`, href: overlay ? overlayHref(overlay) : image.href, heat: { maps, digits } };
}

/** The pictures of one image (`key`, `thumbnail`, `overlay`, `overlay_thumbnail`). */
function picturesOfImage(image) {
  return [
    imagePicture(image.key, image.thumbnail, image.image, 'Image'),
    overlayPicture(image.key, image.overlay, image.overlay_thumbnail, 'Overlay'),
  ];
}

/** The pictures of a finding: of both images of a pair, or of both classes of a label error. */
function picturesOfFinding(row) {
  if (row.other) {
    return [
      imagePicture(row.key, row.thumbnail, row.image, 'This'),
      overlayPicture(row.key, row.overlay, row.overlay_thumbnail, 'This, overlay'),
      imagePicture(row.other, row.other_thumbnail, null, 'Other'),
      overlayPicture(row.other, row.other_overlay, row.other_overlay_thumbnail, 'Other, overlay'),
    ];
  }
  if (row.class_maps && row.thumbnail) {
    const image = imagePicture(row.key, row.thumbnail, row.image, 'Image');
    return [
      image,
      heatPicture(image, row.class_maps, row.class_maps.given, row.given_overlay, `Why ${row.label ?? 'the label'}`),
      heatPicture(image, row.class_maps, row.class_maps.predicted, row.overlay, `Why ${row.predicted ?? 'the prediction'}`),
    ];
  }
  if (row.given_overlay) {
    return [
      imagePicture(row.key, row.thumbnail, row.image, 'Image'),
      overlayPicture(row.key, row.given_overlay, row.given_overlay_thumbnail, `Why ${row.label ?? 'the label'}`),
      overlayPicture(row.key, row.overlay, row.overlay_thumbnail, `Why ${row.predicted ?? 'the prediction'}`),
    ];
  }
  return picturesOfImage(row);
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
    if (picture.heat) {
      const { maps, digits } = picture.heat;
      const canvas = heatCanvas(mapLevels(digits), maps.height, maps.width);
      image.addEventListener('load', () => placeHeat(canvas, image, maps.region));
      box.append(canvas);
    }
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
