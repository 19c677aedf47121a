"""Checks of the list of all images, of similar images and of the map, for report_page.py. What they should
show is computed here from the data in the page."""

import array
import base64
import json
import math
import re
import urllib.parse
import urllib.request

import probes
from reading import check, most_common, none
from work_list import NAME

BLOCK = re.compile(r'<script type="application/json" id="images-data">(.*?)</script>', re.DOTALL)
TYPES = {"u8": "B", "u16": "H", "u32": "I", "i8": "b"}
MISSING = {"u16": 0xFFFF, "u32": 0xFFFFFFFF}
SKETCH = 128
# Of 100,000 images, if no other work runs on this machine; with the time to load the page.
OPEN_SECONDS = 5.0
SIMILAR_SECONDS = 1.0


class Images:
    """The data of all images, as the page holds them or as they lie beside it."""

    def __init__(self, html, origin):
        self.data = json.loads(BLOCK.search(html)[1])
        self.count = self.data["images"] if self.data else 0
        if self.count == 0:
            return
        self.in_files = self.data["in_files"]
        self.folder = f"{origin}/report/images/"
        pages = self.data["keys"]
        if self.in_files:
            pages = [json.loads(self.read(f"keys-{at}.json")) for at in range(len(self.data["first_keys"]))]
        self.keys = [key for page in pages for key in unpacked(page)]
        check(len(self.keys) == self.count, f"{len(self.keys)} keys of {self.count} images")
        check(self.keys == sorted(self.keys, key=lambda key: key.encode("utf-16-be")), "keys are in their order")
        self.columns = {}
        for column in self.data["columns"]:
            content = self.read(f"{column['name']}.bin") if self.in_files else base64.b64decode(column["data"])
            self.columns[column["name"]] = (column, array.array(TYPES[column["kind"]], content))

    def read(self, name):
        with urllib.request.urlopen(self.folder + name) as answer:
            return answer.read()

    def has(self, name):
        return name in self.columns

    def number(self, name, place):
        column, numbers = self.columns[name]
        return None if numbers[place] == MISSING.get(column["kind"]) else numbers[place]

    def name(self, column, place):
        number = self.columns[column][1][place]
        return self.data["names"][number - 1] if number else None

    def label(self, place):
        return self.name("label_class", place) or self.name("label", place)

    def is_right(self, place):
        meant, predicted = self.name("label_class", place), self.name("predicted", place)
        return None if meant is None or predicted is None else meant == predicted

    def ordered(self, value, descending=False):
        """The keys in the order of a value; those without one last."""
        known = [place for place in range(self.count) if value(place) is not None]
        known.sort(key=lambda place: -value(place) if descending else value(place))
        return [self.keys[place] for place in [*known, *(place for place in range(self.count) if value(place) is None)]]

    def where(self, holds):
        return [self.keys[place] for place in range(self.count) if holds(place)]

    def similar(self, place):
        """Cosines of all other images with this one, the largest first."""
        sketches = self.columns["sketch"][1]
        sketch = lambda at: sketches[at * SKETCH : (at + 1) * SKETCH]
        own = sketch(place)
        length = lambda numbers: math.sqrt(sum(number * number for number in numbers))
        found = []
        for other in range(self.count):
            if other != place and any(sketch(other)):
                found.append((sum(a * b for a, b in zip(own, sketch(other))) / (length(own) * length(sketch(other))), self.keys[other]))
        return sorted(found, key=lambda one: -one[0])[:200]


def unpacked(page):
    keys, key = [], ""
    for shared, rest in zip(page[::2], page[1::2]):
        # Shared parts are counted in UTF-16 units.
        key = key.encode("utf-16-le")[: 2 * shared].decode("utf-16-le") + rest
        keys.append(key)
    return keys


def address(key):
    return f"#image?in=images&key={urllib.parse.quote(key, safe='')}"


