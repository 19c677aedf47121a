"""Makes the first inputs for fuzzing: one small file for each kind of input that a target reads.
Run: python3 tests/fuzz/make_corpus.py; it needs only Python. The first images are in
tests/data/formats."""

import io
import json
import pathlib
import pickle
import struct
import sys
import types
import zipfile
import zlib

FOLDER = pathlib.Path(__file__).parent / "corpus"
DIGEST = "sha256:" + "0" * 64
RUN = "01900000-0000-7000-8000-000000000000"
TIME = "2026-01-02T03:04:05.678Z"


def write(target, name, content):
    path = FOLDER / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, (bytes, str)):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


MODEL = {"name": "m", "reference": "cats-vs-dogs", "digest": DIGEST, "config_digest": DIGEST}
EXPLAIN = {
    "method": "grad-cam", "layer": "layer4", "target": "top-1",
    "colormap": "jet", "alpha": 0.4, "overlay": "jpeg",
}


def messages():
    job = {
        "v": 1, "run": RUN, "key": "cat/a.jpg", "source": "s3://data/pets", "out": "s3://data/out",
        "model": MODEL, "explain": EXPLAIN,
    }
    write("message", "plain.json", job)
    # This number was once read as infinity, which JSON cannot write.
    write("message", "alpha.json", job | {"explain": EXPLAIN | {"alpha": 1e39}})
    write("message", "full.json", job | {
        "etag": '"abc"', "size": 9123, "label": "dog", "given_label": "big \u201cdog\u201d", "replaces": True,
        "source": "file:///data/a%20b", "out": "az://box@account/x",
        "model": MODEL | {"reference": "hf:owner/name@v1.0", "options": {
            "classes": "s3://data/names.txt", "ignore_tensors": ["projector.*"],
            "weights_key": "state_dict_ema",
        }},
        "explain": EXPLAIN | {
            "method": "layer-cam,grad-cam++", "layer": "layer3+layer4,layer2", "target": "class:dog",
            "overlay_size": "1024",
        },
    })
    write("message", "folder.json", job | {"model": MODEL | {"reference": "gs://bucket/model"}})


def configs():
    ours = {
        "architecture": "resnet50", "head": "flatten", "classes": ["cat", "dog"],
        "input": {
            "height": 224, "width": 224, "resize": {"stretch-to": {"height": 256, "width": 256}},
            "interpolation": "bilinear-antialiased", "scale": "1/255",
            "mean": [0.0, 0.5, 1.0], "std": [1.0, 0.5, 1.0], "color": "rgb",
        },
    }
    write("config", "ours.json", ours)
    named = ours | {"architecture": "resnet18", "classes": "imagenet-1k"}
    named["input"] = ours["input"] | {"resize": {"shorter-side": 256}, "scale": "1", "color": "bgr"}
    write("config", "imagenet.json", named)
    write("config", "timm.json", {
        "architecture": "resnet50", "num_classes": 2, "num_features": 2048, "global_pool": "avg",
        "label_names": ["a", "b"], "label_descriptions": {"a": "cat", "b": "dog"},
        "pretrained_cfg": {
            "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.95,
            "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
            "num_classes": 2, "first_conv": "conv1", "classifier": "fc",
        },
    })
    network = json.dumps({
        "model_type": "resnet", "num_channels": 3, "embedding_size": 64, "hidden_act": "relu",
        "layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3],
        "downsample_in_first_stage": False, "id2label": {"0": "cat", "1": "dog"},
    })
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}
    convnext = {
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224},
        "crop_pct": 0.875, "resample": 3, "do_resize": True, "do_rescale": True,
        "rescale_factor": 1 / 255,
    }
    vit = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 256, "width": 256},
        "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "resample": 2,
    }
    for name, processor in [("convnext", convnext), ("vit", vit)]:
        write("config", f"{name}.json", f"{network}\0{json.dumps(processor | statistics)}")


