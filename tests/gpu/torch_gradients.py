"""Grad-CAM at layer2 as PyTorch's users compute it, by autograd: torch_gradients.py WEIGHTS BATCH

With the package grad-cam if it is installed, else by the same steps: a forward pass with a hook, the sum of the
top classes' logits back through the network, the gradients' means as weights, and the maps on the host.
PyTorch's own settings are left alone, so that its convolutions are in TF32.
"""
import sys

import torch
import torchvision
from paired_rate import rate
from safetensors.torch import load_file

weights, batch = sys.argv[1], int(sys.argv[2])
model = torchvision.models.resnet50(num_classes=2)
model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()}, strict=False)
model = model.eval().cuda()
images = torch.rand(batch, 3, 224, 224)


def by_hand():
    kept = {}
    hook = model.layer2.register_forward_hook(lambda module, inputs, output: kept.update(output=output))
    logits = model(images.cuda())
    hook.remove()
    activations = kept["output"]
    activations.retain_grad()
    model.zero_grad()
    logits.max(1).values.sum().backward()
    means = activations.grad.mean((2, 3), keepdim=True)
    return (means * activations).sum(1).relu().detach().cpu()


try:
    from pytorch_grad_cam import GradCAM
except ImportError:
    rate("autograd, f32 (TF32), by hand", by_hand, batch)
else:
    cam = GradCAM(model=model, target_layers=[model.layer2[-1]])
    rate("grad-cam, f32 (TF32)", lambda: cam(input_tensor=images.cuda()), batch)
