"""Decides about a served report in two browsers at once, with the keyboard alone.

    python tests/browser/served_page.py URL [KIND=N …]     # the address that `camshaft serve` prints, and the
                                                           # sizes of samples that were drawn, by kind

The first browser drops the first image of the work list, and gives the second one the suggested label, or keeps
it if there is none. The other browser sees both and keeps the third, which the first one sees. A new browser has
all three. Prints what was decided as JSON, by key. If a check fails, the exit status is 1.
"""

import json
import sys
import urllib.parse

from playwright.sync_api import sync_playwright

from reading import Visit, check
from report_page import CHROMIUM, rows_of
from work_list import Work

# Longer than two pages take to ask what is new.
SOON_MS = 15_000


def decide(visit, image, key, name=None):
    """Opens an image, and presses a key; the first time the page asks for a name."""
    page = visit.page
    page.evaluate("address => { location.hash = address; }", f"#image?{urllib.parse.urlencode({'key': image})}")
    page.wait_for_function("image => document.body.dataset.view === 'image' && document.querySelector('#image-view h1').textContent === image", arg=image)
    page.keyboard.press(key)
    if name:
        page.keyboard.type(name)
        page.keyboard.press("Enter")


def shows(visit, decided):
    """Waits until so many images are decided, whoever decided."""
    visit.page.evaluate("location.hash = '#work'")
    visit.page.wait_for_function(
        "decided => parseInt(document.querySelector('#work-view .progress-text').textContent) === decided",
        arg=decided, timeout=SOON_MS)


def main(address, samples):
    parts = urllib.parse.urlsplit(address)
    root = f"{parts.scheme}://{parts.netloc}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        ana, ben = (Visit(browser, root, address) for _ in range(2))
        for visit in (ana, ben):
            visit.open()
            check(visit.page.url == f"{root}report/index.html", f"the token is gone from the address: {visit.page.url}")
        work = Work(rows_of(ana.page.evaluate("JSON.parse(document.getElementById('report-data').textContent)")))
        # The progress counts images with findings of their own.
        first, second, third = [key for key in work.together(work.passing()) if key in work.findings][:3]
        suggested = work.suggested(second)
        wanted = {
            first: ("drop", None),
            second: ("relabel", suggested) if suggested else ("keep", None),
            third: ("keep", None),
        }
        decide(ana, first, "d", "ana")
        shows(ana, 1)
        decide(ana, second, "s" if suggested else "k")
        shows(ana, 2)
        shows(ben, 2)
        decide(ben, third, "k", "ben")
        shows(ana, 3)
        # What was drawn for people to judge since the report was built.
        for kind, number in sorted(samples.items()):
            ana.page.evaluate("address => { location.hash = address; }", f"#images?sample={kind}")
            ana.page.wait_for_function("number => document.querySelector('#work-view .result strong')?.textContent === String(number)", arg=number, timeout=SOON_MS)
            check("Drawn at random" in ana.page.locator("#work-view .chosen").inner_text(), "the list says what it is")
        # The picture itself comes through the program, not only its thumbnail.
        large = ana.page.evaluate("""async key => {
            const answer = await fetch(`../originals/${key.split('/').map(encodeURIComponent).join('/')}`);
            return [answer.status, answer.headers.get('content-type')];
        }""", second)
        check(large[0] == 200 and large[1].startswith("image/"), f"the original is there: {large}")
        # What was decided is in OUT: a fresh browser has it, too.
        fresh = Visit(browser, root, address)
        fresh.open()
        shows(fresh, 3)
        for visit in (ana, ben, fresh):
            visit.close()
        browser.close()
    print(json.dumps(wanted))


if __name__ == "__main__":
    try:
        main(sys.argv[1], {kind: int(size) for kind, size in (one.split("=") for one in sys.argv[2:])})
    except AssertionError as error:
        sys.exit(f"served_page.py: {error}")
