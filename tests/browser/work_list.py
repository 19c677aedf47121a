"""Checks of the work list and of the view of one image, for report_page.py: filters, the grid, decisions
by keyboard and for many images at once, files, addresses, and the large pictures with their heat."""

import csv
import json
import re
import urllib.parse

import probes
from reading import check, most_common, none

NAME = "ana"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Work:
    """The images that the data say the list should show, in order."""

    def __init__(self, rows):
        self.rows = rows
        self.findings = {}
        for row in rows:
            self.findings.setdefault(row["key"], []).append(row)
        self.groups, self.group_of = {}, {}
        for row in rows:
            if row["group"] and row["best"]:
                group = self.groups.setdefault(row["group"]["id"], {"best": row["best"], "others": []})
                if row["key"] not in self.group_of:
                    group["others"].append(row["key"])
                    self.group_of[row["key"]] = group
                self.group_of.setdefault(row["best"], group)

    def label(self, key):
        row = self.findings[key][0]
        return row["label_class"] or row["label"]

    def suggested(self, key):
        return next((row["suggested"] for row in self.findings.get(key, []) if row["suggested"]), None)

    def kinds(self, key):
        kinds = {row["kind"] for row in self.findings.get(key, [])}
        return kinds | {"duplicate"} if self.group_of.get(key, {}).get("best") == key else kinds

    def passing(self, holds=lambda row: True, label=None):
        """The images that have a finding for which `holds` is true."""
        return [key for key, rows in self.findings.items() if (label is None or self.label(key) == label) and any(holds(row) for row in rows)]

    def together(self, keys):
        """The same images, those of a group at the place of the first, and its best in front."""
        wanted, placed = set(keys), {}
        for key in keys:
            group = self.group_of.get(key)
            if group and key not in placed and any(other in wanted for other in group["others"]):
                for one in [group["best"], *(other for other in group["others"] if other in wanted)]:
                    placed.setdefault(one)
            placed.setdefault(key)
        return list(placed)


class WorkReader:
    """The controls of the work list."""

    def __init__(self, page, rows):
        self.page, self.work = page, Work(rows)

    def go(self, address):
        self.page.evaluate("address => { location.hash = address; }", address)
        view = re.match(r"#?(work|images|image|map)?", address)[1] or "report"
        view = "work" if view == "images" else view
        self.page.wait_for_selector(f"body[data-view={view}]")

    def filters(self):
        self.page.evaluate("document.getElementById('more-filters').open = true")

    def found(self):
        return int(re.sub(r"\D", "", self.page.locator("#work-view .result strong").inner_text()))

    def shown(self):
        return self.page.eval_on_selector_all(".grid-holder .tile-link", "links => links.map((link) => link.title)")

    def progress(self):
        return [int(number) for number in re.findall(r"\d+", self.page.locator("#work-view .progress-text").inner_text().replace(",", ""))]

    def expect(self, keys, what, together=True):
        """Waits until the list has as many images as `keys`, then compares the first ones."""
        try:
            self.page.wait_for_function("wanted => Number(document.querySelector('#work-view .result strong').textContent.replace(/\\D/g, '')) === wanted", arg=len(keys), timeout=5000)
        except Exception:
            raise AssertionError(f"{what}: {self.found()} images are shown, {len(keys)} expected") from None
        self.page.evaluate("scrollTo(0, 0)")
        shown, wanted = self.shown(), self.work.together(keys) if together else keys
        check(shown == wanted[: len(shown)] and (shown or not wanted), f"{what}: the list shows {shown[:3]} …, expected {wanted[:3]} …")

    def kind(self, kind):
        self.page.locator(f"#work-view input[name=kind][value={json.dumps(kind or '')}]").check(force=True)

    def clear(self):
        self.filters()
        self.page.click("#reset")
        self.expect(self.work.passing(), "cleared filters")

    def decisions(self):
        """The lines of the downloaded file, by key."""
        with self.page.expect_download() as download:
            self.page.evaluate("document.getElementById('download').click()")
        check(download.value.suggested_filename == "decisions.jsonl", "the file of decisions has its name")
        with open(download.value.path(), encoding="utf-8") as file:
            return read_lines(file.read())


