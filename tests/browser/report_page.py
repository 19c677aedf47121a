"""Uses a report's page in Chromium as a reader does, and checks that it works.

    pip install playwright pillow; apt-get install chromium
    python tests/browser/report_page.py OUT [--screenshots DIR]     # a report in OUT/report
    python tests/browser/report_page.py --fixtures                  # invented ones, 100,000 rows too

The expected values are read from the data inside the page, so that any report can be checked. If a
check fails, the exit status is 1 and a line names the check; otherwise it is 0. work_list.py has the checks
of the work list, all_images.py those of all images, similar ones and the map.
"""

import argparse
import collections
import functools
import http.server
import json
import re
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

import accessibility
import all_images
import probes
import work_list
from reading import Visit, check, most_common, none

CHROMIUM = "/usr/bin/chromium"
LIST_SECONDS = 5.0
# Of the page without the data of its report.
MOST_BYTES = 400_000
FILTER_SECONDS = 0.5
DATA = re.compile(r'<script type="application/json" id="report-data">(.*?)</script>', re.DOTALL)


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


def check_sections(visit, report):
    page = visit.page
    for section in page.locator("#report > section").all():
        name = section.get_attribute("id")
        if name == "comparison":
            check(section.is_visible() == bool(report.get("comparison")), "the comparison shows exactly when there is one")
        if section.is_visible():
            check(section.locator(".body").inner_text().strip(), f"the section {name} says nothing")
    text = page.locator("main").inner_text()
    check("Work list" in page.locator("#nav").inner_text(), "the navigation leads to the work list")
    source = json.dumps(report)
    for stray in ("undefined", "NaN", "[object ", "null"):
        check(stray not in text or stray in re.sub(r"\bnull\b", "", source), f"the page shows a stray {stray}")
    check("can't be drawn" not in text, "a part could not be drawn")
    check(page.locator("h1:visible").inner_text() == re.sub(r"\s+", " ", report["title"]).strip(), "the title is the report's")
    check(page.locator("script").count() == 3 and page.locator("img[src=x]").count() == 0, "text became markup")


def opens(link, origin):
    check(urllib.parse.urlsplit(link).scheme in ("http", "https"), f"a link over HTTP leads to {link}")
    if link.startswith(origin):
        try:
            urllib.request.urlopen(link).close()
        except OSError as error:
            raise AssertionError(f"the link {link} leads nowhere: {error}") from None


def check_links(page, origin):
    page.evaluate(probes.SCROLL_THROUGH)
    none(page.evaluate(probes.PICTURES), "pictures are missing")
    for link in sorted(set(page.eval_on_selector_all(".gallery a, #failures a", "links => links.map((link) => link.href)"))):
        opens(link, origin)


def check_summary(visit, report):
    """The first screen: the sentence, the worst findings, and whether the maps can be trusted."""
    page, rows = visit.page, rows_of(report)
    sentence = page.locator("#wrong").inner_text()
    number = sum(row["count"] for row in (report.get("findings") or {}).get("counts") or [] if row["kind"] == "label-error")
    if number:
        check(f"{number:,} label" in sentence, f"the sentence says how many labels look wrong: {sentence}")
    if not rows:
        check("Nothing" in sentence or "no results" in sentence, f"the sentence says that nothing was found: {sentence}")
    tiles = page.locator(".worst .tile-link")
    links = tiles.evaluate_all("links => links.map((link) => link.hash)")
    check(len(links) <= 6, "at most six findings are shown")
    kinds = {re.search("kind=([^&]*)", link)[1] for link in links}
    pictured = {row["kind"] for row in rows if row["thumbnail"] or row["overlay"] or (row["image"] and page.url.startswith("file:"))}
    images = {row["key"] for row in rows if row["kind"] in pictured}
    check(len(kinds) >= min(6, len(pictured)) or len(images) < 6, f"the worst findings are of {kinds}, of {pictured}")
    trust = page.locator("#summary .trust").inner_text()
    maps = (report.get("trust") or {}).get("maps")
    check(("--trust-sample" in trust) != bool(maps), f"the page says whether maps were measured: {trust}")
    if maps:
        failed = any("failed" in (one["road_verdict"], one["head_verdict"], one["last_stage_verdict"]) for one in maps)
        check(("Be careful" in trust) == failed, f"the page says what came of it: {trust}")
        page.locator("#summary .trust summary").click()
        check(f"{maps[0]['road']['mean']:.2f}" in page.locator("#summary .trust").inner_text(), "the numbers stand behind it")
    flagged = any(cluster["shortcut"] for cluster in report.get("clusters") or [])
    if report.get("clusters"):
        check((page.locator("#clusters details.folded").count() == 0) == flagged, "clusters are folded if none is flagged")


