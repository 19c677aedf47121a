"""Checks the report's views with axe-core: names, roles, landmarks, focus and contrast, in both themes, on a phone
and on a wide screen."""

from pathlib import Path

import axe_playwright_python

from reading import Visit, none

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
# Success criteria of levels A and AA, and what axe-core advises besides.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FIND = """async (rules) => (await axe.run(document, { runOnly: rules })).violations.flatMap((rule) =>
  rule.nodes.map((node) => `${rule.id}: ${rule.help}: ${node.html.slice(0, 160)}`))"""


def check_accessibility(browser, inside, address, views):
    """`views` are the addresses behind #. Each is checked as it stands once it is drawn."""
    for scheme in ("light", "dark"):
        for width, height in ((390, 844), (1440, 900)):
            # The page's policy allows no other script than its own.
            visit = Visit(browser, inside, address, color_scheme=scheme, viewport={"width": width, "height": height}, bypass_csp=True)
            for view in views:
                visit.open(view)
                visit.settle()
                visit.page.evaluate(AXE)
                none(visit.page.evaluate(FIND, RULES), f"{view or 'the report'} at {width} pixels, {scheme}, has barriers")
            visit.close()
