"""Cleans a data set on a served report with the keyboard alone, as someone does who believes what was found.

    python tests/browser/cleaning.py URL     # the address that `camshaft serve` prints

Goes to the work list by Tab and Enter, opens its first image, and decides about every one: relabels where a label
is suggested, drops copies, poor pictures and files that can't be read, and keeps the rest. Prints the number of
decisions of each kind as JSON. If the page does not go along, the exit status is 1.
"""

import collections
import json
import sys
import urllib.parse

from playwright.sync_api import sync_playwright

from reading import Visit, check
from report_page import CHROMIUM

# More than there are links before the first tile.
MOST_TABS = 80
# Kinds of findings, as the page names them, after which the image is dropped.
DROPPED = ("duplicate", "image problem", "failure")
SEEN = """() => ({
  key: document.querySelector('#image-view h1')?.textContent,
  kinds: [...document.querySelectorAll('#image-view .problems .chip')].map((chip) => chip.textContent.toLowerCase()),
  suggests: document.querySelector('#image-view [data-choice=suggested]') !== null,
})"""


def tab_to(page, selector):
    """Presses Tab until an element has the focus."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")


def choice(seen):
    """The key that a reader presses who sees this."""
    if seen["suggests"]:
        return "s"
    if any(kind.startswith(DROPPED) for kind in seen["kinds"]):
        return "d"
    return "k"


def main(address):
    parts = urllib.parse.urlsplit(address)
    pressed = collections.Counter()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        visit = Visit(browser, f"{parts.scheme}://{parts.netloc}/", address)
        visit.open()
        page = visit.page
        tab_to(page, "#nav a[href='#work']")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.body.dataset.view === 'work'")
        tab_to(page, "#work-view .tile-link")
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.body.dataset.view === 'image'")
        while True:
            seen = page.evaluate(SEEN)
            key = choice(seen)
            page.keyboard.press(key)
            if not pressed:
                page.keyboard.type("ana")
                page.keyboard.press("Enter")
            pressed[key] += 1
            try:
                page.wait_for_function("key => document.querySelector('#image-view h1').textContent !== key", arg=seen["key"], timeout=3000)
            except Exception:
                break
        page.keyboard.press("Escape")
        page.wait_for_function("() => document.body.dataset.view === 'work'")
        done, of = page.evaluate("() => document.querySelector('#work-view .progress-text').textContent.match(/[\\d,]+/g).map((number) => Number(number.replaceAll(',', '')))")
        check(done == of and done > 0, f"everything is decided: {done} of {of}")
        visit.close()
        browser.close()
    print(json.dumps(pressed))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except AssertionError as error:
        sys.exit(f"cleaning.py: {error}")
