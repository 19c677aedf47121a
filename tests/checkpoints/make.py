"""Makes checkpoints in the formats of four libraries, each with PyTorch's logits for one input.

    python make.py FOLDER

Needs PyTorch, h5py, safetensors and transformers; `tests/run.sh` installs them. The networks
are written here after He et al. 2015: torchvision and timm name their parameters alike, and
Keras has no PyTorch of its own to compare with. transformers' network is transformers' own. One
set of random weights goes into all of them.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional as F
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

SIDE, CLASSES = 64, 5
NAMES = ["tabby", "tiger cat", "beagle", "pug", "toaster"]


class Block(nn.Module):
    """A residual block; `first` puts a bottleneck's stride into its first convolution."""

    def __init__(self, inputs, width, stride, deep, first, bias, eps):
        super().__init__()
        norm = lambda channels: nn.BatchNorm2d(channels, eps=eps)
        conv = lambda i, o, k, s: nn.Conv2d(i, o, k, s, k // 2, bias=bias)
        self.deep, outputs = deep, width * (4 if deep else 1)
        a, b = (stride, 1) if first or not deep else (1, stride)
        self.conv1 = conv(inputs, width, 1 if deep else 3, a)
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, 3, b)
        self.bn2 = norm(width)
        if deep:
            self.conv3, self.bn3 = conv(width, outputs, 1, 1), norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), norm(outputs))

    def forward(self, x):
        shortcut = self.downsample(x) if self.downsample else x
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.deep:
            x = self.bn3(self.conv3(F.relu(x)))
        return F.relu(x + shortcut)


class ResNet(nn.Module):
    """Table 1 of the paper, with torchvision's names."""

    def __init__(self, depths, deep, first=False, bias=False, eps=1e-5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=bias)
        self.bn1 = nn.BatchNorm2d(64, eps=eps)
        channels = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for number in range(depth):
                stride = 2 if stage and not number else 1
                blocks.append(Block(channels, 64 << stage, stride, deep, first, bias, eps))
                channels = (64 << stage) * (4 if deep else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def randomise(model):
    """Random weights that look trained: no statistic has its default, and activations stay small."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.8)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def own_config(architecture):
    rule = {"height": SIDE, "width": SIDE, "resize": "stretch", "scale": "1/255", "color": "rgb",
            "interpolation": "bilinear-antialiased", "mean": [0, 0, 0], "std": [1, 1, 1]}
    return {"architecture": architecture, "classes": NAMES, "input": rule}


def timm_config(architecture):
    return {"architecture": architecture, "num_classes": CLASSES, "num_features": 512,
            "pretrained_cfg": {"input_size": [3, SIDE, SIDE], "interpolation": "bicubic",
                               "crop_pct": 0.875, "crop_mode": "center",
                               "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                               "first_conv": "conv1", "classifier": "fc", "label_names": NAMES}}


def numpy(tensors):
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}


def transformers_name(name):
    """transformers' name for the tensor that torchvision calls `name`."""
    module, parameter = name.rsplit(".", 1)
    parts = module.split(".")
    kind = "normalization" if "bn" in parts[-1] or parts[-2:] == ["downsample", "1"] else "convolution"
    if module == "fc":
        return f"classifier.1.{parameter}"
    if len(parts) == 1:
        return f"resnet.embedder.embedder.{kind}.{parameter}"
    place = "shortcut" if "downsample" in parts else f"layer.{int(parts[2][-1]) - 1}"
    return f"resnet.encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}.{place}.{kind}.{parameter}"


def keras_layer(module):
    """The name in `keras.applications` of the layer that torchvision calls `module`."""
    parts = module.split(".")
    kind = "bn" if "bn" in parts[-1] or parts[-2:] == ["downsample", "1"] else "conv"
    if module == "fc":
        return "predictions"
    if len(parts) == 1:
        return f"conv1_{kind}"
    number = 0 if "downsample" in parts else parts[2][-1]
    return f"conv{int(parts[0][5:]) + 1}_block{int(parts[1]) + 1}_{number}_{kind}"


def save_keras(model, path):
    """Writes `model.save_weights("….h5")` of Keras 2: each layer has a group, with the same group in it."""
    keras = {"weight": "kernel", "bias": "bias"}
    norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
            "running_var": "moving_variance"}
    order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    with h5py.File(path, "w") as file:
        for name, tensor in model.state_dict().items():
            module, parameter = name.rsplit(".", 1)
            if parameter == "num_batches_tracked":
                continue
            layer = keras_layer(module)
            weight = (norm if layer.endswith("_bn") else keras)[parameter]
            values = tensor.numpy().transpose(order[tensor.dim()])
            file[f"{layer}/{layer}/{weight}:0"] = np.ascontiguousarray(values)