def expect(reader, keys, what):
    """Waits until the list shows these images, the first ones first. The current tile may stand apart, so the last one shown does not count."""
    page = reader.page
    page.evaluate("scrollTo(0, 0)")
    try:
        page.wait_for_function("""([number, first]) => {
          const shown = [...document.querySelectorAll('.grid-holder .tile-link')].map((link) => link.title);
          return Number(document.querySelector('#work-view .result strong')?.textContent.replace(/\\D/g, '')) === number && first.every((key, at) => shown[at] === key);
        }""", arg=[len(keys), keys[:8]], timeout=5000)
    except Exception:
        raise AssertionError(f"{what}: the list shows {reader.found()} images, {reader.shown()[:4]} …, expected {len(keys)}, {keys[:4]} …") from None
    shown = reader.shown()[:-1]
    check(shown == keys[: len(shown)], f"{what}: the list shows {shown[:3]} …, expected {keys[:3]} …")


def check_list(visit, reader, images):
    """Every image is listed, whatever was found; orders order, and filters filter."""
    page = reader.page
    visit.open("#images")
    seconds = page.evaluate("performance.now() / 1000")
    check(page.locator("#work-view h1").inner_text() == "All images", "the list says what it lists")
    check(page.locator("#nav a[aria-current]").get_attribute("href") == "#images", "the navigation marks the list")
    expect(reader, images.keys, "all images")
    none(page.evaluate(probes.GRID), "the grid of all images")
    page.evaluate("async () => { scrollTo(0, document.documentElement.scrollHeight); await new Promise(requestAnimationFrame); }")
    page.wait_for_function("key => [...document.querySelectorAll('.grid-holder .tile-link')].some((link) => link.title === key)", arg=images.keys[-1])
    orders = page.eval_on_selector_all("#filter-sort option", "options => options.map((option) => option.value)")
    for order in ("brightness", "probability", "width", "blur"):
        check((order in orders) == images.has(order), f"the list can be ordered by {order}: {orders}")
        if order not in orders:
            continue
        page.select_option("#filter-sort", order)
        expect(reader, images.ordered(lambda place: images.number(order, place)), f"by {order}")
        page.select_option("#filter-descending", "1")
        expect(reader, images.ordered(lambda place: images.number(order, place), True), f"by {order}, descending")
        page.select_option("#filter-descending", "")
    page.select_option("#filter-sort", "key")
    if images.has("width"):
        page.select_option("#filter-sort", "pixels")
        size = lambda place: None if images.number("width", place) is None else images.number("width", place) * images.number("height", place)
        expect(reader, images.ordered(size), "by pixels")
        page.select_option("#filter-sort", "key")
    label = most_common([images.label(place) for place in range(images.count)])
    if label:
        page.select_option("#filter-label", label=label)
        expect(reader, images.where(lambda place: images.label(place) == label), f"labelled {label}")
        page.select_option("#filter-label", "")
    predicted = most_common([images.name("predicted", place) for place in range(images.count)])
    if predicted:
        page.select_option("#filter-predicted", label=predicted)
        expect(reader, images.where(lambda place: images.name("predicted", place) == predicted), f"predicted {predicted}")
        page.select_option("#filter-predicted", "")
    for choice, wanted in (("right", True), ("wrong", False), ("unknown", None)):
        page.select_option("#filter-right", choice)
        expect(reader, images.where(lambda place: images.is_right(place) == wanted), f"predictions that are {choice}")
    page.select_option("#filter-right", "")
    found = set(reader.work.findings)
    reader.kind("nothing")
    expect(reader, [key for key in images.keys if key not in found], "images without findings")
    kind = most_common([row["kind"] for row in reader.work.rows])
    if kind:
        reader.kind(kind)
        of = {row["key"] for row in reader.work.rows if row["kind"] == kind}
        expect(reader, [key for key in images.keys if key in of], f"images with {kind}")
    reader.kind("")
    part = re.sub(r"[^ -~]", "", images.keys[-1])[-9:].strip().lower()
    page.fill("#filter-text", part)
    in_reasons = {row["key"] for row in reader.work.rows if all(one in f"{row['key']}\n{row['other'] or ''}\n{row['reason'] or ''}".lower() for one in part.split())}
    expect(reader, [key for key in images.keys if key in in_reasons or all(one in key.lower() for one in part.split())], f"a search for {part}")
    page.click("#reset")
    expect(reader, images.keys, "cleared filters")
    return seconds


