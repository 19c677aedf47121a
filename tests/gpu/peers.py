"""Runs the programs in the kit's folder `peers`, which Camshaft is compared with, changed as little as can be.

`gradcam_torch_gpu.py` times each of its forms by itself, one after the other. Here its function `rate` is the
one of paired_rate.py, which lets each form be measured in turn with Camshaft. `gradcam_torch_gpu_audit.py` is
run as it is, and with its drawing off. Nothing else of them is changed. Does not decide what is measured.
"""
import ast
import re
import subprocess
import sys
from pathlib import Path

from programs import Failed, last_line

HERE = Path(__file__).resolve().parent
MODEL, AUDIT = "gradcam_torch_gpu.py", "gradcam_torch_gpu_audit.py"

PAIRED = "from paired_rate import rate"
# Its result stays, as Camshaft's prediction does.
WITHOUT_DRAWING = """
def draw(name, b, m, p):
    Path(f"{out}/{name}.json").write_text(json.dumps({"p": p}))
"""

# The network's inputs as the peer reads them: N x 224 x 224 x 3 bytes.
INPUTS = """
import sys, torch
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms.functional import resize
images = [resize(read_image(path, ImageReadMode.RGB), [224, 224], antialias=True) for path in sys.argv[2:]]
torch.stack(images).permute(0, 2, 3, 1).contiguous().numpy().tofile(sys.argv[1])
"""


def with_function(source, name, replacement):
    """The source with other statements in place of the function `name`."""
    tree = ast.parse(source)
    places = [at for at, node in enumerate(tree.body) if isinstance(node, ast.FunctionDef) and node.name == name]
    if len(places) != 1:
        raise Failed(f"the program it is compared with has no function {name}")
    tree.body[places[0]:places[0] + 1] = ast.parse(replacement).body
    return ast.unparse(tree)


def changed(kit, name, function, replacement):
    """A copy of a peer with another function, in the work folder."""
    original = kit.peers / name
    if not original.exists():
        raise Failed(f"the kit has no {name}")
    copy = kit.work / f"{function}-{name}"
    copy.write_text(with_function(original.read_text(), function, replacement))
    return copy


def inputs(kit):
    path = kit.work / "inputs.u8"
    if not path.exists():
        photos = [str(photo) for photo in sorted(kit.photos.iterdir())]
        ran = subprocess.run([sys.executable, "-c", INPUTS, str(path), *photos], capture_output=True, text=True)
        if ran.returncode:
            raise Failed(last_line(ran.stderr))
    return path


class Paired:
    """A program whose forms are measured in turn with Camshaft."""

    def __init__(self, kit, script, *arguments):
        environment = kit.environment | {"PYTHONPATH": str(HERE)}
        self.child = subprocess.Popen([sys.executable, *map(str, [script, *arguments])], env=environment, text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.notes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.communicate()

    def answer(self, pattern):
        """The next line that has the pattern; None at the end. Other lines are kept as notes."""
        for line in self.child.stdout:
            found = re.match(pattern, line)
            if found:
                return found
            self.notes.append(line.strip())
        return None

    def forms(self):
        """Each form's batch and name, when it is ready to be measured."""
        none = True
        while found := self.answer(r"form (\d+) (.*)"):
            none = False
            yield int(found.group(1)), found.group(2)
            self.tell("next")
        if none or self.child.wait():
            raise Failed(last_line(self.child.stderr.read()))

    def rate(self):
        self.tell("go")
        found = self.answer(r"rate ([\d.]+)")
        if not found:
            raise Failed(last_line(self.child.stderr.read()))
        return float(found.group(1))

    def tell(self, word):
        try:
            self.child.stdin.write(word + "\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            raise Failed(last_line(self.child.stderr.read())) from None


def paired_model(kit):
    script = changed(kit, MODEL, "rate", PAIRED)
    return Paired(kit, script, kit.model / "model.safetensors", inputs(kit), "eager,fused")


def paired_gradients(kit, batch):
    return Paired(kit, HERE / "torch_gradients.py", kit.model / "model.safetensors", batch)


def audit(kit, images, drawing=True):
    """Images per second of the PyTorch pipeline, by its own clock, which does not count its start."""
    script = kit.peers / AUDIT if drawing else changed(kit, AUDIT, "draw", WITHOUT_DRAWING)
    if not script.exists():
        raise Failed(f"the kit has no {AUDIT}")
    command = [sys.executable, script, kit.model / "model.safetensors", images, kit.work / "peer-out"]
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=kit.environment)
    found = re.search(r"([\d.]+) images/s", ran.stdout)
    if ran.returncode or not found:
        raise Failed(last_line(ran.stderr))
    return float(found.group(1))
