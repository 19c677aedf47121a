"""Makes an OUT with a report of invented results, to look at the page and to test it.

    pip install pillow
    python tests/browser/fixture.py OUT [--rows 200] [--classes 3] [--variant full|bare|empty] [--photos FOLDER]

Fills the template of producer/report/src/page as the report crate does (see `build_page`). `full`
has every part, `bare` lacks the parts that need labels, thumbnails and embeddings, and `empty` has
no results. Thumbnails are drawn here, or cut from `--photos`, a folder of images.
"""

import argparse
import array
import base64
import hashlib
import html
import io
import json
import math
import random
import re
from pathlib import Path

from PIL import Image, ImageDraw

PAGE = Path(__file__).resolve().parents[2] / "producer" / "report" / "src" / "page"
# In the order of concatenation.
SCRIPTS = re.findall(r'include_str!\("([\w-]+\.js)"\)', (PAGE / "mod.rs").read_text())
SIZE = 192
# Rows beyond this one have no files beside the page, so that 100,000 rows stay cheap to make.
ROWS_WITH_FILES = 400
LABELS = ["cat", "dog", "<b>bird</b> & \"co\""]
AWKWARD_KEYS = [
    "cat/<script>alert(1)</script>.jpg",
    "cat/\"><img src=x onerror=alert(2)>.jpg",
    "javascript:alert(3)/#1 100% sure?.jpg",
    "dog/Größe & Übergröße/räksmörgås.jpg",
    "dog/{{data}} {{script}} ${alert(4)}.jpg",
    "dog/" + "a very long folder name/" * 3 + "and_a_file_name_without_any_place_to_break_" * 3 + ".jpg",
]


def build_page(report, images=None):
    """The page as one string: the template's placeholders filled in one pass over the template.

    One pass, because a key may itself read `{{script}}`. Hashes are over the exact UTF-8 text
    between the tags; `{{style}}` and `{{script}}` stand between them with nothing around.
    """
    style = (PAGE / "page.css").read_text(encoding="utf-8")
    script = "".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    assert "</script" not in script and "<!--" not in script and "\r" not in script + style
    assert "</style" not in style
    digest = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    values = {
        "title": html.escape(report["title"], quote=True),
        "style": style,
        "script": script,
        "csp_style": digest(style),
        "csp_script": digest(script),
        "data": in_page(report),
        "images": in_page(images),
    }
    template = (PAGE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def in_page(data):
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


# Pictures


def drawn_picture(chance):
    """A picture with a round thing on a soft background of two colours: upright, square or wide."""
    top, bottom, thing = (tuple(chance.randrange(60, 230) for _ in range(3)) for _ in range(3))
    picture = Image.new("RGB", (1, 2))
    picture.putdata([top, bottom])
    picture = picture.resize((SIZE, SIZE), Image.BICUBIC)
    pen = ImageDraw.Draw(picture)
    x, y, radius = chance.randrange(50, 140), chance.randrange(60, 140), chance.randrange(25, 55)
    pen.ellipse((x - radius, y - radius * 0.85, x + radius, y + radius), fill=thing)
    for side in (-1, 1):
        pen.polygon([(x + side * radius * 0.9, y - radius * 1.3), (x + side * radius * 0.25, y - radius * 0.8), (x + side * radius * 0.85, y - radius * 0.3)], fill=thing)
        pen.ellipse((x + side * radius * 0.35 - 4, y - 6, x + side * radius * 0.35 + 4, y + 2), fill=(20, 20, 20))
    shape = chance.choice([(0, 0, SIZE, SIZE), (0, 24, SIZE, SIZE - 24), (24, 0, SIZE - 24, SIZE)])
    return picture.crop(shape)


def photo(path):
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((SIZE, SIZE))
    return picture


def overlaid(picture, chance):
    """The picture with a warm blob over it, like a heat map."""
    heat = Image.radial_gradient("L").resize((int(picture.width * 1.4), int(picture.height * 1.4)))
    left, top = chance.randrange(0, int(picture.width * 0.4) + 1), chance.randrange(0, int(picture.height * 0.4) + 1)
    heat = heat.crop((left, top, left + picture.width, top + picture.height))
    colours = Image.merge("RGB", [heat.point(lambda v: 255 - v), heat.point(lambda v: 255 - abs(2 * v - 255)), heat])
    return Image.blend(picture, colours, 0.4)


def jpeg(picture):
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=85)
    return held.getvalue()