def check_addresses(visit, reader, images):
    """A list of all images has an address with its filters and order; back and forward lead through them."""
    page = reader.page
    visit.open("#images")
    page.select_option("#filter-sort", "probability")
    page.select_option("#filter-descending", "1")
    by = images.ordered(lambda place: images.number("probability", place), True)
    expect(reader, by, "by probability")
    link = page.url
    check("sort=probability" in link and "desc=1" in link, f"the address says the order: {link}")
    place = min(3, images.count - 1)
    page.locator(".grid-holder .tile-link").nth(place).click()
    page.wait_for_function("key => document.querySelector('#image-view h1')?.textContent === key", arg=by[place])
    page.keyboard.press("Escape")
    page.wait_for_selector("body[data-view=work]")
    expect(reader, by, "the list as it was left")
    page.go_back()
    page.go_back()
    page.wait_for_function("() => document.getElementById('filter-sort').value === 'key'")
    expect(reader, images.keys, "back to the first order")
    page.go_forward()
    page.go_forward()
    page.wait_for_function("() => document.getElementById('filter-descending').value === '1'")
    expect(reader, by, "forward to the last order")
    page.locator("#nav a[href='#work']").click()
    page.wait_for_selector("body[data-list=work]")
    check(page.locator("#work-view h1").inner_text() == "Work list", "the work list is another list")
    check(page.locator("#filter-descending").is_hidden(), "the work list has one direction")
    visit.open(link[link.index("#") :])
    expect(reader, by, "the list of a link")


def asks_name(page):
    """Whether the page asks who decides: it does so once."""
    return page.evaluate("localStorage.getItem('camshaft-report:by') === null")


def say_name(page):
    page.locator("#decider").wait_for()
    page.keyboard.type(NAME)
    page.keyboard.press("Enter")


def check_quiet_image(visit, reader, images):
    """An image that nothing was found about can be opened, from a link too, and decided about."""
    page = reader.page
    known = set(reader.work.findings) | {group["best"] for group in reader.work.groups.values()}
    quiet = [key for key in images.keys if key not in known]
    if not quiet:
        return
    visit.open(address(quiet[0]))
    page.wait_for_function("key => document.querySelector('#image-view h1')?.textContent === key", arg=quiet[0])
    text = page.locator("#image-view").inner_text()
    check("Nothing was found about this image" in text, f"the image says that nothing was found: {text}")
    check(f"1 of {images.count:,}" in text or f"of {images.count:,}" in text, "the image has a place in the list")
    asks = asks_name(page)
    page.keyboard.press("d")
    if asks:
        say_name(page)
    at = images.keys.index(quiet[0])
    if at + 1 < images.count:
        page.wait_for_function("key => document.querySelector('#image-view h1').textContent === key", arg=images.keys[at + 1])
    reader.go("#images?kind=nothing&decision=drop")
    expect(reader, quiet[:1], "what is dropped of the images without findings")
    check(reader.progress() == [1, images.count], f"the progress counts all images: {reader.progress()}")
    line = reader.decisions().get(quiet[0])
    check(line and line["decision"] == "drop" and line["because"] == [], f"the file has the decision: {line}")
    page.keyboard.press("u")
    expect(reader, [], "nothing is dropped after a step back")
    reader.go("#work")
    check(reader.found() == len(reader.work.passing()), "the work list is as before")
    # A link of the work list finds it, too.
    visit.open(f"#image?key={urllib.parse.quote(quiet[-1], safe='')}")
    page.wait_for_function("key => document.querySelector('#image-view h1')?.textContent === key", arg=quiet[-1])
    check(page.locator("#image-view .choice").count() >= 4, "it can be decided about")


def check_all_at_once(visit, reader, images):
    page = reader.page
    visit.open("#images?kind=nothing")
    expected = reader.found()
    if expected == 0:
        return
    page.click("#decide-all")
    page.locator("dialog input[value=keep]").check()
    button = page.locator("dialog button.main")
    check(button.inner_text() == f"Keep {expected:,} image{'s' if expected != 1 else ''}", f"the button says {button.inner_text()}")
    asks = asks_name(page)
    button.click()
    if asks:
        say_name(page)
    page.locator("dialog").wait_for(state="detached")
    page.wait_for_function("wanted => parseInt(document.querySelector('#work-view .progress-text').textContent.replaceAll(',', '')) === wanted", arg=expected)
    page.click("#undo")
    page.wait_for_function("() => parseInt(document.querySelector('#work-view .progress-text').textContent) === 0")


