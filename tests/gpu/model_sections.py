"""What measure.py prints of the network itself: how exact it is, and how fast without an audit around it."""
import statistics

import peers
from accuracy import compare
from cases import CASES, PRECISIONS, options
from programs import Bench, Failed
from table import Table

# f32 on the GPU is to be the CPU's f32. The others are measured, not judged.
F32_LOGITS = 1e-5
ROUNDS = 5
SECONDS = 1.0
BATCH = 256
BATCHES = [1, 8, 32, 128, 256, 512]
GRADIENT_BATCH = 32
# How many times as fast as PyTorch's forms the engine is to be.
FUSED, EAGER = {"f16": 1.10, "bf16": 1.10}, {"f16": 2.5, "bf16": 2.3}
GRADIENTS = 10.0


def accuracy(kit, conditions):
    """Every precision, method and layer, compared with the CPU's f32."""
    compared, problems = {}, []
    for precision in PRECISIONS:
        for case in CASES:
            try:
                kit.audit(kit.photos, *options(case), precision=precision)
                compared[precision, case.name] = compare(kit.out, kit.references / case.name)
            except Failed as error:
                problems.append(f"{precision}, {case.name}: {error}")
    logits_table(compared, conditions)
    table = Table("Maps: median (least) cosine similarity to the CPU's f32", "method", "layer", *PRECISIONS)
    for case in CASES:
        for layer in case.layers:
            for method in case.methods:
                cells = [cosines(compared.get((precision, case.name)), method, layer) for precision in PRECISIONS]
                table.row(method, layer, *cells)
    for problem in problems:
        print(f"\nFAILED: {problem}", flush=True)


def logits_table(compared, conditions):
    table = Table("Logits, beside the CPU's f32", "precision", "images", "missing", "largest difference",
                  "another top class")
    for precision in PRECISIONS:
        found = [comparison for (other, _), comparison in compared.items() if other == precision]
        if not found:
            table.row(precision, *["failed"] * 4)
            continue
        largest = max(comparison.logits for comparison in found)
        counts = [str(sum(numbers)) for numbers in zip(*((c.images, c.missing, c.changed) for c in found))]
        table.row(precision, counts[0], counts[1], f"{largest:.2g}", counts[2])
        if precision == "f32":
            conditions.check("f32: largest difference of a logit from the CPU's", "<=", F32_LOGITS, largest)


def cosines(comparison, method, layer):
    values = comparison and comparison.cosines.get((method, layer))
    return f"{statistics.median(values):.6f} ({min(values):.6f})" if values else "failed"


def in_turn(bench, peer, batch, *explanation):
    """Medians of both programs' rates and of the ratios of neighbours."""
    pairs = [(bench.rate(batch, SECONDS, *explanation), peer.rate()) for _ in range(ROUNDS)]
    return (statistics.median(ours for ours, _ in pairs), statistics.median(theirs for _, theirs in pairs),
            statistics.median(ours / theirs for ours, theirs in pairs))


def beside_pytorch(kit, conditions):
    """The model with its maps, in turn with PyTorch's forms."""
    table = Table(f"Model and Grad-CAM at layer4 beside PyTorch, images/s, medians of {ROUNDS} runs in turn",
                  "PyTorch's form", "batch", "Camshaft", "PyTorch", "ratio")
    with peers.paired_model(kit) as peer:
        for batch, form in peer.forms():
            # The peer's f32 forms are of batch 128 only; its others are measured at 256.
            precision = "tf32" if "(tf32)" in form else form.split()[0]
            if precision in EAGER and batch != BATCH:
                continue
            with Bench(kit, precision) as bench:
                ours, theirs, times = in_turn(bench, peer, batch)
            table.row(form, str(batch), ours, theirs, f"{times:.2f}")
            limits = FUSED if "fused" in form else EAGER
            if precision in limits:
                what = f"{precision} at batch {batch}, times PyTorch's {form}"
                conditions.check(what, ">=", limits[precision], times)
        for note in peer.notes:
            print(f"\nPyTorch: {note}", flush=True)


def gradients(kit, conditions):
    """Grad-CAM at layer2, which needs gradients, in turn with PyTorch's autograd."""
    table = Table("Grad-CAM at layer2, images/s, in turn with PyTorch's autograd", "precision", "batch", "Camshaft",
                  "PyTorch", "ratio")
    with peers.paired_gradients(kit, GRADIENT_BATCH) as peer:
        for batch, form in peer.forms():
            for precision in ["f16", "tf32", "f32"]:
                with Bench(kit, precision) as bench:
                    ours, theirs, times = in_turn(bench, peer, batch, "grad-cam", "layer2")
                table.row(f"{precision} beside {form}", str(batch), ours, theirs, f"{times:.2f}")
                if precision == "f16":
                    conditions.check("f16: Grad-CAM at layer2, times PyTorch's", ">=", GRADIENTS, times)


def by_batch(kit, _conditions):
    """The model with its maps, by precision and batch."""
    table = Table("Model and Grad-CAM at layer4 by batch, images/s", "precision", *map(str, BATCHES))
    for precision in ["f16", "bf16", "tf32", "f32"]:
        with Bench(kit, precision) as bench:
            table.row(precision, *(rate_or_reason(bench, batch) for batch in BATCHES))


def rate_or_reason(bench, batch):
    try:
        return bench.rate(batch, SECONDS / 2)
    except Failed as error:
        return str(error)