def listings():
    decision = {"schema": 1, "key": "cat/a.jpg", "decision": "relabel", "label": "dog", "by": "ana",
                "at": "2026-11-29T07:00:00.123Z", "because": ["label-error"]}
    rule = "not (exact or blurred) and label-error and score>0.95 and key~'cat/**' and label!=\"big dog\""
    write("listing", "decisions.txt", f"/data\n{json.dumps(decision)}\n{rule}\n")
    write("listing", "lines.txt", "s3://bucket/prefix\ncat/a.jpg\r\n\ndog/b, c.jpg\n")
    write("listing", "labels.csv", "/data/pets/../x\n\ufeffkey,label\na.jpg,cat\n\"b,1.jpg\",\"a \"\"b\"\"\"\n")
    write("listing", "turned.csv", "file:///a%20b/%23\nlabel,key\ncat,\u732b/\u5199\u771f.png\n")
    write("listing", "semicolons.csv", "/data/pets\nFilename; Class\n./a, b.jpg; cat\n/data/pets/c.jpg;\"two\nlines\"\n")
    write("listing", "lines.jsonl", 's3://bucket/x\n{"file_name": "a.jpg", "label": 3}\n{"file_name": "s3://bucket/x/b.jpg", "label": null}\n')
    write("listing", "twice.tsv", "/data/pets\nclass\tpath\ncat\ta.jpg\ncat\t./a.jpg\n")
    for number, place in enumerate(["az://box@account/x", "gs://b/x/", "s3://k:s@b/x", "http://x/y", "s3://b/a?v=1"]):
        write("listing", f"place-{number}.txt", place)


def exchanges():
    choice = [{"from_name": "new_label", "to_name": "image", "type": "choices", "value": {"choices": ["dog"]}}]
    annotation = {"completed_by": {"id": 1, "email": "ana@example.org"}, "result": choice, "was_cancelled": False,
                  "created_at": TIME, "updated_at": TIME}
    data = {"camshaft_key": "cat/a.jpg", "image": "/data/a.jpg"}
    write("exchange", "tasks.json", [{"id": 1, "data": data, "annotations": [annotation], "predictions": []}])
    write("exchange", "tasks-min.json", [data | {"id": 1, "new_label": "dog", "annotator": 1, "updated_at": TIME}])
    write("exchange", "coco.json", {
        "info": {}, "images": [{"id": 1, "file_name": "cat/a.jpg", "width": 3, "height": 2}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "camshaft": {"decision": None}}],
    })
    write("exchange", "cvat.xml", '<?xml version="1.0" encoding="utf-8"?>\n<annotations><meta><job><assignee><username>ana'
          '</username></assignee></job><dumped>2026-01-02 03:04:05.678+00:00</dumped></meta><image id="0" name="cat/a.jpg" '
          'width="3" height="2"><tag label="d&amp;g"><attribute name="decision">none</attribute></tag></image></annotations>')
    write("exchange", "sheet.csv", "\ufeffkey,image,decision,new_label\n'=a.jpg,x,,dog\n\"b,1.jpg\",x,drop,\n")
    write("exchange", "tabs.csv", 'camshaft_key\tnew_label\tannotator\tupdated_at\na.jpg\t{"choices": ["a", "b"]}\tana\t' + TIME + "\n")


def records():
    image = {
        "key": "cat/a.jpg", "etag": None, "bytes": 9123, "width": 96, "height": 64,
        "region": [0.1, 0.0, 0.9, 1.0], "label": "cat",
    }
    heat = {
        "method": "grad-cam", "layer": "layer4", "class": 0, "label": "cat",
        "overlay": "overlays/cat/a.jpg.jpg", "map": {"height": 1, "width": 2, "values": [0.1, 1e-9]},
        "max": 0.1, "mass": 0.1, "entropy": 0.3, "centroid": [0.2, 0.7], "border_share": 1.0,
    }
    prediction = {
        "schema": 1, "run": RUN, "image": image,
        "model": {
            "name": "m", "digest": DIGEST, "config_digest": DIGEST, "precision": "f32",
            "kernel": "candle", "device": "cpu",
        },
        "predictions": [{"class": 0, "label": "cat", "probability": 0.75, "logit": 1.5}],
        "explanations": [heat],
        "timings_ms": {"fetch": 0.1, "decode": 1.25, "model": 20.5, "overlay": 3.0, "store": 0.5},
        "worker": "host-1", "finished_at": TIME,
    }
    write("prediction", "prediction.json", prediction)
    # This number was once read as infinity, which JSON cannot write.
    write("prediction", "entropy.json", prediction | {"entropy": 1e39})
    write("prediction", "failure.json", {
        "schema": 1, "run": RUN, "image": image,
        "error": {"class": "undecodable", "message": "the file is empty"},
        "attempts": 1, "worker": "host-1", "finished_at": TIME,
    })
    write("prediction", "run.json", {
        "schema": 1, "run": RUN, "source": "s3://data/pets", "model": MODEL, "explain": EXPLAIN,
        "images": 3, "created_at": TIME, "updated_at": TIME, "camshaft": "0.1.0",
    })