def read_lines(text):
    check(text == "" or text.endswith("\n"), "every line of the file ends")
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        fields = ["schema", "key", "decision", *(["label"] if line["decision"] == "relabel" else []), "by", "at", "because"]
        check(list(line) == fields and line["schema"] == 1, f"a line has other fields: {line}")
        check(TIME.fullmatch(line["at"]), f"a line has no time: {line}")
    return {line["key"]: line for line in lines}


def check_filters(reader):
    page, work = reader.page, reader.work
    reader.go("#work")
    reader.expect(work.passing(), "the whole list")
    rows = work.rows
    kind = most_common([row["kind"] for row in rows])
    reader.kind(kind)
    reader.expect(work.passing(lambda row: row["kind"] == kind), f"the kind {kind}", together=kind == "duplicate")
    reader.filters()
    problem = most_common([row["problem"] for row in rows])
    if problem:
        of = next(row["kind"] for row in rows if row["problem"] == problem)
        reader.kind(of)
        page.select_option("#filter-problem", problem)
        reader.expect(work.passing(lambda row: row["problem"] == problem), f"the problem {problem}", together=of == "duplicate")
    reader.clear()
    label = most_common([work.label(key) for key in work.findings])
    if label:
        page.select_option("#filter-label", label=label)
        reader.expect(work.passing(label=label), f"the label {label}")
        reader.clear()
    predicted = most_common([row["predicted"] for row in rows])
    if predicted:
        page.select_option("#filter-predicted", label=predicted)
        reader.expect(work.passing(lambda row: row["predicted"] == predicted), f"the prediction {predicted}")
        reader.clear()
    score = sorted(row["score"] for row in rows)[len(rows) // 2]
    page.fill("#filter-min", str(score))
    reader.expect(work.passing(lambda row: row["score"] >= score), f"scores from {score}")
    reader.clear()
    page.select_option("#filter-sort", "key")
    reader.expect(sorted(work.findings, key=lambda key: key.encode("utf-16-be")), "the order by name", together=False)
    reader.clear()
    term = re.sub(r"[^ -~]", "", rows[-1]["key"])[-12:].strip() or "a"
    terms = term.lower().split()
    seconds = timed(page, term)
    reader.expect(work.passing(lambda row: all(part in f"{row['key']}\n{row['other'] or ''}\n{row['reason'] or ''}".lower() for part in terms)), f"a search for {term}")
    page.fill("#filter-text", "no such thing is in any key")
    reader.expect([], "a search for nothing")
    check("No image passes" in page.locator("#work-view .empty:visible").inner_text(), "an empty list says so")
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
      }).observe(document.querySelector('#work-view .result'), { childList: true, characterData: true, subtree: true });
      field.value = term;
      field.dispatchEvent(new Event('input', { bubbles: true }));
    })""", term)


def check_grid(reader):
    """Wherever the page is scrolled to, every tile on the screen is there, and few others are."""
    page = reader.page
    reader.go("#work")
    height = page.evaluate("document.documentElement.scrollHeight")
    for share in (0, 0.0002, 0.013, 0.31, 0.5, 0.77, 0.9999, 1, 0.4, 0):
        page.evaluate("async top => { scrollTo(0, top); await new Promise(requestAnimationFrame); }", share * height)
        none(page.evaluate(probes.GRID), f"the grid at {share:.2%} of the page")
    nodes = page.evaluate("document.querySelectorAll('*').length")
    check(nodes < 12_000, f"{nodes} elements are there at once")


def check_cleaning(visit, reader):
    """Cleans images with the keyboard alone, and compares the downloaded file."""
    page, work = reader.page, reader.work
    visit.open()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == "#work":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-view=work]")
    order = work.together(work.passing())
    title = lambda: page.evaluate("document.activeElement.title")
    page.keyboard.press("j")
    check(title() == order[0], f"j leads into the grid, not to {title()}")
    if len(order) > 2:
        page.keyboard.press("ArrowRight")
        page.keyboard.press("j")
        check(title() == order[2], "the arrow and j lead on")
        page.keyboard.press("p")
        page.keyboard.press("Home")
        check(title() == order[0], "p and Home lead back")
    page.keyboard.press("?")
    check("undo" in page.locator("dialog[open]").inner_text(), "? shows the keys")
    page.keyboard.press("Escape")
    check(title() == order[0], "the focus is back after a dialog")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-view=image]")
    wanted = {}
    heading = lambda: page.evaluate("document.querySelector('#image-view h1').textContent")
    at = 0
    for turn in range(min(len(order), 12)):
        key = order[at]
        check(heading() == key, f"image {at + 1} is {heading()}, not {key}")
        act = "kdrts"[turn % 5]
        suggested = work.suggested(key)
        if act == "s" and not suggested:
            page.keyboard.press("s")
            check(heading() == key, "without a suggestion nothing is decided")
            act = "d"
        if act == "r":
            page.keyboard.press("r")
            label = page.evaluate("document.querySelector('.label-options li span:not(.quiet-text):not(.no-digit)')?.textContent ?? null")
            if label is None:  # no label and no prediction is known: a new one
                page.keyboard.type("new label")
                page.keyboard.press("Enter")
                label = "new label"
            elif page.locator(".label-options kbd").count() > 0:
                page.keyboard.press("1")
            else:
                page.keyboard.press("Enter")
            wanted[key] = ("relabel", label)
        elif act == "t":
            page.keyboard.press("r")
            page.keyboard.type("wolf")
            page.keyboard.press("Enter")
            wanted[key] = ("relabel", "wolf")
        else:
            page.keyboard.press(act)
            wanted[key] = {"k": ("keep", None), "d": ("drop", None), "s": ("relabel", suggested)}[act]
        if turn == 0:
            page.keyboard.type(NAME)
            page.keyboard.press("Enter")
        at = min(at + 1, len(order) - 1)
        # A decision that asks something is made a moment after the answer.
        page.wait_for_function("decided => parseInt(document.querySelector('#work-view .progress-text').textContent) === decided", arg=sum(key in work.findings for key in wanted))
        page.wait_for_function("place => document.querySelector('#image-view .place').textContent.replaceAll(',', '').startsWith(place)", arg=f"{at + 1} of")
    last = order[min(len(order), 12) - 1]
    page.keyboard.press("u")
    page.wait_for_function("key => document.querySelector('#image-view h1').textContent === key", arg=last)
    wanted[last] = ("undecided", None)
    page.keyboard.press("Escape")
    page.wait_for_selector("body[data-view=work]")
    check(page.evaluate("document.activeElement.title") == last, f"Escape leads back to {last} in the grid, not to {page.evaluate('document.activeElement.title')}")
    decided = sum(key in work.findings and choice[0] != "undecided" for key, choice in wanted.items())
    check(reader.progress() == [decided, len(work.findings)], f"the progress is {reader.progress()}, not {decided}")
    # The file, by keyboard too: back from the grid to the menu.
    for _ in range(20):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.tagName === 'SUMMARY' && document.activeElement.parentElement.id === 'file-menu'"):
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    with open(download.value.path(), encoding="utf-8") as file:
        lines = read_lines(file.read())
    check({key: (line["decision"], line.get("label")) for key, line in lines.items()} == wanted, f"the file holds {lines}, not {wanted}")
    for key, line in lines.items():
        check(line["by"] == NAME and set(line["because"]) == work.kinds(key), f"a line says by or because wrongly: {line}")
    check(list(lines) == sorted(lines, key=lambda key: key.encode("utf-16-be")), "the lines are in the order of the keys")
    visit.open("#work")
    check(reader.progress() == [decided, len(work.findings)], "decisions are remembered")
    check_upload(reader, lines)


def upload(page, text):
    page.set_input_files("#upload", files=[{"name": "decisions.jsonl", "mimeType": "application/jsonl", "buffer": text.encode()}])
    told = page.locator("dialog[open]")
    told.wait_for()
    text = told.inner_text()
    page.keyboard.press("Enter")
    told.wait_for(state="detached")
    return text


def check_upload(reader, before):
    """Of each key the last line counts, wherever it comes from; bad lines are named, and nothing is lost."""
    page = reader.page
    line = lambda key, at, **more: json.dumps({"schema": 1, "key": key, "decision": "keep", "by": "ben", "at": at, "because": [], **more})
    known = next(iter(before))
    bad = ["not json", '{"schema":1}', line("a", "2026-11-29"), line("a", "2099-01-01T00:00:00Z", decision="relabel"), line("a", "2099-01-01T00:00:00Z", label="dog"),
           line("a", "2099-01-01T00:00:00Z", schema=2), line("", "2099-01-01T00:00:00Z"), line("a", "2099-01-01T00:00:00Z", decision="burn"), "[]"]
    good = [line("elsewhere/x.jpg", "2099-01-01T00:00:00.500Z", decision="drop"), line("elsewhere/x.jpg", "2099-01-01T00:00:00.400Z"),
            line(known, "2001-01-01T00:00:00Z", decision="relabel", label="late")]
    told = upload(page, "\ufeff" + "\r\n".join(bad) + "\n\n" + "\n".join(good))
    for part in ("1 decision taken", "1 decision not taken", "not in this list", "9 lines refused", *(f"line {number}:" for number in range(1, 10))):
        check(part in told, f"no {part!r} in {told}")
    lines = reader.decisions()
    check({key: value for key, value in lines.items() if key != "elsewhere/x.jpg"} == before, "an older or a bad line changes nothing")
    check(lines["elsewhere/x.jpg"]["decision"] == "drop" and lines["elsewhere/x.jpg"]["by"] == "ben", "a line of another list is kept")
    upload(page, line(known, "2099-01-01T00:00:00+01:00", decision="relabel", label="late", because=["duplicate"]))
    lines = reader.decisions()
    check(lines[known] == {"schema": 1, "key": known, "decision": "relabel", "label": "late", "by": "ben", "at": "2098-12-31T23:00:00.000Z", "because": ["duplicate"]}, f"a later line counts: {lines[known]}")
    upload(page, "\n".join(line(key, "2099-02-01T00:00:00Z", decision="undecided") for key in lines))
    check(reader.progress()[0] == 0, "lines can take all decisions back")


def decide_all(reader, choice):
    """Opens the dialog for the whole list, takes a choice, and returns what its button says."""
    page = reader.page
    page.click("#decide-all")
    page.locator(f"dialog input[value={choice}]").check()
    button = page.locator("dialog button.main")
    text = button.inner_text()
    asks = page.evaluate("localStorage.getItem('camshaft-report:by') === null")
    button.click()
    if asks:
        page.locator("#decider").wait_for()
        page.keyboard.type(NAME)
        page.keyboard.press("Enter")
    page.locator("dialog").wait_for(state="detached")
    return text


def check_all_at_once(visit, reader):
    page, work = reader.page, reader.work
    visit.open("#work")
    count = lambda number: f"{number:,}"
    noun = lambda number: "1 image" if number == 1 else f"{count(number)} images"
    everything = work.passing()
    text = decide_all(reader, "keep")
    check(text == f"Keep {noun(len(everything))}", f"the button says {text}")
    check(reader.progress() == [len(everything)] * 2, f"all are decided: {reader.progress()}")
    page.click("#undo")
    check(reader.progress()[0] == 0, "one step back takes all back")
    if work.groups:
        reader.kind("duplicate")
        copies = [key for group in work.groups.values() for key in group["others"]]
        text = decide_all(reader, "copies")
        check(text == f"Drop {noun(len(copies))}", f"the button says {text}, not {len(copies)}")
        dropped = {key for key, line in reader.decisions().items() if line["decision"] == "drop"}
        check(dropped == set(copies), "all but the best of each group are dropped")
        check(not dropped & {group["best"] for group in work.groups.values()}, "no best image is dropped")
        reader.kind("")
        reader.filters()
        page.select_option("#filter-decision", "drop")
        reader.expect([key for key in everything if key in dropped], "what is dropped")
        page.click("#undo")
        reader.expect([], "what leaves the list after a step back", together=False)
        reader.clear()
    suggested = [key for key in everything if work.suggested(key)]
    if suggested:
        text = decide_all(reader, "suggested")
        check(text == f"Relabel {noun(len(suggested))}", f"the button says {text}")
        lines = reader.decisions()
        check(all(lines[key]["label"] == work.suggested(key) for key in suggested), "each gets its own suggestion")
        page.click("#undo")
    check(reader.progress()[0] == 0, "nothing is left of it")


def check_history(visit, reader):
    """Each view has an address; back and forward lead through them."""
    page, work = reader.page, reader.work
    visit.open()
    kind = most_common([row["kind"] for row in work.rows])
    keys = work.passing(lambda row: row["kind"] == kind)
    order = work.together(keys) if kind == "duplicate" else keys
    page.locator(f"#summary a.step[href*='kind={kind}']").click()
    page.wait_for_selector("body[data-view=work]")
    reader.expect(keys, "a step of the summary", together=kind == "duplicate")
    place = min(len(order), len(reader.shown())) // 2
    page.locator(".grid-holder .tile-link").nth(place).click()
    page.wait_for_selector("body[data-view=image]")
    heading = lambda it: it.evaluate("document.querySelector('#image-view h1').textContent")
    check(heading(page) == order[place], "a tile opens its image")
    if place + 1 < len(order):
        page.keyboard.press("ArrowRight")
        check(heading(page) == order[place + 1], "the arrow shows the next one of the list")
        page.keyboard.press("ArrowLeft")
    link = page.url
    page.go_back()
    page.wait_for_selector("body[data-view=work]")
    reader_at = page.evaluate("document.activeElement.title")
    check(reader_at == order[place], f"back leads to the list, at the image: {reader_at}")
    page.go_back()
    page.wait_for_selector("body[data-view=report]")
    page.go_forward()
    page.wait_for_selector("body[data-view=work]")
    check(reader.found() == len(keys), "forward leads to the same list")
    page.go_forward()
    page.wait_for_selector("body[data-view=image]")
    check(heading(page) == order[place], "forward leads to the image")
    other = visit.context.new_page()
    visit.watch(other)
    other.goto(link)
    other.wait_for_selector("html[data-ready]")
    check(heading(other) == order[place] and f"{place + 1:,} of {len(order):,}" in other.locator("#image-view .place").inner_text(), f"the link {link} opens at the image")
    other.keyboard.press("Escape")
    other.wait_for_selector("body[data-view=work]")
    check(WorkReader(other, work.rows).found() == len(keys), "Escape leads to the list of the link")
    other.close()
    reader.go("#image?key=no%20such%2Fimage.jpg")
    page.wait_for_function("() => document.getElementById('image-view').textContent.includes('no image of this name')")
    reader.go("#work")
    reader.filters()
    page.select_option("#filter-decision", "undecided")
    page.go_back()
    page.wait_for_function("() => document.getElementById('filter-decision').value === ''")


def check_pictures(reader):
    """The large pictures: zoom, heat, and no heat where the picture itself is the problem."""
    page, work = reader.page, reader.work
    address = lambda row: f"#image?key={urllib.parse.quote(row['key'], safe='')}"
    both = next((row for row in work.rows if row["class_maps"] and row["class_maps"].get("given") and row["thumbnail"]), None)
    if both:
        reader.go(address(both))
        page.wait_for_function("() => document.querySelectorAll('.stage canvas').length === 2")
        check(all(heat["opacity"] > 0.3 and 0.2 < heat["width"] <= 1.01 for heat in page.evaluate(probes.HEAT)), f"heat lies over both pictures: {page.evaluate(probes.HEAT)}")
        captions = page.locator(".stage-figure figcaption").all_inner_texts()
        check("(given)" in captions[0] and "(predicted)" in captions[1] and all(both["key"].rsplit("/", 1)[1] in re.sub(r"\u00a0", " ", caption) or "  " in both["key"] for caption in captions), f"captions say which file and class: {captions}")
        page.locator("#opacity").fill("0.25")
        check(all(heat["opacity"] == 0.25 for heat in page.evaluate(probes.HEAT)), "the slider sets the heat of both")
        page.keyboard.press("Tab")
        page.keyboard.press("h")
        check(all(heat["opacity"] == 0 for heat in page.evaluate(probes.HEAT)), "h hides the heat")
        page.keyboard.press("h")
        transforms = lambda: page.eval_on_selector_all(".stage-moved", "all => all.map((one) => one.style.transform)")
        page.keyboard.press("+")
        check(len(set(transforms())) == 1 and "scale(1.5)" in transforms()[0], f"both pictures are zoomed alike: {transforms()}")
        box = page.locator(".stage").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 + 40, box["y"] + box["height"] / 2, steps=3)
        page.mouse.up()
        check("translate(0%" not in transforms()[0] and len(set(transforms())) == 1, f"dragging moves both: {transforms()}")
        page.keyboard.press("0")
        check("scale(1)" in transforms()[0], "0 fits")
        page.locator("#opacity").fill("0.7")
    poor = next((row for row in work.rows if row["kind"] == "image-problem" and all(one["kind"] == "image-problem" for one in work.findings[row["key"]])), None)
    if poor:
        reader.go(address(poor))
        page.wait_for_function("() => document.querySelector('.stage img')?.complete || document.querySelector('.stage .placeholder')")
        check(page.locator(".stage canvas").count() == 0 and page.locator("#opacity").count() == 0, "a poor picture is shown without heat")
    copy = next((row for row in work.rows if row["group"] and row["thumbnail"]), None)
    if copy:
        reader.go(address(copy))
        group = work.group_of[copy["key"]]
        check(page.eval_on_selector_all(".strip .tile-link", "links => links.map((link) => link.title)") == [group["best"], *group["others"]], "a group shows all its images, the best first")
        check("The best" in page.locator(".stage-figure figcaption").last.inner_text(), "the best image lies beside the copy")


def check_detail_links(reader, origin, opens):
    """The links of some images lead to what is there."""
    page = reader.page
    for key in list(reader.work.findings)[:12]:
        reader.go(f"#image?key={urllib.parse.quote(key, safe='')}")
        for link in page.eval_on_selector_all("#image-view .links a", "links => links.map((link) => link.href)"):
            opens(link, origin)


def check_export(reader):
    page, work = reader.page, reader.work
    kind = most_common([row["kind"] for row in work.rows])
    reader.go("#work")
    reader.kind(kind)
    with page.expect_download() as download:
        page.evaluate("document.getElementById('export').click()")
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    keys = work.passing(lambda row: row["kind"] == kind)
    listed = set(keys)
    wanted = [row for key in (work.together(keys) if kind == "duplicate" else keys) if key in listed for row in work.findings[key]]
    check([line["key"] for line in lines] == [row["key"] for row in wanted], "the export holds the findings of the listed images")
    for line, row in zip(lines, wanted):
        for name in ("label", "predicted", "reason", "other", "problem", "suggested"):
            check(line[name] == (row[name] or ""), f"the export's {name} of {row['key']} is {line[name]}")
        check(float(line["score"]) == row["score"], f"the export's score of {row['key']} is {line['score']}")
    reader.clear()
