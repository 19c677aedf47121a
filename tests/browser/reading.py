"""What the checks of the report's page share: how they fail, and one browser page that counts every
error as a failure."""

import time


def check(holds, message):
    assert holds, message


def none(complaints, what):
    check(not complaints, what + ":\n  " + "\n  ".join(complaints[:10]))


def most_common(values):
    values = [value for value in values if value]
    return max(set(values), key=lambda value: (values.count(value), str(value))) if values else None


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
        page.on("dialog", lambda dialog: self.leave(dialog))
        page.on("request", lambda request: None if request.url.startswith((self.inside, "data:", "blob:")) else self.wrongs.append(f"a request elsewhere: {request.url}"))

    def leave(self, dialog):
        """A page that keeps decisions nowhere asks before it is closed; anything else must not ask."""
        if dialog.type == "beforeunload":
            dialog.accept()
        else:
            self.wrongs.append(f"a dialog: {dialog.message}")
            dialog.dismiss()

    def open(self, fragment=""):
        begun = time.monotonic()
        # An address that differs after # only would not load the page again.
        self.page.goto("about:blank")
        self.page.goto(self.address + fragment)
        self.page.wait_for_selector("html[data-ready]", timeout=60000)
        return time.monotonic() - begun

    def settle(self):
        """Waits until each picture on the screen is drawn or its placeholder is. Those below it may come later or
        never: they are put off until somebody scrolls to them, so the network may not become idle."""
        self.page.wait_for_function("""() => [...document.images].every((image) => {
          const box = image.getBoundingClientRect();
          return image.complete || box.bottom < 0 || box.top > innerHeight || !image.checkVisibility();
        })""")

    def close(self):
        none(self.wrongs, f"the page at {self.address} complains")
        self.context.close()
