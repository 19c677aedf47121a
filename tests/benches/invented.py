"""An OUT of invented results: what each of them and `run.json` have in common."""
import json

RUN = "0193f1c2-5a55-7cc1-8d5b-1f0a4c2b7e11"
DIGEST = "sha256:" + "0" * 64
MODEL = {"name": "invented", "digest": DIGEST, "config_digest": DIGEST, "precision": "f32", "kernel": "none", "device": "cpu"}
TIMINGS_MS = {"fetch": 1.0, "decode": 2.0, "model": 20.0, "overlay": 0.0, "store": 1.0}


def write_run(out, images):
    run = {
        "schema": 1, "run": RUN, "source": "s3://invented/images",
        "model": {"name": "invented", "reference": "cats-vs-dogs", "digest": DIGEST, "config_digest": DIGEST},
        "explain": {"method": "grad-cam", "layer": "layer4", "target": "top1", "colormap": "jet", "alpha": 0.4, "overlay": "none"},
        "images": images, "created_at": "2026-10-01T00:00:00Z", "updated_at": "2026-10-01T00:00:00Z", "camshaft": "0.1.0",
    }
    with open(f"{out}/run.json", "w") as file:
        json.dump(run, file)
