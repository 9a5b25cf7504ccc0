"""Small networks with a known answer, and the method written out densely in float64, affinity matrix and all."""

import math

import torch
import torch.nn.functional as F
from torch import nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
RESIZE = {1: "linear", 2: "bilinear", 3: "trilinear"}
POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def conv(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


class Named(nn.Module):
    """Modules by name, and a forward function over them."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def rounding(dtype):
    """How far apart values around 1 may be by rounding alone, where a network computes in a dtype."""
    return 64 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps


def dense_min_max(values, constant):
    """One map; None where its range is at most ``constant``."""
    low, high = values.min(), values.max()
    return None if high - low <= constant else (values - low) / (high - low)


def dense_mean(maps, grid, weights):
    """Steps 3 and 5 for one example: the weighted mean of the normalised, resized maps that are not constant."""
    total, weight = torch.zeros(grid, dtype=torch.float64), 0
    for one, its_weight in zip(maps, weights, strict=True):
        if one is not None:
            total += (
                its_weight
                * F.interpolate(one[None, None], size=grid, mode=RESIZE[len(grid)], align_corners=False)[0, 0]
            )
            weight += its_weight
    return total / (weight or 1)


def dense_semantics(features, gradients):
    """Steps 1 and 2 for one example's stage (C, *grid)."""
    vectors = gradients.flatten(1).T
    vectors = vectors[vectors.norm(dim=1) > 0]
    if len(vectors):
        directions = vectors / vectors.norm(dim=1, keepdim=True)
        mean = directions.mean(0)
        if (directions @ mean).min() / mean.norm() > 1 - 1e-3:
            return (features * gradients).sum(0).clamp(min=0)
    return gradients.clamp(min=0).sum(0)


def dense_propagation(features, semantics):
    """Step 4 for one example, less the mean of the semantics: features (C, *grid), semantics (*grid)."""
    mean = semantics.double().mean()
    looks = features.double().clamp(min=0).flatten(1).T
    norms = looks.norm(dim=1, keepdim=True)
    looks = looks / torch.where(norms > 0, norms, torch.ones_like(norms))
    affinity = looks @ looks.T
    degree = affinity.sum(1)
    weighted = affinity @ (semantics.double().flatten() - mean)
    propagated = torch.where(degree > 0, weighted / torch.where(degree > 0, degree, torch.ones_like(degree)), -mean)
    return propagated.view(semantics.shape)


def dense_finest_grid(stages):
    return max((tuple(f.shape[2:]) for f, _ in stages), key=lambda sizes: (math.prod(sizes), sizes))


def dense_propagated(stages):
    """Steps 1 to 4: [(features, gradients) of (N, C, *grid)] -> for each example, each stage's normalised map."""
    small = rounding(stages[0][0].dtype)
    stages = [(f.detach().double(), g.detach().double()) for f, g in stages]
    grid = dense_finest_grid(stages)
    # The square root of the stride, a side of the finest grid over the stage's own.
    strides = [(math.prod(grid) / math.prod(f.shape[2:])) ** (1 / len(grid)) for f, _ in stages]
    weights = [math.sqrt(stride) for stride in strides]
    propagated = []
    for n in range(len(stages[0][0])):
        semantics = [dense_semantics(f[n], g[n]) for f, g in stages]
        fused = dense_mean([dense_min_max(one, small * one.max()) for one in semantics], grid, weights)
        local = [POOL[len(grid)](fused[None, None], f.shape[2:])[0, 0] for f, _ in stages]
        maps = [dense_propagation(f[n], one) for (f, _), one in zip(stages, local, strict=True)]
        propagated.append([dense_min_max(one, small) for one in maps])
    return propagated


def dense_layer_maps(stages):
    """Each stage's propagated map (N, 1, *its own grid), float64; a map that is constant is 0."""
    of_stages = zip(*dense_propagated(stages), strict=True)
    return [
        torch.stack([torch.zeros(f.shape[2:], dtype=torch.float64) if one is None else one for one in maps])[:, None]
        for (f, _), maps in zip(stages, of_stages, strict=True)
    ]


def dense_region_cam(stages, contrast=4.0):
    """The whole method: [(features, gradients) of (N, C, *grid)] -> (N, 1, *finest grid), float64."""
    means = [dense_mean(maps, dense_finest_grid(stages), [1] * len(stages)) for maps in dense_propagated(stages)]
    return torch.stack([mean / (mean.max() or 1) for mean in means])[:, None] ** contrast


def dense_layer_cam(features, gradients):
    """LayerCAM of one layer, (N, 1, *grid), float64."""
    maps = (gradients.relu() * features).sum(1).relu().double()
    return torch.stack([dense_min_max(one, 1e-5 * one.max()) for one in maps])[:, None]


def features_and_gradients(model, layers, x, target, *args):
    """What a few plain hooks see: [(features, gradients)] of the layers, for the score at ``target``."""
    kept = {}
    hooks = [
        layer.register_forward_hook(lambda module, _, output: kept.__setitem__(module, output) or output.clone())
        for layer in layers
    ]
    output = model(x, *args)
    for hook in hooks:
        hook.remove()
    score = output[:, target].sum()
    return [(kept[layer], torch.autograd.grad(score, kept[layer], retain_graph=True)[0]) for layer in layers]


class SmallNet(nn.Module):
    """Three resolutions and a head that is not linear at each position: strides 1, 2 and 4."""

    def __init__(self, dimensions=2, inplace=False, classes=5, width=6):
        super().__init__()
        conv = CONVS[dimensions]
        self.conv1 = conv(3, width, 3, padding=1)
        self.relu1 = nn.ReLU(inplace)
        self.conv2 = conv(width, width + 2, 3, stride=2, padding=1)
        self.relu2 = nn.ReLU(inplace)
        self.conv3 = conv(width + 2, width + 4, 3, stride=2, padding=1)
        self.relu3 = nn.ReLU(inplace)
        self.fc = nn.LazyLinear(classes)

    def forward(self, x, scale=1.0):
        x = self.relu1(self.conv1(x))
        x = self.relu2(self.conv2(x))
        x = self.relu3(self.conv3(x))
        return self.fc(x.flatten(1)) * scale


def small_net(dimensions=2, size=8, **options):
    """A SmallNet in evaluation mode, its lazy layer made, and an input batch of 3."""
    net = SmallNet(dimensions, **options).eval()
    x = torch.randn(3, 3, *[size] * dimensions)
    with torch.no_grad():
        net(x)
    return net, x


class GapNet(nn.Module):
    """Convolution, ReLU, global average pooling and a linear layer: position-wise linear above ``relu``."""

    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))