def fake(module, name):
    """A class that pickles under PyTorch's name."""
    made = type(name, (), {"__module__": module})
    parent = sys.modules.setdefault(module, types.ModuleType(module))
    setattr(parent, name, made)
    return made


class Storage:
    """A storage, for which `persistent_id` gives an id."""


class Tensor:
    """One row of two numbers, a view of the only storage."""

    def __reduce__(self):
        return fake_rebuild, (Storage(), 0, (1, 2), (2, 1), False, {})


def fake_rebuild(*_):
    """Stands for `torch._utils._rebuild_tensor_v2`."""


class Pickler(pickle.Pickler):
    def persistent_id(self, item):
        if isinstance(item, Storage):
            return ("storage", FLOAT_STORAGE, "0", "cpu", 2)
        return None


for name in ("torch", "torch._utils"):
    sys.modules.setdefault(name, types.ModuleType(name))
FLOAT_STORAGE = fake("torch", "FloatStorage")
fake_rebuild.__module__, fake_rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
fake_rebuild.__name__ = "_rebuild_tensor_v2"
sys.modules["torch._utils"]._rebuild_tensor_v2 = fake_rebuild


def checkpoints():
    for name, content in [("plain", {"fc.weight": Tensor()}), ("nested", {"epoch": 3, "state_dict": {"conv1.weight": Tensor(), "fc.bias": Tensor()}})]:
        described = io.BytesIO()
        Pickler(described, protocol=2).dump(content)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for path, data in [("data.pkl", described.getvalue()), ("byteorder", b"little"), ("data/0", bytes(8))]:
                archive.writestr(zipfile.ZipInfo(f"archive/{path}"), data)
        write("checkpoint", f"{name}.pth", file.getvalue())
    for name, shape, length in [("small", [1, 2], 8), ("number", [], 4)]:
        weight = {"dtype": "F32", "shape": shape, "data_offsets": [0, length]}
        header = json.dumps({"__metadata__": {"format": "pt"}, "fc.weight": weight}).encode()
        file = struct.pack("<Q", len(header)) + header + bytes(length)
        write("checkpoint", f"{name}.safetensors", file)
    write("checkpoint", "legacy.pth", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    write("checkpoint", "page.html", "<!DOCTYPE html>")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def images():
    head = struct.pack(">IIBBBBB", 5, 4, 8, 2, 0, 0, 1)
    rows = zlib.compress(bytes(5 * 4 * 4))
    write("decode", "interlaced.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    # Run lengths: four rows of five of colour 1, then the end.
    runs = b"\x05\x01\0\0" * 4 + b"\0\1"
    colours = bytes(1024)
    size = 14 + 40 + len(colours) + len(runs)
    bitmap = b"BM" + struct.pack("<IHHI", size, 0, 0, size - len(runs)) + struct.pack("<IiiHHIIiiII", 40, 5, 4, 1, 8, 1, len(runs), 0, 0, 0, 0)
    write("decode", "run-lengths.bmp", bitmap + colours + runs)
    for order, mark in (("<", b"II"), (">", b"MM")):
        entries = [(256, 4), (257, 4), (258, 8), (259, 32773), (262, 1), (273, 122), (277, 1), (278, 4), (279, 12)]
        tags = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in entries)
        page = mark + struct.pack(order + "HIH", 42, 8, len(entries)) + tags + struct.pack(order + "I", 0)
        write("decode", f"packbits-{mark.decode().lower()}.tif", page + b"\xfd\x40\xfd\x80" * 2 + bytes(4))
    # The picture, of 16383 pixels a side, lies behind the end that the file gives itself.
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\4\0\0" * 2
    padding = b"????" + struct.pack("<I", 4) + bytes(4)
    picture = b"VP8 " + struct.pack("<I", 24) + b"\x90\1\0\x9d\1\x2a" + b"\xff\x3f" * 2 + bytes(14)
    inside = b"WEBP" + canvas + padding
    write("decode", "behind-the-end.webp", b"RIFF" + struct.pack("<I", len(inside)) + inside + picture)


if __name__ == "__main__":
    for make in (messages, configs, listings, exchanges, records, checkpoints, images):
        make()