def check_terms(page):
    """Words explain themselves on hover and on focus, and Escape closes the explanation."""
    word = page.locator("#report .term:visible").first
    if word.count() == 0:
        return
    word.hover()
    check(len(page.locator("#tip").inner_text()) > 30, "a word explains itself on hover")
    page.mouse.move(0, 0)
    check(page.locator("#tip").is_hidden(), "the explanation goes away")
    word.focus()
    check(page.locator("#tip").is_visible() and word.get_attribute("aria-describedby") == "tip", "a word explains itself on focus")
    page.keyboard.press("Escape")
    check(page.locator("#tip").is_hidden(), "Escape closes the explanation")


def check_steady(page):
    """Nothing moves while pictures load. The browser must not have loaded any of them before."""
    page.evaluate(probes.WATCH_SHIFTS)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.evaluate(probes.SCROLL_THROUGH)
    check(page.evaluate("document.documentElement.scrollHeight") == height, "the page changes its height while pictures load")
    shift = sum(page.evaluate("window.shifts"))
    check(shift < 0.01, f"the page moves by {shift:.3f} while pictures load")


def check_keyboard(visit):
    """Tab alone reaches every control of the work list, from the top, with a visible focus all the way."""
    visit.open("#work")
    page = visit.page
    page.evaluate("document.getElementById('more-filters').open = true")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    check(page.evaluate("document.activeElement.className") == "skip", "the first stop is the skip link")
    page.keyboard.press("Enter")
    check(page.evaluate("document.activeElement.id") == "main", "the skip link leads to the content")
    wanted = ["filter-text", "filter-problem", "filter-decision", "filter-label", "filter-predicted", "filter-min", "filter-sort", "reset", "decide-all", "undo", "grid-heat"]
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        stop = page.evaluate("""() => {
          const at = document.activeElement;
          const shown = at.matches('.pills input, .segmented input') ? at.nextElementSibling : at;
          return [at.id || at.className, getComputedStyle(shown).outlineStyle, at.outerHTML.slice(0, 120)];
        }""")
        check(stop[1] != "none", f"the focus can't be seen on {stop[2]}")
        reached.append(stop[0])
        if stop[0].startswith("tile-link"):
            break
    check([name for name in reached if name in wanted] == wanted, f"Tab misses some of {wanted}: {reached}")


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


def views_of(rows):
    """The fragments of all views that the report has. Those of all images are in any report with findings."""
    images = [f"#image?key={urllib.parse.quote(row['key'], safe='')}" for row in rows[:1]]
    copies = [f"#image?key={urllib.parse.quote(row['key'], safe='')}" for row in rows if row["group"]][:1]
    return ["", "#work", *(["#images", "#map"] if rows else []), *images, *copies]