def main(root):
    torch.manual_seed(1)
    torch.set_num_threads(2)
    image = torch.rand(2, 3, SIDE, SIDE)

    def folder(name, config, model, image=image):
        made = root / name
        made.mkdir(parents=True)
        if config:
            (made / "config.json").write_text(json.dumps(config))
        with torch.no_grad():
            logits = model(image)
        logits = getattr(logits, "logits", logits)
        save_file(numpy({"input": image, "logits": logits}), made / "expected")
        return made

    deep = randomise(ResNet([3, 4, 6, 3], deep=True))
    # Numbers that half precision can hold, so that every file has the same.
    deep = deep.half().float()
    weights = deep.state_dict()

    made = folder("torchvision", own_config("resnet50"), deep)
    torch.save(weights, made / "resnet50-0123abcd.pth")

    # A training program's checkpoint: wrapped, nested, in half precision, with other content.
    made = folder("training", own_config("resnet50"), deep)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in weights.items()}
    nested = {"module." + name: tensor for name, tensor in halves.items()}
    optimizer = torch.optim.SGD(deep.parameters(), 0.1, momentum=0.9).state_dict()
    torch.save({"epoch": 3, "best": 0.71, "optimizer": optimizer, "state_dict": nested},
               made / "checkpoint.pt")

    theirs = ResNetForImageClassification(
        ResNetConfig(depths=[3, 4, 6, 3], hidden_sizes=[256, 512, 1024, 2048], num_labels=CLASSES,
                     id2label=dict(enumerate(NAMES)))).eval()
    theirs.load_state_dict({transformers_name(name): tensor for name, tensor in weights.items()})
    made = folder("transformers", None, theirs)
    theirs.save_pretrained(made, safe_serialization=True)
    ConvNextImageProcessor(size={"shortest_edge": SIDE}).save_pretrained(made)
    made = folder("transformers-bin", None, theirs)
    theirs.save_pretrained(made)
    ConvNextImageProcessor(size={"shortest_edge": SIDE}).save_pretrained(made)

    shallow = randomise(ResNet([2, 2, 2, 2], deep=False))
    made = folder("timm", timm_config("resnet18"), shallow)
    save_file(numpy(shallow.state_dict()), made / "model.safetensors")

    # The same weights where they fit, and the tensors that only Keras has.
    keras = randomise(ResNet([3, 4, 6, 3], deep=True, first=True, bias=True, eps=1.001e-5))
    keras.load_state_dict(weights, strict=False)
    made = folder("keras", own_config("resnet50-v1"), keras)
    save_keras(keras, made / "resnet50_weights.h5")

    # As trainings leave them: averaged weights beside the last ones, a wrapped backbone with a head of
    # its own, a checkpoint in several files, and a file of weights alone.
    other = {name: torch.zeros_like(tensor) for name, tensor in shallow.state_dict().items()}
    made = folder("averaged", own_config("resnet18"), shallow)
    torch.save({"epoch": 9, "state_dict": other, "state_dict_ema": shallow.state_dict()},
               made / "last.ckpt")
    made = folder("wrapped", {k: v for k, v in own_config("resnet18").items() if k != "architecture"},
                  shallow)
    wrapped = {"module._orig_mod." + name.replace("fc.", "head.fc.") if "fc." in name
               else "module._orig_mod.backbone." + name: t for name, t in shallow.state_dict().items()}
    torch.save({"model": wrapped}, made / "model_best.pth.tar")
    made = folder("sharded", own_config("resnet18"), shallow)
    names = sorted(shallow.state_dict())
    parts = {f"model-0000{n + 1}-of-00002.safetensors": names[n::2] for n in range(2)}
    for file, part in parts.items():
        save_file(numpy({name: shallow.state_dict()[name] for name in part}), made / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (made / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    made = folder("bare", None, shallow, torch.rand(2, 3, 224, 224))
    torch.save(shallow.state_dict(), made / "w.pth")
    (made / "names.txt").write_text("\n".join(NAMES) + "\n")
    (made / "names.json").write_text(json.dumps({name: n for n, name in enumerate(NAMES)}))

    # Files that cannot be read: the error must say why.
    for name, save in {
        "legacy": lambda path: torch.save(
            shallow.fc.state_dict(), path, _use_new_zipfile_serialization=False),
        "module": lambda path: torch.save(shallow.fc, path),
        "truncated": lambda path: path.write_bytes(
            (root / "torchvision/resnet50-0123abcd.pth").read_bytes()[:1 << 20]),
        "lists": lambda path: torch.save({"losses": [0.1, 0.2]}, path),
        "shallow": lambda path: torch.save(shallow.state_dict(), path),
        "quantised": lambda path: torch.save(
            shallow.state_dict() | {"conv1.weight": torch.quantize_per_tensor(
                shallow.conv1.weight.detach(), 0.1, 0, torch.qint8)}, path),
    }.items():
        save(folder(f"refused/{name}", own_config("resnet50"), shallow) / "weights.pth")

    # Files that can be read and are another network's, or none that can be run.
    more = {"se": {"layer1.0.se.fc1.weight": torch.zeros(4, 64, 1, 1)},
            "nan": {"layer1.0.conv1.weight": torch.full((64, 64, 3, 3), float("nan"))},
            "one": {"fc.weight": torch.zeros(1, 512), "fc.bias": torch.zeros(1)},
            "projector": {"projector.weight": torch.zeros(128, 512)}}
    for name, tensors in more.items():
        made = folder(f"refused/{name}", own_config("resnet18"), shallow)
        save_file(numpy(shallow.state_dict() | tensors), made / "model.safetensors")
    made = folder("refused/deep", own_config("resnet18"), shallow)
    save_file(numpy(ResNet([3, 4, 6, 3], deep=False).state_dict()), made / "model.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
