"""Decides about a served report in two browsers at once, with the keyboard alone.

    python tests/browser/served_page.py URL     # the address that `camshaft serve` prints

Each browser goes through the images with findings: the first drops its first one, gives the second one the
suggested label if there is one and keeps it otherwise, and the other browser sees both; that one keeps the
third. Prints what was decided as JSON, by key. If a check fails, the exit status is 1.
"""

import json
import sys
import urllib.parse

from playwright.sync_api import sync_playwright

from reading import Visit, check
from work_list import Work

CHROMIUM = "/usr/bin/chromium"
# Longer than two pages take to ask what is new.
SOON_MS = 15_000


def decide(visit, index, key, name=None):
    """Opens the image at a place in the list, and presses a key. Returns the image's key."""
    page = visit.page
    page.evaluate("location.hash = '#work'")
    page.wait_for_selector("body[data-view=work]")
    for _ in range(index + 1):
        page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-view=image]")
    image = page.locator("#image-view h1").text_content()
    page.keyboard.press(key)
    if name:
        page.keyboard.type(name)
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    return image


def shows(visit, decided):
    """Waits until so many images are decided, whoever decided."""
    visit.page.evaluate("location.hash = '#work'")
    visit.page.wait_for_function(
        "decided => parseInt(document.querySelector('#work-view .progress-text').textContent) === decided",
        arg=decided, timeout=SOON_MS)


def main(address):
    parts = urllib.parse.urlsplit(address)
    root = f"{parts.scheme}://{parts.netloc}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        ana, ben = (Visit(browser, root, address) for _ in range(2))
        for visit in (ana, ben):
            visit.open()
            check(visit.page.url == f"{root}report/index.html", f"the token is gone from the address: {visit.page.url}")
        rows = ana.page.evaluate("JSON.parse(document.getElementById('report-data').textContent).findings.rows")
        work = Work([{"label": None, "suggested": None, **row} for row in rows])
        wanted = {}
        wanted[decide(ana, 0, "d", "ana")] = ("drop", None)
        second = work.together(work.passing())[1]
        suggested = work.suggested(second)
        wanted[decide(ana, 1, "s" if suggested else "k")] = ("relabel", suggested) if suggested else ("keep", None)
        shows(ana, 2)
        shows(ben, 2)
        wanted[decide(ben, 2, "k", "ben")] = ("keep", None)
        shows(ana, 3)
        # The picture itself comes through the program, not only its thumbnail.
        large = ana.page.evaluate("""async key => {
            const answer = await fetch(`../originals/${key.split('/').map(encodeURIComponent).join('/')}`);
            return [answer.status, answer.headers.get('content-type')];
        }""", second)
        check(large[0] == 200 and large[1].startswith("image/"), f"the original is there: {large}")
        # What was decided is in OUT: a fresh browser has it, too.
        fresh = Visit(browser, root, address)
        fresh.open("#work" if "#" not in address else "")
        shows(fresh, 3)
        for visit in (ana, ben, fresh):
            visit.close()
        browser.close()
    print(json.dumps(wanted))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except AssertionError as error:
        sys.exit(f"served_page.py: {error}")