class Files:
    """Writes the files beside the page: each image and overlay once."""

    def __init__(self, out, chance, photos):
        self.out = out
        if photos:
            found = sorted(path for path in Path(photos).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
            pictures = [photo(path) for path in chance.sample(found, min(80, len(found)))]
        else:
            pictures = [drawn_picture(chance) for _ in range(40)]
        self.pairs = [(jpeg(picture), jpeg(overlaid(picture, chance))) for picture in pictures]

    def pair(self, key):
        return self.pairs[int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % len(self.pairs)]

    def write(self, path, content):
        place = self.out / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def image(self, key):
        """Writes an image's thumbnail and prediction; returns their fields of a row."""
        self.write(f"report/thumbnails/image/{key}.jpg", self.pair(key)[0])
        self.write(f"predictions/{key}.json", json.dumps({"schema": 1, "image": {"key": key}}).encode())
        return True

    def overlay(self, key, suffix=""):
        path = f"overlays/{key}{suffix}.jpg"
        self.write(path, self.pair(key)[1])
        self.write(f"report/thumbnails/{path}.jpg", self.pair(key)[1])
        return path


# Numbers


def blob(chance, size=7):
    x, y, width = chance.uniform(1, size - 2), chance.uniform(1, size - 2), chance.uniform(1.2, 2.4)
    values = [math.exp(-((c - x) ** 2 + (r - y) ** 2) / (2 * width**2)) for r in range(size) for c in range(size)]
    return {"height": size, "width": size, "values": [round(value * 0.9 + 0.03, 4) for value in values]}


def class_maps(key):
    """A blob of heat that depends on the key, 7 by 7 levels in hexadecimal digits."""
    values = blob(random.Random(key))["values"]
    most = max(values)
    return {"height": 7, "width": 7, "predicted": "".join(f"{round(255 * (value / most) ** 2):02x}" for value in values)}


def trust():
    near = lambda mean: {"mean": mean, "low": round(mean - 0.04, 3), "high": round(mean + 0.04, 3)}
    maps = {"method": "grad-cam", "layer": "layer4", "road": near(0.21), "random_road": near(0.0), "road_verdict": "passed",
            "head": near(0.31), "head_verdict": "passed", "last_stage": near(0.22), "last_stage_verdict": "passed", "warnings": []}
    doubtful = {**maps, "layer": "layer3", "head": near(0.82), "head_verdict": "failed",
                "warnings": ["the maps of grad-cam at layer3 hardly change where the network's head is random <b>"]}
    return {"images": 64, "maps": [maps, doubtful]}


def overview(chance, labels, images, counts):
    bins = []
    for at in range(15):
        low, high = at / 15, (at + 1) / 15
        number = 0 if at < 6 else int(4 + 900 * (at / 14) ** 14)
        middle = (low + high) / 2
        bins.append({"from": low, "to": high, "count": number, "confidence": middle if number else None,
                     "accuracy": max(0, min(1, middle - 0.06 + chance.uniform(-0.05, 0.05))) if number else None})
    histogram = [{"from": at / 20, "to": (at + 1) / 20,
                  "right": int(1050 * (at / 19) ** 16), "wrong": 0 if at < 8 else int(9 * chance.random()) + (at == 19) * 6,
                  "unlabelled": 0 if at < 12 else int(30 * (at / 19) ** 12)} for at in range(20)]
    matrix = [[700 if row == column else max(0, int(chance.gauss(4, 6))) for column in range(len(labels))] for row in range(len(labels))]
    return {
        "images": images, "predicted": images - 2, "failed": 2, "labelled": images - 2,
        "accuracy": 0.974, "accuracy_low": 0.961, "accuracy_high": 0.984, "ece": 0.0124, "estimated_label_errors": counts,
        "calibration": bins, "confidence": histogram,
        "confusion": {"classes": labels, "counts": matrix, "left_out": 3},
        "classes": [{"label": label, "images": 700, "predicted": 702, "recall": 0.981, "precision": 0.973, "mean_probability": 0.991, "map": blob(chance)} for label in labels],
        "failures": [
            {"class": "undecodable", "count": 1, "examples": [{"key": "cat/broken <b>.jpg", "message": "not a JPEG: no start of image"}]},
            {"class": "too-large", "count": 1, "examples": [{"key": "dog/huge.png", "message": "120000 by 90000 pixels are more than 100000000"}]},
        ],
        "throughput": {"images_per_second": 47.1, "seconds": 29.7, "workers": [{"name": "host-1", "images": images // 2 + 60}, {"name": "host-2", "images": images // 2 - 62}],
                       "timings_ms": {"fetch": 0.4, "decode": 2.2, "model": 20.1, "overlay": 1.3, "store": 0.3}},
        "notes": ["Outliers were not looked for in 12 images: their results hold no embedding.",
                  "Labels are folder names; 3 images lie in no folder."],
    }


KINDS = [
    ("label-error", None), ("duplicate", "exact"), ("duplicate", "near"), ("duplicate", "leak"), ("duplicate", "conflict"),
    ("image-problem", "dark"), ("image-problem", "blurred"), ("image-problem", "odd-aspect"), ("outlier", None),
    ("attention", "border"), ("attention", "corner"), ("attention", "flat"), ("shortcut", None), ("failure", None), ("wrong", None),
]
WEIGHTS = [43, 6, 20, 9, 4, 8, 12, 3, 25, 9, 6, 4, 1, 3, 6]


def reason(kind, problem, label, suggested):
    return {
        "label-error": f"Labelled {label}, but {suggested} is far more likely: {suggested} 99.2 %, {label} 0.4 %, where images of {label} have 97.1 % on average",
        "duplicate": {"exact": "The same file, byte for byte", "near": "Nearly the same picture: embeddings 0.012 apart",
                      "leak": "The same picture lies in train and in val", "conflict": "The same picture with two labels"}.get(problem),
        "image-problem": {"dark": "95 of 100 pixels are darker than 24 of 255", "blurred": "Sharpness 11.2, less than in 99.6 % of the images",
                          "odd-aspect": "1200 by 180 pixels: 6.7 times as wide as high"}.get(problem),
        "outlier": "Farther from its neighbours than 99.8 % of its class",
        "attention": {"border": "81 % of the map lies in the outermost ring", "corner": "64 % of the map lies in the top left corner",
                      "flat": "The map is almost the same everywhere: entropy 0.99"}.get(problem),
        "shortcut": "120 images of the class are all looked at in the top left corner, and surer than the rest",
        "failure": "Failed, undecodable: no start of image. Replace or remove the file: it would break a training",
        "wrong": f"Labelled {label}, but surely predicted as {suggested}: 99.2 %, 97.1 % is usual for images of {suggested}",
    }[kind]


def finding(rank, rows, labels, chance, groups):
    """A finding; `groups` are the groups of duplicates so far."""
    kind, problem = chance.choices(KINDS, WEIGHTS)[0]
    label = chance.choice(labels)
    folder = re.sub(r"\W+", "", label)
    predicted = chance.choice(labels) if kind == "label-error" or chance.random() < 0.04 else label
    suggested = predicted if kind == "label-error" else None
    key = AWKWARD_KEYS[rank - 1] if rank <= len(AWKWARD_KEYS) else f"train/{folder}/{folder}.{10000 + rank}.jpg"
    row = {"rank": rank, "kind": kind, "problem": problem, "score": round(1 - (rank - 1) / (rows * 1.05), 5), "key": key, "other": None,
           "label": label, "suggested": suggested, "predicted": predicted, "probability": round(chance.uniform(0.6, 1), 4),
           "reason": reason(kind, problem, label, suggested), "cluster": 3 if kind == "shortcut" else None,
           "thumbnail": False, "overlay": None, "overlay_thumbnail": False, "given_overlay": None, "given_overlay_thumbnail": False,
           "other_thumbnail": False, "other_overlay": None, "other_overlay_thumbnail": False, "image": None}
    if kind == "failure":
        row.update(predicted=None, probability=None, failure="undecodable")
    if kind == "duplicate":
        if not groups or chance.random() < 0.6:
            groups.append({"id": len(groups) + 1, "best": f"val/{folder}/copy of {folder}.{10000 + rank}.jpg", "label": label, "images": 1})
        group = groups[-1]
        group["images"] += 1
        # The number of images is known once all findings are made; see `make`.
        row.update(other=group["best"], best=group["best"], other_label=group["label"], group=group)
    return row


def shared_keys(listed, chance):
    """Gives some findings the image of an earlier one, so that images have several problems."""
    for at, row in enumerate(listed):
        earlier = listed[chance.randrange(at)] if at > 20 and chance.random() < 0.08 else None
        if earlier and "failure" not in (earlier["kind"], row["kind"]) and "duplicate" not in (earlier["kind"], row["kind"]) and earlier["kind"] != row["kind"]:
            row.update(key=earlier["key"], label=earlier["label"], predicted=earlier["predicted"], probability=earlier["probability"])


def write_files(row, files):
    key, kind = row["key"], row["kind"]
    if kind == "failure":
        files.write(f"failures/{key}.json", b"{}")
        return
    row.update(thumbnail=files.image(key), overlay=files.overlay(key), overlay_thumbnail=True)
    row["image"] = (files.out / "report" / "thumbnails" / "image").resolve().joinpath(key + ".jpg").as_uri()
    if kind not in ("duplicate", "image-problem") and row["rank"] % 9:
        row["class_maps"] = class_maps(key)
    if kind == "label-error":
        row.update(given_overlay=files.overlay(key, ".class-1"), given_overlay_thumbnail=True)
        if "class_maps" in row and row["rank"] % 3:  # older results lack the map of the label
            row["class_maps"].update(given="".join(f"{level // 3:02x}" for level in bytes.fromhex(row["class_maps"]["predicted"])[::-1]))
    if row["other"]:
        row.update(other_thumbnail=files.image(row["other"]), other_overlay=files.overlay(row["other"]), other_overlay_thumbnail=True,
                   other_image=(files.out / "report" / "thumbnails" / "image").resolve().joinpath(row["other"] + ".jpg").as_uri())
    if row["rank"] % 17 == 0:  # as in a report that could not make a thumbnail
        row.update(thumbnail=False, overlay_thumbnail=False)


def examples(prefix, number, files):
    keys = [f"train/{prefix}/{prefix}.{20000 + at}.jpg" for at in range(number)]
    return [{"key": key, "thumbnail": files.image(key), "overlay": files.overlay(key), "overlay_thumbnail": True} for key in keys]


def clusters(chance, files, flagged):
    """Five clusters; the one with the number `flagged` looks like a shortcut."""
    return [{"id": at, "class": "cat" if at < 3 else "dog", "images": 200 - 17 * at, "share": 0.3 - 0.02 * at, "accuracy": 1.0 if at == 3 else 0.97,
             "mean_probability": 0.999, "rest_mean_probability": 0.97, "q": 1e-9 if at == flagged else 0.4, "shortcut": at == flagged,
             "place": "top left corner" if at == flagged else None, "map": blob(chance),
             "reason": "Looked at in the top left corner, and surer than the rest of the class" if at == flagged else "Looked at in one place, no surer than the rest",
             "examples": examples(f"cluster{at}", 6, files)} for at in range(5)]


def tests(chance, labels):
    places = ["the top left corner", "the border", "the middle", "the lower half"]
    return [{"class": label, "measure": f"attention in {place}", "effect": round(chance.uniform(0.05, 0.95), 3), "q": 10 ** -chance.uniform(0.5, 20), "count": 700,
             "reason": f"Images of {label} are looked at in {place} unlike the others"} for label in labels for place in places]


def comparison(files):
    moved = examples("moved", 14, files)
    for at, image in enumerate(moved):
        image.update(before="dog", now="cat", distance=round(0.9 - at * 0.03, 3), label="cat")
    return {"against": "s3://data/out2", "both": 1398, "only_here": 0, "only_there": 2, "relabelled": 3, "changed": 31, "accuracy_here": 0.974, "accuracy_there": 0.951,
            "fixed": 20, "broken": 5, "p": 0.0041, "flows": [{"from": "dog", "to": "cat", "count": 20}, {"from": "cat", "to": "dog", "count": 11}], "moved": moved, "drift": drift()}


def slices(labels, files):
    common = {"from": None, "to": None, "value": None, "wrong": None, "accuracy": None, "accuracy_low": None, "accuracy_high": None,
              "rest_accuracy": None, "information": None, "q": 1e-9}
    return [
        {**common, "question": "accuracy", "class": labels[0], "feature": "brightness", "to": 0.21, "images": 60, "wrong": 31, "accuracy": 0.483,
         "accuracy_low": 0.362, "accuracy_high": 0.607, "rest_accuracy": 0.96, "effect": 0.48,
         "reason": f"Images labelled {labels[0]} with brightness below 0.21: 31 of 60 are wrong", "examples": examples("slice", 6, files)},
        {**common, "question": "accuracy", "class": None, "feature": "folder", "value": "<b>site</b> & co", "images": 300, "wrong": 60, "accuracy": 0.8,
         "accuracy_low": 0.751, "accuracy_high": 0.842, "rest_accuracy": 0.97, "effect": 0.17,
         "reason": "Images with folder <b>site</b> & co: 60 of 300 are wrong", "examples": examples("folder", 2, files)},
        {**common, "question": "nuisance", "class": labels[-1], "feature": "brightness", "images": 700, "effect": 0.97, "information": 0.61,
         "reason": f"Images labelled {labels[-1]} are brighter than others in 97 of 100 pairs; brightness tells 61 % of what the label says", "examples": examples("bright", 6, files)},
    ]


def confused(counts, files):
    wrong = [(row, column) for row, cells in enumerate(counts) for column, number in enumerate(cells) if row != column and number > 0]
    return [{"row": row, "column": column, "examples": examples(f"confused{row}{column}", min(4, counts[row][column]), files)} for row, column in wrong[:3]]


def drift():
    numbers = {"test": "kolmogorov-smirnov", "q": 1e-20}
    return [
        {"input": "brightness", **numbers, "effect": 0.38, "pairs": 0.71, "here": 0.6, "there": 0.5, "drifted": True, "reason": "brighter in 71 of 100 pairs"},
        {"input": "label", "test": "g-test", "effect": 0.12, "pairs": None, "here": None, "there": None, "q": 1e-4, "drifted": True, "reason": "label cat at 80 %, not 50 %"},
        {"input": "size", **numbers, "effect": 0.0, "pairs": 0.5, "here": 200.0, "there": 200.0, "q": 1.0, "drifted": False, "reason": "another spread of size"},
    ]


def counts_of(rows):
    counts = {}
    for row in rows:
        counts[row["kind"], row["problem"]] = counts.get((row["kind"], row["problem"]), 0) + 1
    return [{"kind": kind, "problem": problem, "count": number} for (kind, problem), number in counts.items()]


# All images


def front_coded(keys):
    """Keys as the report crate packs them. Those of the fixtures hold no character beyond U+FFFF."""
    parts, before = [], ""
    for key in keys:
        alike = 0
        while alike < min(len(key), len(before)) and key[alike] == before[alike]:
            alike += 1
        parts += [alike, key[alike:]]
        before = key
    return parts


def images_data(listed, labels, chance, others, embeddings, in_files=None):
    """The block of all images: those of the findings, the best of groups, and `others` without a finding.

    With `in_files`, a folder, keys and columns are written there instead, as for a run of very many images.
    """
    facts = {}
    for row in listed:
        facts.setdefault(row["key"], {"label": row["label"], "predicted": row["predicted"], "probability": row["probability"], "failure": row.get("failure"), "overlay": row["overlay"], "thumbnails": row["thumbnail"] + 2 * row["overlay_thumbnail"]})
    for row in listed:
        if row.get("best"):
            facts.setdefault(row["best"], {"label": row["other_label"], "predicted": row["other_label"] or labels[0], "probability": 0.99, "failure": None, "overlay": row["other_overlay"], "thumbnails": 3 * row["other_thumbnail"]})
    for at in range(others):
        label = chance.choice(labels)
        folder = re.sub(r"\W+", "", label)
        predicted = chance.choice(labels) if chance.random() < 0.03 else label
        facts.setdefault(f"rest/{folder}/{folder}.{at:06}.jpg", {"label": label if listed and listed[0]["label"] else None, "predicted": predicted, "probability": round(chance.uniform(0.4, 1), 4), "failure": None, "overlay": None, "thumbnails": 0})
    keys = sorted(facts, key=lambda key: key.encode("utf-16-be"))
    place = {key: at for at, key in enumerate(keys)}
    in_order = [facts[key] for key in keys]
    names = sorted({fact[column] for fact in in_order for column in ("label", "predicted") if fact[column] is not None})
    overlays = sorted({fact["overlay"] for fact in in_order if fact["overlay"]})
    per_page = 64
    columns, files = [], {}

    def add(name, kind, numbers, scale=None):
        content = array.array({"u8": "B", "u16": "H", "u32": "I", "i8": "b"}[kind], numbers).tobytes()
        column = {"name": name, "kind": kind, **({"from": scale[0], "step": scale[1]} if scale else {})}
        if in_files:
            files[f"{name}.bin"] = content
        else:
            column["data"] = base64.b64encode(content).decode()
        columns.append(column)

    def add_share(name, values):
        add(name, "u16", [65535 if value is None else round(value * 65534) for value in values], (0.0, 1 / 65534))

    number = {name: at + 1 for at, name in enumerate(names)}
    add("label", "u16", [number.get(fact["label"], 0) for fact in in_order])
    # A file that can't be read has no class to compare.
    add("label_class", "u16", [0 if fact["failure"] else number.get(fact["label"], 0) for fact in in_order])
    add("predicted", "u16", [number.get(fact["predicted"], 0) for fact in in_order])
    add("failure", "u8", [1 if fact["failure"] else 0 for fact in in_order])
    at_overlay = {path: at + 1 for at, path in enumerate(overlays)}
    add("overlay", "u32", [at_overlay.get(fact["overlay"], 0) for fact in in_order])
    add("thumbnails", "u8", [fact["thumbnails"] for fact in in_order])
    add_share("probability", [fact["probability"] for fact in in_order])
    for name in ("brightness", "blur"):
        add_share(name, [None if fact["failure"] else chance.random() for fact in in_order])
    add("width", "u32", [0xFFFFFFFF if fact["failure"] else chance.randrange(60, 4000) for fact in in_order])
    add("height", "u32", [0xFFFFFFFF if fact["failure"] else chance.randrange(60, 4000) for fact in in_order])
    missing = 0xFFFFFFFF
    add("finding_images", "u32", [place[row["key"]] for row in listed])
    add("best_images", "u32", [place[row["best"]] if row.get("best") else missing for row in listed])
    if embeddings:
        # A cluster for each predicted class.
        middle = {name: [chance.gauss(0, 40) for _ in range(128)] for name in names}
        spot = {name: (chance.randrange(9000, 56000), chance.randrange(9000, 56000)) for name in names}
        vary = [[chance.gauss(0, 25) for _ in range(128)] for _ in range(64)]
        sketches, xs, ys = array.array("b"), [], []
        for at, fact in enumerate(in_order):
            if fact["failure"]:
                sketches.extend([0] * 128)
                xs.append(65535)
                ys.append(65535)
                continue
            one, other = vary[chance.randrange(64)], vary[chance.randrange(64)]
            sketches.extend(max(-127, min(127, round(a + b - c))) for a, b, c in zip(middle[fact["predicted"]], one, other))
            x, y = spot[fact["predicted"]]
            xs.append(max(0, min(65534, round(chance.gauss(x, 2500)))))
            ys.append(max(0, min(65534, round(chance.gauss(y, 2500)))))
        add("map_x", "u16", xs)
        add("map_y", "u16", ys)
        if not in_files:
            add("sketch", "i8", sketches)
    pages = [front_coded(keys[at : at + per_page]) for at in range(0, len(keys), per_page)]
    if in_files:
        files.update({f"keys-{at}.json": json.dumps(page).encode() for at, page in enumerate(pages)})
        in_files.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (in_files / name).write_bytes(content)
    return {"schema": 1, "images": len(keys), "in_files": bool(in_files), "originals": None, "keys_per_page": per_page, "first_keys": keys[::per_page],
            "keys": [] if in_files else pages, "names": names, "splits": [], "failures": ["undecodable"], "overlays": overlays, "columns": columns,
            "mapped": sum(not fact["failure"] for fact in in_order) if embeddings else 0}


def make(out, rows=200, classes=3, variant="full", photos=None, others=120, in_files=False):
    """Writes OUT and returns the path of its page."""
    images = None
    chance = random.Random(7)
    out = Path(out)
    report = {"schema": 1, "title": "cats-vs-dogs on s3://data/pets <i>", "built_at": "2026-11-25T20:00:00Z", "camshaft": "0.1.0",
              "run": {"id": f"fixture-{variant}-{rows}", "source": "s3://data/pets", "out": "s3://data/out", "model": "cats-vs-dogs", "model_digest": "sha256:" + "5e" * 32,
                      "method": "grad-cam", "layer": "layer4", "target": "top1", "created_at": "2026-11-25T19:00:00Z", "updated_at": "2026-11-25T19:00:30Z"}}
    if variant == "empty":
        report.update(overview=None, findings=None, clusters=[], tests=None, comparison=None)
    else:
        labels = LABELS[:classes] + [f"class {at}" for at in range(len(LABELS), classes)]
        files = Files(out, chance, photos)
        groups = []
        listed = [finding(rank, rows, labels, chance, groups) for rank in range(1, rows + 1)]
        shared_keys(listed, chance)
        for row in listed:
            if row.get("group"):
                row["group"] = {"id": row["group"]["id"], "images": row["group"]["images"]}
        if variant == "full":
            for row in listed[:ROWS_WITH_FILES]:
                write_files(row, files)
        else:
            for row in listed:
                row.update(label=None, suggested=None, other_label=None)
                files.write(f"{'failures' if row.get('failure') else 'predictions'}/{row['key']}.json", b"{}")
                if row["other"]:
                    files.write(f"predictions/{row['other']}.json", b"{}")
        errors = sum(row["kind"] == "label-error" for row in listed)
        images = images_data(listed, labels, random.Random(8), others, variant == "full", out / "report" / "images" if in_files else None)
        report["overview"] = overview(chance, labels, images["images"], errors)
        report["findings"] = {"total": rows, "listed": rows, "duplicate_groups": len(groups), "counts": counts_of(listed), "rows": listed}
        if variant == "full":
            report.update(trust=trust(), clusters=clusters(chance, files, 3 if classes > 1 else None), tests=tests(chance, labels), comparison=comparison(files), slices={"tested_accuracy": True, "compared_labels": True, "notes": [], "list": slices(labels, files)}, confused=confused(report["overview"]["confusion"]["counts"], files))
            for failure in report["overview"]["failures"]:
                for example in failure["examples"]:
                    files.write(f"failures/{example['key']}.json", b"{}")
        else:
            report["overview"].update(labelled=0, accuracy=None, accuracy_low=None, accuracy_high=None, ece=None, estimated_label_errors=None,
                                      calibration=[], confusion=None, failures=[], failed=0, notes=[], throughput=None)
            report.update(clusters=[], tests=[], comparison=None)
    page = out / "report" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(build_page(report, images), encoding="utf-8")
    return page


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out")
    arguments.add_argument("--rows", type=int, default=200)
    arguments.add_argument("--classes", type=int, default=3)
    arguments.add_argument("--variant", choices=["full", "bare", "empty"], default="full")
    arguments.add_argument("--others", type=int, default=120, help="images that nothing was found about")
    arguments.add_argument("--in-files", action="store_true", help="the data of all images in files beside the page")
    arguments.add_argument("--photos", help="a folder of images to cut thumbnails from")
    print(make(**vars(arguments.parse_args())))
