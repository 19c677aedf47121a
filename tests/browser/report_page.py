"""Uses a report's page in Chromium as a reader does, and checks that it works.

    pip install playwright pillow; apt-get install chromium
    python tests/browser/report_page.py OUT [--screenshots DIR]     # a report in OUT/report
    python tests/browser/report_page.py --fixtures                  # invented ones, 100,000 rows too

The expected values are read from the data inside the page, so that any report can be checked. If a
check fails, the exit status is 1 and a line names the check; otherwise it is 0.
"""

import argparse
import collections
import csv
import functools
import http.server
import json
import re
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

import probes

CHROMIUM = "/usr/bin/chromium"
LIST_SECONDS = 5.0
FILTER_SECONDS = 0.5
DATA = re.compile(r'<script type="application/json" id="report-data">(.*?)</script>', re.DOTALL)


def check(holds, message):
    assert holds, message


def none(complaints, what):
    check(not complaints, what + ":\n  " + "\n  ".join(complaints[:10]))


def rows_of(report):
    """The findings; a field that a row lacks is None."""
    return [collections.defaultdict(lambda: None, row) for row in (report.get("findings") or {}).get("rows") or []]


def serve(out):
    """OUT over HTTP on a free port; returns the server and its origin."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    class Patient(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            # A closed page drops the pictures that it still waits for. Real failures show in the page.
            pass

    server = Patient(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


class Visit:
    """One browser page. It counts errors, warnings and foreign requests as failures."""

    def __init__(self, browser, inside, address, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, "accept_downloads": True, "locale": "en-US", "reduced_motion": "reduce", **options})
        self.inside, self.address = inside, address
        self.wrongs = []
        self.page = self.context.new_page()
        self.watch(self.page)

    def watch(self, page):
        page.on("console", lambda message: self.wrongs.append(f"console: {message.text} {message.location}") if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrongs.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.wrongs.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: None if request.url.startswith((self.inside, "data:", "blob:")) else self.wrongs.append(f"a request elsewhere: {request.url}"))

    def open(self, fragment=""):
        begun = time.monotonic()
        self.page.goto(self.address + fragment)
        self.page.wait_for_selector("html[data-ready]", timeout=60000)
        return time.monotonic() - begun

    def close(self):
        none(self.wrongs, f"the page at {self.address} complains")
        self.context.close()


class Reader:
    """The page's controls, and the lists that the data say they should show."""

    def __init__(self, page, report):
        self.page, self.report = page, report
        self.rows = rows_of(report)

    def found(self):
        """The number of findings that pass the filters, as the page shows it."""
        text = self.page.locator("#findings .result strong").inner_text()
        return int(re.sub(r"\D", "", text))

    def keys(self):
        return self.page.eval_on_selector_all("#finding-cards h3", "heads => heads.map((head) => head.textContent)")

    def place(self):
        return [int(number) for number in re.findall(r"\d+", self.page.locator("#findings .place").first.inner_text().replace(",", ""))]

    def expect(self, wanted, what):
        """Waits until the page shows the count of `wanted`, then compares the first keys."""
        try:
            self.page.wait_for_function(
                "wanted => Number(document.querySelector('#findings .result strong').textContent.replace(/\\D/g, '')) === wanted", arg=len(wanted), timeout=5000)
        except Exception:
            raise AssertionError(f"{what}: {self.found()} findings are shown, {len(wanted)} expected") from None
        keys = self.keys()
        check(keys == [row["key"] for row in wanted[: len(keys)]], f"{what}: the list shows other findings than expected")

    def clear(self):
        self.page.click("#reset")
        self.expect(self.rows, "cleared filters")


def most_common(values):
    values = [value for value in values if value]
    return max(set(values), key=values.count) if values else None