def check_similar(visit, reader, images):
    """The most similar images, by a key of the keyboard, best first."""
    page = reader.page
    if images.in_files:
        visit.open(f"#images?like={urllib.parse.quote(images.keys[0], safe='')}")
        page.wait_for_function("() => document.querySelector('#work-view [role=status]:not([hidden])')?.textContent.includes('camshaft serve OUT')")
        return None
    if not images.has("sketch"):
        return None
    place = next(place for place in range(images.count // 2, images.count) if any(images.columns["sketch"][1][place * SKETCH : (place + 1) * SKETCH]))
    key = images.keys[place]
    visit.open(address(key))
    page.wait_for_function("key => document.querySelector('#image-view h1')?.textContent === key", arg=key)
    begun = page.evaluate("performance.now()")
    page.keyboard.press("m")
    page.wait_for_selector("body[data-view=work][data-list=images]")
    page.wait_for_function("() => document.querySelector('#work-view .chosen:not([hidden])')")
    seconds = (page.evaluate("performance.now()") - begun) / 1000
    if images.count <= 5000:
        wanted = images.similar(place)
        reader_at = reader.shown()
        cosines = dict((name, cosine) for cosine, name in wanted)
        check(reader.found() == len(wanted), f"{reader.found()} images are similar, not {len(wanted)}")
        shown = [cosines[name] for name in reader_at]
        check(all(abs(a - b[0]) < 1e-5 for a, b in zip(shown, wanted)), f"the most similar come first: {shown[:4]}, {wanted[:4]}")
        words = page.locator(".grid-holder .tile-words").first.inner_text() if wanted else None
        check(not wanted or words == f"{wanted[0][0]:.2f} alike", f"a tile says how similar it is: {words}, {wanted[:1]}")
    check(key in page.locator("#work-view .chosen").inner_text(), "the list says what it is like")
    page.go_back()
    page.wait_for_function("key => document.body.dataset.view === 'image' && document.querySelector('#image-view h1')?.textContent === key", arg=key)
    return seconds


PAINTED = """() => {
  const { width, height } = document.querySelector('.map-frame canvas');
  // A copy, so that the map's own canvas stays as the page draws on it.
  const copy = Object.assign(document.createElement('canvas'), { width, height }).getContext('2d', { willReadFrequently: true });
  copy.drawImage(document.querySelector('.map-frame canvas'), 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  const colours = new Set();
  let painted = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] < 100) continue;
    painted += 1;
    colours.add(`${data[at] >> 4},${data[at + 1] >> 4},${data[at + 2] >> 4}`);
  }
  return { painted, colours: colours.size };
}"""
# Where the map lies on the screen.
ON_SCREEN = """() => {
  const box = document.querySelector('.map-frame canvas').getBoundingClientRect();
  return [box.left, box.top, box.width, box.height];
}"""


def check_map(visit, reader, images):
    """The map is drawn, shows what is under the pointer, and what is drawn around becomes a list."""
    page = reader.page
    visit.open("#map")
    if not images.has("map_x"):
        page.wait_for_function("() => document.getElementById('map-view').textContent.includes('There is no map')")
        return
    page.wait_for_selector(".map-frame canvas[data-painted]")
    check(page.locator("#nav a[aria-current]").get_attribute("href") == "#map", "the navigation marks the map")
    on_map = images.where(lambda place: images.number("map_x", place) is not None)
    check(f"{len(on_map):,} image" in page.locator("#map-list").inner_text(), f"all points are in view: {page.locator('#map-list').inner_text()}")
    for by in ("predicted", "kind", "right", "label"):
        page.select_option("#map-by", by)
        page.wait_for_timeout(60)
        seen = page.evaluate(PAINTED)
        check(seen["painted"] > min(200, len(on_map)), f"the map by {by} has points: {seen}")
        names = page.locator(".map-legend-names li").count()
        check(names >= 1 and (names == 1 or seen["colours"] >= 2), f"the map by {by} has colours: {seen}")
    # Around everything with the pointer.
    page.evaluate("document.querySelector('.map-frame').scrollIntoView({ block: 'center' })")
    left, top, width, height = page.evaluate(ON_SCREEN)
    page.mouse.move(left + 2, top + 2)
    page.mouse.down()
    for x, y in ((width - 2, 2), (width - 2, height - 2), (2, height - 2), (2, 4)):
        page.mouse.move(left + x, top + y, steps=4)
    page.mouse.up()
    page.wait_for_selector("body[data-view=work][data-list=images]")
    check("area=" in page.url, f"the address has the area: {page.url}")
    expect(reader, on_map, "everything on the map")
    check("Selected on the map" in page.locator("#work-view .chosen").inner_text(), "the list says where it is from")
    page.go_back()
    page.wait_for_selector("body[data-view=map]")
    # A part of it with the keyboard: zoomed in, what is in view.
    page.locator(".map-frame canvas").focus()
    for _ in range(3):
        page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(80)
    text = page.locator("#map-list").inner_text()
    seen = int(re.sub(r"\D", "", text))
    check(seen < len(on_map) or len(on_map) < 9, f"zooming leaves fewer in view: {text}")
    if seen:
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-view=work][data-list=images]")
        # Corners are rounded to whole numbers.
        check(abs(reader.found() - seen) <= 2 + seen // 1000, f"{reader.found()} images are listed, {seen} were in view")
        corners = [tuple(int(part, 36) for part in corner.split(".")) for corner in urllib.parse.parse_qs(page.url.split("?", 1)[1])["area"][0].split("-")]
        (left, top), (right, bottom) = corners[0], corners[2]
        inside = {key for place, key in enumerate(images.keys) if images.number("map_x", place) is not None and left <= images.number("map_x", place) <= right and top <= images.number("map_y", place) <= bottom}
        check(set(reader.shown()) <= inside, "the listed images lie in the area")
        page.go_back()
        page.wait_for_selector("body[data-view=map]")
    # The image under the pointer.
    page.keyboard.press("0")
    page.wait_for_timeout(60)
    place = next(place for place in range(images.count) if images.number("map_x", place) is not None)
    xs = [images.number("map_x", at) for at in range(images.count) if images.number("map_x", at) is not None]
    ys = [images.number("map_y", at) for at in range(images.count) if images.number("map_y", at) is not None]
    left, top, width, height = page.evaluate(ON_SCREEN)
    margin = 0.03 * 65534
    scale = min(width / (max(xs) - min(xs) + 2 * margin), height / (max(ys) - min(ys) + 2 * margin))
    x = left + width / 2 + (images.number("map_x", place) - (max(xs) + min(xs)) / 2) * scale
    y = top + height / 2 + (images.number("map_y", place) - (max(ys) + min(ys)) / 2) * scale
    page.mouse.move(x, y)
    page.wait_for_selector(".map-tip:not([hidden])")
    name = page.locator(".map-tip .key").inner_text()
    page.mouse.click(x, y)
    page.wait_for_selector("body[data-view=image]")
    heading = page.evaluate("document.querySelector('#image-view h1').textContent")
    check(heading.endswith(name) and heading in on_map, f"a click opens the image that is shown: {heading}, {name}")
    page.keyboard.press("Escape")
    page.wait_for_selector("body[data-view=map]")


def check_from_disk(visit, images):
    """From a disk the page has everything, unless the data are in files."""
    page = visit.page
    visit.open("#images")
    if images.in_files:
        check("camshaft serve OUT" in page.locator("#work-view [role=status]:visible").first.inner_text(), "the list says how to open it")
        page.evaluate("location.hash = '#map'")
        page.wait_for_function("() => document.querySelector('#map-view [role=status]').textContent.includes('camshaft serve OUT')")
    else:
        page.wait_for_function("wanted => Number(document.querySelector('#work-view .result strong').textContent.replace(/\\D/g, '')) === wanted", arg=images.count)


def check_images(visit, reader, images, timed):
    if images.count == 0:
        check(visit.page.locator("#nav a[href='#images']").count() == 0, "without images there is no list of them")
        return ""
    opened = check_list(visit, reader, images)
    check(not timed or opened < OPEN_SECONDS, f"the list of all images took {opened:.2f} s to open")
    check_addresses(visit, reader, images)
    check_quiet_image(visit, reader, images)
    check_all_at_once(visit, reader, images)
    similar = check_similar(visit, reader, images)
    check(not timed or similar is None or similar < SIMILAR_SECONDS, f"similar images took {similar} s")
    check_map(visit, reader, images)
    return f", {images.count} images opened after {opened:.2f} s" + (f", similar ones in {similar * 1000:.0f} ms" if similar is not None else "")
