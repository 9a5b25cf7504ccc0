"""Check what the README's table says about LayerRegionCam and its peers, with the installed releases.

python benchmarks/peers.py
"""

import contextlib
import io
import warnings
from importlib.metadata import version

import torch
from measure import import_torchvision
from torch import nn

import_torchvision()

from captum.attr import LayerGradCam  # noqa: E402
from pytorch_grad_cam import GradCAM  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402
from torchcam.methods import GradCAM as TorchCam  # noqa: E402

from captum_regioncam import LayerRegionCam, find_stages  # noqa: E402

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def network(dimensions=2):
    conv = CONVS[dimensions]
    torch.manual_seed(0)
    layers = [conv(3, 4, 3, 2, 1), nn.ReLU(), conv(4, 8, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, POOLS[dimensions](1), nn.Flatten(), nn.Linear(8, 5))


def region_cam(model, x, layers, targets):
    return LayerRegionCam(model, layers).attribute_targets(x, targets)


def captum(model, x, layers, targets):
    return [LayerGradCam(model, layers if len(layers) > 1 else layers[0]).attribute(x, target) for target in targets]


def pytorch_grad_cam(model, x, layers, targets):
    with GradCAM(model=model, target_layers=layers) as cam:
        return [cam(input_tensor=x, targets=[ClassifierOutputTarget(target)] * len(x)) for target in targets]


def torch_cam(model, x, layers, targets):
    with TorchCam(model, layers) as cam:
        scores = model(x)
        return [cam([target] * len(x), scores, retain_graph=True) for target in targets]


def several_layers(run):
    model, x = network().eval(), torch.randn(1, 3, 16, 16)
    run(model, x, [model[1], model[3]], [0])
    return "yes"


def forward_passes(run):
    model, x = network().eval(), torch.randn(1, 3, 16, 16)
    calls = []
    model.register_forward_hook(lambda *call: calls.append(1))
    run(model, x, [model[3]], [0, 1, 2])
    return f"{len(calls)} for 3 classes"


def grids(run):
    works = []
    for dimensions in (1, 2, 3):
        model, x = network(dimensions).eval(), torch.randn(1, 3, *[16] * dimensions)
        with contextlib.suppress(Exception):
            run(model, x, [model[3]], [0])
            works.append(f"{dimensions}-D")
    return ", ".join(works)


def left_behind(run):
    model, x = network().train(), torch.randn(1, 3, 16, 16)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    run(model, x, [model[3]], [0])
    changed = [] if model.training else ["training mode"]
    if any(p.grad is None or not torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters()):
        changed.append(".grad")
    return ", ".join(changed) or "nothing"


def hooks_without_closing():
    model, x = network().eval(), torch.randn(1, 3, 16, 16)
    hooks = {}
    for name, make in {
        "LayerRegionCam": lambda: LayerRegionCam(model, model[3]).attribute(x, 0),
        "LayerGradCam": lambda: LayerGradCam(model, model[3]).attribute(x, 0),
        "pytorch-grad-cam": lambda: (c := GradCAM(model=model, target_layers=[model[3]])) and (c(x, None), c)[1],
        "torch-cam": lambda: (c := TorchCam(model, model[3])) and (c(0, model(x)), c)[1],
    }.items():
        kept = make()
        hooks[name] = sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())
        for close in ("remove_hooks", "__exit__"):
            with contextlib.suppress(Exception):
                getattr(kept, close)(*[None] * (3 if close == "__exit__" else 0))
    return hooks


def main():
    warnings.simplefilter("ignore")
    for package in ("captum", "grad-cam", "torchcam"):
        print(package, version(package))
    runs = {
        "LayerRegionCam": region_cam,
        "LayerGradCam": captum,
        "pytorch-grad-cam": pytorch_grad_cam,
        "torch-cam": torch_cam,
    }
    for check in (several_layers, forward_passes, grids, left_behind):
        print(f"\n{check.__name__}")
        for name, run in runs.items():
            with contextlib.redirect_stderr(io.StringIO()):
                try:
                    found = check(run)
                except Exception as error:
                    found = f"no ({type(error).__name__})"
            print(f"  {name:18}{found}")
    print("\nhooks left on the model while the object lives\n ", hooks_without_closing())
    model, x = network(), torch.randn(1, 3, 32, 32)
    print("\nlayers found:", list(find_stages(model, x)), "; torch-cam:", TorchCam(model).target_names)


if __name__ == "__main__":
    main()