def check_sections(visit, report):
    page = visit.page
    for section in page.locator("main > section").all():
        name = section.get_attribute("id")
        if name == "comparison":
            check(section.is_visible() == bool(report.get("comparison")), "the comparison shows exactly when there is one")
        if section.is_visible():
            check(section.locator(".body").inner_text().strip(), f"the section {name} says nothing")
    text = page.locator("main").inner_text()
    source = json.dumps(report)
    for stray in ("undefined", "NaN", "[object ", "null"):
        check(stray not in text or stray in re.sub(r"\bnull\b", "", source), f"the page shows a stray {stray}")
    check("can't be drawn" not in text, "a part could not be drawn")
    check(page.locator("h1").inner_text() == re.sub(r"\s+", " ", report["title"]).strip(), "the title is the report's")
    check(page.locator("script").count() == 2 and page.locator("img[src=x]").count() == 0, "text became markup")


def check_filters(reader):
    page, rows = reader.page, reader.rows
    reader.expect(rows, "the whole list")
    kind = most_common([row["kind"] for row in rows])
    page.locator(f"#findings input[name=kind][value={json.dumps(kind)}]").check(force=True)
    of_kind = [row for row in rows if row["kind"] == kind]
    reader.expect(of_kind, f"the kind {kind}")
    problem = most_common([row["problem"] for row in of_kind])
    if problem:
        page.select_option("#filter-problem", problem)
        reader.expect([row for row in of_kind if row["problem"] == problem], f"the problem {problem}")
    reader.clear()
    for field in ("label", "predicted"):
        value = most_common([row[field] for row in rows])
        if value:
            page.select_option(f"#filter-{field}", label=value)
            reader.expect([row for row in rows if row[field] == value], f"{field} {value}")
            reader.clear()
    score = sorted(row["score"] for row in rows)[len(rows) // 2]
    page.fill("#filter-min", str(score))
    reader.expect([row for row in rows if row["score"] >= score], f"scores from {score}")
    reader.clear()
    for sort, order in (("score", lambda row: (-row["score"], row["rank"])), ("key", lambda row: (row["key"].encode("utf-16-be"), row["rank"]))):
        page.select_option("#filter-sort", sort)
        reader.expect(sorted(rows, key=order), f"the order by {sort}")
    reader.clear()
    term = re.sub(r"[^ -~]", "", rows[-1]["key"])[-12:].strip() or "a"
    terms = term.lower().split()
    seconds = timed(page, term)
    reader.expect([row for row in rows if all(part in f"{row['key']}\n{row['other'] or ''}\n{row['reason'] or ''}".lower() for part in terms)], f"a search for {term}")
    page.fill("#filter-text", "no such thing is in any key")
    reader.expect([], "a search for nothing")
    check("No finding passes" in page.locator("#finding-cards").inner_text(), "an empty list says so")
    reader.clear()
    return seconds


def timed(page, term):
    """Seconds from typing to the shown list, by the page's own clock."""
    return page.evaluate("""(term) => new Promise((resolve) => {
      const field = document.getElementById('filter-text');
      const begun = performance.now();
      new MutationObserver((_, observer) => {
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => resolve((performance.now() - begun) / 1000)));
      }).observe(document.querySelector('#findings .result'), { childList: true, characterData: true, subtree: true });
      field.value = term;
      field.dispatchEvent(new Event('input', { bubbles: true }));
    })""", term)


def check_paging(reader):
    page, rows = reader.page, reader.rows
    page.select_option("#filter-size", "25")
    last = max(1, -(-len(rows) // 25))
    check(reader.place() == [1, last], f"page 1 of {last} to begin with, not {reader.place()}")
    if last == 1:
        page.select_option("#filter-size", "50")
        return
    press = lambda name: page.locator("#findings .pager").first.get_by_label(name).click(force=True)
    at = lambda number, what: check(reader.place()[0] == number and reader.keys() == [row["key"] for row in rows[25 * number - 25 : 25 * number]], f"{what} leads to page {number}, not {reader.place()[0]}")
    for name, number in (("Next page", 2), ("Previous page", 1), ("Previous page", 1), ("Last page", last), ("Next page", last), ("First page", 1)):
        press(name)
        at(number, name)
    page.locator("#findings h2").click()
    for key, number in (("n", 2), ("p", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        at(number, f"the key {key}")
    page.keyboard.press("/")
    check(page.evaluate("document.activeElement.id") == "filter-text", "the key / leads to the search")
    page.keyboard.press("n")
    check(reader.place()[0] == 1 and page.input_value("#filter-text") == "n", "keys in a field are letters")
    reader.clear()
    page.select_option("#filter-size", "50")


def check_pictures(reader):
    page = reader.page
    card = page.locator("#finding-cards > li").first
    first = reader.rows[0]
    sources = lambda: card.locator("img").evaluate_all("images => images.map((image) => image.getAttribute('src'))")
    view = lambda name: page.locator(f"#view input[value={name}]").check(force=True)
    drawn = "class_maps" in first and first["thumbnail"]
    shows_overlays = lambda: sources() and (card.locator(".map-heat").count() == 2 if drawn else all("overlays/" in source for source in sources()))
    view("overlay")
    if first["overlay"]:
        check(shows_overlays(), f"the switch to overlays shows {sources()}")
    if drawn:
        sizes = "maps => maps.map((map) => Math.round(map.getBoundingClientRect().width))"
        card.locator(".map-heat").first.scroll_into_view_if_needed()
        check(all(width > 20 for width in card.locator(".map-heat").evaluate_all(sizes)), "heat lies over the image")
    view("image")
    if first["thumbnail"]:
        check(sources() and all(source.startswith("thumbnails/image/") for source in sources()), f"the switch to images shows {sources()}")
        card.get_by_role("button", name="Show overlay").click()
        if first["overlay"]:
            check(shows_overlays(), "a card's own switch shows its overlay")
    view("both")
    wanted = 3 if drawn else sum(bool(first[name]) for name in ("thumbnail", "overlay", "given_overlay", "other_thumbnail", "other_overlay"))
    check(len(sources()) == wanted, f"both: {len(sources())} pictures instead of {wanted}")


def check_links(reader, origin):
    page = reader.page
    page.evaluate(probes.SCROLL_THROUGH)
    none(page.evaluate(probes.PICTURES), "pictures are missing")
    links = page.eval_on_selector_all("#finding-cards a, .gallery a, #failures a", "links => links.map((link) => link.href)")
    for link in sorted(set(links)):
        check(urllib.parse.urlsplit(link).scheme in ("http", "https"), f"a link over HTTP leads to {link}")
        if link.startswith(origin):
            try:
                urllib.request.urlopen(link).close()
            except OSError as error:
                raise AssertionError(f"the link {link} leads nowhere: {error}") from None


def check_steady(page):
    """Nothing moves while pictures load. The browser must not have loaded any of them before."""
    page.evaluate(probes.WATCH_SHIFTS)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.evaluate(probes.SCROLL_THROUGH)
    check(page.evaluate("document.documentElement.scrollHeight") == height, "the page changes its height while pictures load")
    shift = sum(page.evaluate("window.shifts"))
    check(shift < 0.01, f"the page moves by {shift:.3f} while pictures load")


def check_keyboard(page):
    """Tab alone reaches every filter, from the top, with a visible focus all the way."""
    page.keyboard.press("Tab")
    check(page.evaluate("document.activeElement.className") == "skip", "the first stop is the skip link")
    page.keyboard.press("Enter")
    check(page.evaluate("document.activeElement.id") == "main", "the skip link leads to the report")
    wanted = ["filter-text", "filter-problem", "filter-label", "filter-predicted", "filter-min", "filter-sort", "filter-size", "filter-open", "reset", "export"]
    reached = []
    for _ in range(5000):
        page.keyboard.press("Tab")
        stop = page.evaluate("""() => {
          const at = document.activeElement;
          const shown = at.matches('.pills input, .segmented input') ? at.nextElementSibling : at;
          return [at.id, getComputedStyle(shown).outlineStyle, at.outerHTML.slice(0, 120)];
        }""")
        check(stop[1] != "none", f"the focus can't be seen on {stop[2]}")
        reached.append(stop[0])
        if stop[0] == "export":
            break
    check([name for name in reached if name in wanted] == wanted, f"Tab misses some of {wanted}")


def check_address(visit, reader):
    """A link leads to the same list."""
    page, rows = reader.page, reader.rows
    kind = most_common([row["kind"] for row in rows])
    page.locator(f"#findings input[name=kind][value={json.dumps(kind)}]").check(force=True)
    page.select_option("#filter-sort", "key")
    page.select_option("#filter-size", "25")
    label = most_common([row["label"] for row in rows if row["kind"] == kind])
    if label:
        page.select_option("#filter-label", label=label)
    page.keyboard.press("Escape")
    if page.locator("#findings .pager").first.get_by_label("Next page").get_attribute("aria-disabled") != "true":
        page.locator("#findings .pager").first.get_by_label("Next page").click()
    page.locator("#view input[value=overlay]").check(force=True)
    state = lambda it: (Reader(it, reader.report).found(), Reader(it, reader.report).keys(), Reader(it, reader.report).place(),
                        it.input_value("#filter-sort"), it.input_value("#filter-label"), it.locator("#view input:checked").input_value())
    other = visit.context.new_page()
    visit.watch(other)
    other.goto(page.url)
    other.wait_for_selector("html[data-ready]")
    check(state(other) == state(page), f"the address {page.url} leads to another list")
    other.close()
    page.locator("#nav a[href='#notes']").click()
    check(page.evaluate("document.activeElement.id") == "notes" and "kind=" in page.url, "navigation keeps the list's address")
    page.locator("#view input[value=both]").check(force=True)
    reader.clear()


def check_export(reader):
    page, rows = reader.page, reader.rows
    kind = most_common([row["kind"] for row in rows])
    page.locator(f"#findings input[name=kind][value={json.dumps(kind)}]").check(force=True)
    with page.expect_download() as download:
        page.click("#export")
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    wanted = [row for row in rows if row["kind"] == kind]
    check([line["key"] for line in lines] == [row["key"] for row in wanted], "the export holds the filtered findings")
    for line, row in zip(lines, wanted):
        for name in ("label", "predicted", "reason", "other", "problem", "suggested"):
            check(line[name] == (row[name] or ""), f"the export's {name} of {row['key']} is {line[name]}")
        check(float(line["score"]) == row["score"], f"the export's score of {row['key']} is {line['score']}")
    reader.clear()


def check_done(visit, reader):
    page = reader.page
    card = lambda: page.locator("#finding-cards > li").first
    card().get_by_role("checkbox").check()
    visit.open()
    check(card().get_by_role("checkbox").is_checked(), "what is done is remembered")
    page.check("#filter-open")
    reader.expect(reader.rows[1:], "what is done is hidden")
    page.uncheck("#filter-open")
    card().get_by_role("checkbox").uncheck()
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    card().get_by_role("button", name="Copy key").click()
    card().get_by_role("button", name="Copied", exact=True).wait_for()
    check(page.evaluate("navigator.clipboard.readText()") == reader.rows[0]["key"], "the key is copied")


def check_confusion(page, report):
    """Every wrong cell with images leads to them."""
    for cell in report.get("confused") or []:
        given, predicted = (report["overview"]["confusion"]["classes"][cell[side]] for side in ("row", "column"))
        button = page.locator("#predictions .confusion tbody tr").nth(cell["row"]).locator("td").nth(cell["column"]).locator("button")
        if button.count() == 0:
            continue
        button.click()
        box = page.locator("#predictions .cell-examples")
        check(box.locator("h4").inner_text() == re.sub(r"\s+", " ", f"{given} taken for {predicted}"), "a cell of the confusion matrix shows its own examples")
        check(box.locator(".gallery > li").count() == len(cell["examples"]), f"{given} taken for {predicted} has other examples")


def check_theme(visit):
    page = visit.page
    ground = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    before = ground()
    none(page.evaluate(probes.CONTRAST), "too little contrast in the light theme")
    page.click("#theme")
    check(ground() != before, "the theme's button changes the ground")
    none(page.evaluate(probes.CONTRAST), "too little contrast in the dark theme")
    visit.open()
    check(ground() != before, "the theme is remembered")
    page.click("#theme")
    check(ground() == before, "the theme's button leads back")


def check_report(browser, out, screenshots=None, timed=False):
    """Times have limits only if no other work runs on this machine."""
    out = Path(out).resolve()
    index = out / "report" / "index.html"
    html = index.read_text(encoding="utf-8")
    report = json.loads(DATA.search(html)[1])
    rows = rows_of(report)
    server, origin = serve(out)
    address = f"{origin}/report/index.html"

    visit = Visit(browser, origin, address, color_scheme="light")
    seconds = visit.open()
    check(not timed or seconds < LIST_SECONDS, f"the list took {seconds:.2f} s to show")
    reader = Reader(visit.page, report)
    check_sections(visit, report)
    none(visit.page.evaluate(probes.ACCESSIBILITY), "accessibility")
    note = f"{len(rows)} findings: shown after {seconds:.2f} s"
    if rows:
        filtered = check_filters(reader)
        check(not timed or filtered < FILTER_SECONDS, f"a search took {filtered:.2f} s")
        note += f", searched in {filtered * 1000:.0f} ms"
        check_paging(reader)
        check_pictures(reader)
        visit.open()
        check_keyboard(visit.page)
        check_address(visit, reader)
        check_export(reader)
        check_done(visit, reader)
    check_confusion(visit.page, report)
    check_theme(visit)
    check_links(reader, origin)
    visit.close()

    for options in ({"viewport": {"width": 360, "height": 740}, "has_touch": True}, {"viewport": {"width": 820, "height": 1100}}):
        visit = Visit(browser, origin, address, color_scheme="dark", **options)
        visit.open()
        check_steady(visit.page)
        visit.page.evaluate("() => { for (const part of document.querySelectorAll('details')) part.open = true; }")
        none(visit.page.evaluate(probes.OVERFLOW), "the page scrolls sideways")
        visit.close()

    visit = Visit(browser, index.parent.parent.as_uri(), index.as_uri())
    visit.open()
    reader = Reader(visit.page, report)
    check_sections(visit, report)
    if rows:
        reader.expect(rows, "the list from a file")
        check_paging(reader)
        check_pictures(reader)
        check_export(reader)
        visit.page.evaluate(probes.SCROLL_THROUGH)
        none(visit.page.evaluate(probes.PICTURES), "pictures are missing from a file")
    visit.close()

    visit = Visit(browser, origin, address)
    visit.context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('forbidden'); } })")
    visit.open()
    visit.page.click("#theme")
    if rows:
        visit.page.locator("#finding-cards > li").first.get_by_role("checkbox").check()
    visit.close()

    if screenshots:
        take_screenshots(browser, origin, address, Path(screenshots))
    server.shutdown()
    return note


def take_screenshots(browser, origin, address, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, scheme in (("light", 1440, "light"), ("dark", 1440, "dark"), ("narrow", 360, "light")):
        visit = Visit(browser, origin, address, color_scheme=scheme, viewport={"width": width, "height": 2400})
        visit.open()
        visit.page.evaluate(probes.SCROLL_THROUGH)
        visit.page.evaluate("scrollTo(0, 0)")
        visit.page.screenshot(path=folder / f"{name}.png")
        visit.close()


def check_fixtures(browser, screenshots):
    import fixture

    for name, options in {"full": {}, "bare": {"variant": "bare"}, "empty": {"variant": "empty"}, "one": {"rows": 1, "classes": 1},
                          "many classes": {"rows": 60, "classes": 40}, "large": {"rows": 100_000}}.items():
        with tempfile.TemporaryDirectory() as folder:
            fixture.make(folder, **options)
            print(f"{name}: {check_report(browser, folder, screenshots if name == 'full' else None, timed=True)}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", nargs="?", help="the folder that holds report/index.html")
    arguments.add_argument("--fixtures", action="store_true", help="check invented reports instead")
    arguments.add_argument("--screenshots", help="a folder for light.png, dark.png and narrow.png")
    given = arguments.parse_args()
    if bool(given.out) == given.fixtures:
        arguments.error("give either OUT or --fixtures")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            if given.fixtures:
                check_fixtures(browser, given.screenshots)
            else:
                print(check_report(browser, given.out, given.screenshots))
        except AssertionError as failure:
            print(f"report_page: {failure}", file=sys.stderr)
            sys.exit(1)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