def check_theme(visit, rows):
    page = visit.page
    ground = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    before = ground()
    for fragment in views_of(rows):
        visit.open(fragment)
        none(page.evaluate(probes.CONTRAST), f"too little contrast in the light theme, {fragment}")
        page.click("#theme")
        check(ground() != before, "the theme's button changes the ground")
        none(page.evaluate(probes.CONTRAST), f"too little contrast in the dark theme, {fragment}")
        visit.open(fragment)
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
    without_data = len(html.encode()) - sum(len(block.search(html)[1].encode()) for block in (DATA, all_images.BLOCK))
    images = all_images.Images(html, origin)
    check(without_data < MOST_BYTES, f"the page has {without_data} bytes without its data")

    visit = Visit(browser, origin, address, color_scheme="light")
    seconds = visit.open()
    check(not timed or seconds < LIST_SECONDS, f"the page took {seconds:.2f} s to show")
    page, reader = visit.page, work_list.WorkReader(visit.page, rows)
    check_sections(visit, report)
    check_summary(visit, report)
    check_terms(page)
    for fragment in views_of(rows):
        visit.open(fragment)
        none(page.evaluate(probes.ACCESSIBILITY), f"accessibility of {fragment or 'the report'}")
    note = f"{len(rows)} findings: shown after {seconds:.2f} s, {without_data} bytes without data"
    if rows:
        filtered = work_list.check_filters(reader)
        check(not timed or filtered < FILTER_SECONDS, f"a search took {filtered:.2f} s")
        note += f", searched in {filtered * 1000:.0f} ms"
        work_list.check_grid(reader)
        work_list.check_pictures(reader)
        work_list.check_export(reader)
        work_list.check_detail_links(reader, origin, opens)
        work_list.check_all_at_once(visit, reader)
        work_list.check_history(visit, reader)
        check_keyboard(visit)
    note += all_images.check_images(visit, reader, images, timed)
    visit.open()
    check_confusion(page, report)
    check_links(page, origin)
    check_theme(visit, rows)
    visit.close()

    if rows:
        visit = Visit(browser, origin, address)
        work_list.check_cleaning(visit, work_list.WorkReader(visit.page, rows))
        visit.close()

    for options in ({"viewport": {"width": 360, "height": 740}, "has_touch": True}, {"viewport": {"width": 820, "height": 1100}}, {"viewport": {"width": 2560, "height": 1300}}):
        visit = Visit(browser, origin, address, color_scheme="dark", **options)
        visit.open()
        check_steady(visit.page)
        for fragment in views_of(rows):
            visit.open(fragment)
            visit.page.evaluate("() => { for (const part of document.querySelectorAll('details')) part.open = true; }")
            none(visit.page.evaluate(probes.OVERFLOW), f"{fragment or 'the report'} scrolls sideways")
        check(visit.page.evaluate("document.querySelector('.frame').getBoundingClientRect().width") > 0.98 * options["viewport"]["width"], "the page uses the width of the screen")
        visit.close()
    for options in ({"viewport": {"width": 390, "height": 844}}, {"viewport": {"width": 1440, "height": 900}}):
        visit = Visit(browser, origin, address, **options)
        visit.open()
        if visit.page.locator(".worst .box").count() > 0:
            box = visit.page.locator(".worst .box").first.bounding_box()
            check(box["y"] + box["height"] <= options["viewport"]["height"], f"the first picture stands on the first screen, not at {box}")
        visit.close()

    accessibility.check_accessibility(browser, origin, address, views_of(rows))

    # From a disk the page also shows originals, which lie in SOURCE.
    visit = Visit(browser, "file://", index.as_uri())
    visit.open()
    reader = work_list.WorkReader(visit.page, rows)
    check_sections(visit, report)
    if rows:
        reader.go("#work")
        reader.expect(reader.work.passing(), "the list from a file")
        work_list.check_pictures(reader)
        work_list.check_export(reader)
        visit.open()
        visit.page.evaluate(probes.SCROLL_THROUGH)
        none(visit.page.evaluate(probes.PICTURES), "pictures are missing from a file")
    if images.count > 0:
        all_images.check_from_disk(visit, images)
    visit.close()

    visit = Visit(browser, origin, address)
    visit.context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('forbidden'); } })")
    visit.open()
    visit.page.click("#theme")
    if rows:
        check_without_storage(visit, work_list.WorkReader(visit.page, rows))
    visit.close()

    if screenshots:
        take_screenshots(browser, origin, address, Path(screenshots))
    server.shutdown()
    return note


def check_without_storage(visit, reader):
    """Where the browser keeps nothing, decisions work, and the page says that they would be lost."""
    page = reader.page
    visit.open("#work")
    page.locator(".grid-holder .tile-link").first.focus()
    page.keyboard.press("d")
    page.keyboard.type(work_list.NAME)
    page.keyboard.press("Enter")
    page.locator("#unsaved:visible").wait_for()
    check(reader.progress()[0] <= 1 and len(reader.decisions()) == 1, "a decision is made without storage")


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
                          "many classes": {"rows": 60, "classes": 40}, "files": {"others": 900, "in_files": True}, "large": {"rows": 100_000}}.items():
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
