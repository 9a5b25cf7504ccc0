"""Networks that no registry has: other inputs than images, and structures that are easily misread."""

from itertools import pairwise

import timm
import torch
import torch.nn.functional as F
from families import Builder, Built, noise
from torch import Tensor, nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def families() -> dict[str, Builder]:
    """Return them all: {family: builder}."""
    return {
        "written-signal": lambda: _built(Convolutions(1), 2, 512),
        "written-image": lambda: _built(Convolutions(2), 2, 96, 96),
        "written-volume": lambda: _built(Convolutions(3), 2, 32, 32, 32),
        "written-waveform": lambda: _built(Waveform(), 1, 4096, inputs=lambda x: (x[:, 0],)),
        "written-lstm": lambda: _built(Recurrent(), 8, 40, inputs=lambda x: (x.transpose(1, 2),)),
        "written-mlp": lambda: _built(Perceptron(), 3, 16, 16),
        "written-unet": lambda: _scored(UNet(), lambda output: output[0].mean((2, 3)), 3, 64, 64),
        "written-siamese": lambda: _built(Siamese(), 3, 64, 64, inputs=_pair),
        "written-functional-relu": lambda: _built(Functional(), 3, 64, 64),
        "written-channels-last": lambda: _built(ChannelsLast(), 3, 64, 64),
        "written-class-tokens": lambda: _built(ClassTokens(), 3, 224, 224),
        "written-detached": lambda: _built(Detached(), 3, 128, 128),
        "written-auxiliary-head": lambda: _scored(Auxiliary(), lambda output: output[0], 3, 64, 64),
        "written-shared-block": lambda: _built(Shared(), 3, 64, 64),
        "written-spectrogram-classifier": lambda: _built(Spectrogram(), 1, 8192, inputs=lambda x: (x[:, 0],)),
    }


def _built(model: nn.Module, *shape: int, inputs=lambda x: (x,)) -> Built:
    return Built(type(model).__name__, model, noise(*shape), model, inputs)


def _scored(model: nn.Module, pick, *shape: int) -> Built:
    return Built(type(model).__name__, model, noise(*shape), lambda *inputs: pick(model(*inputs)), dense=True)


def _pair(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, noise(*x.shape[1:]).flip(3).expand_as(x)


class Perceptron(nn.Sequential):
    """Sees all pixels at once."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 16 * 16, 32), nn.ReLU(), nn.Linear(32, 5))


class Convolutions(nn.Module):
    """Three resolutions of a signal, an image or a volume."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv, widths = CONVS[axes], (2, 16, 32, 48)
        self.stages = nn.ModuleList(
            nn.Sequential(conv(a, b, 3, 2, 1), nn.ReLU(), conv(b, b, 3, 1, 1), nn.ReLU()) for a, b in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(x.flatten(2).mean(2))


class Waveform(nn.Module):
    """Takes (N, samples)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(1, 8, 9, 4, 4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv1d(8, 16, 9, 4, 4), nn.ReLU())
        self.third = nn.Sequential(nn.Conv1d(16, 16, 9, 4, 4), nn.ReLU())
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.third(self.second(self.first(x[:, None]))).mean(2))


class Spectrogram(nn.Module):
    """Takes (N, samples), and sees them as an image of frequencies and times, whose axes are not the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = Convolutions(2)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 126, 64, window=torch.hann_window(126), return_complex=True)
        return self.convolutions(torch.view_as_real(spectrum).movedim(-1, 1))


class Recurrent(nn.Module):
    """An LSTM over (N, time, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class UNet(nn.Module):
    """A U-Net with deep supervision: the logits at full, half and quarter resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(_double(a, b) for a, b in ((3, 8), (8, 16), (16, 32), (32, 64)))
        self.up = nn.ModuleList(_double(a, b) for a, b in ((96, 32), (48, 16), (24, 8)))
        self.heads = nn.ModuleList(nn.Conv2d(width, 12, 1) for width in (8, 16, 32))

    def forward(self, x: Tensor) -> list[Tensor]:
        skips = []
        for number, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if number else x)
            skips.append(x)
        x = skips.pop()
        levels = []
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2), skips.pop()], 1))
            levels.append(x)
        return [head(level) for head, level in zip(self.heads, reversed(levels), strict=True)]


def _double(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU())


class Siamese(nn.Module):
    """Runs its backbone on each of two images, and compares them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(_double(3, 8), nn.MaxPool2d(2), _double(8, 16), nn.MaxPool2d(2), _double(16, 16))
        self.head = nn.Linear(16, 2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.head((self.backbone(second) - self.backbone(first)).square().mean((2, 3)))


class Functional(nn.Module):
    """Calls F.relu and F.max_pool2d, as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 1, 1)
        self.conv3, self.conv4 = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        return self.head(x.mean((2, 3)))


class ChannelsLast(nn.Module):
    """Blocks of (N, height, width, C), of which there are as many channels as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(4)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).movedim(1, -1)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((1, 2)))


class ClassTokens(nn.Module):
    """As MCTformer+: 20 class tokens before the patches, and a convolution over the patches that gives the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = timm.create_model("deit_tiny_patch16_224", depth=4, num_classes=0)
        self.tokens = nn.Parameter(0.02 * torch.randn(1, 20, 192))
        self.head = nn.Conv2d(192, 20, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.vit.patch_embed(x)
        x = torch.cat([self.tokens.expand(len(x), -1, -1), patches + self.vit.pos_embed[:, 1:]], 1)
        for block in self.vit.blocks:
            x = block(x)
        grid = x[:, 20:].transpose(1, 2).unflatten(2, (14, 14))
        return self.head(grid).mean((2, 3)) + x[:, :20].mean(2)


class Detached(nn.Module):
    """As IRN's networks: ResNet, whose first stages are detached."""

    def __init__(self) -> None:
        super().__init__()
        import torchvision

        resnet = torchvision.models.resnet18()
        self.stage1 = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1)
        self.stage2, self.stage3, self.stage4 = resnet.layer2, resnet.layer3, resnet.layer4
        self.classifier = nn.Conv2d(512, 20, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.stage1(x)).detach()
        return self.classifier(self.stage4(self.stage3(x)).mean((2, 3), keepdim=True)).flatten(1)


class Auxiliary(nn.Module):
    """Returns the scores, and those of a head that sees the features before the last stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.last = _double(3, 8), _double(8, 16), _double(16, 32)
        self.side = nn.Sequential(
            nn.Conv2d(16, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.middle(F.max_pool2d(self.stem(x), 2)), 2)
        return self.head(self.last(x).mean((2, 3))), self.side(x)


class Shared(nn.Module):
    """Runs one block four times at its last resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.block = _double(3, 8), _double(8, 16), _double(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.middle(F.max_pool2d(self.stem(x), 2)), 2)
        for _ in range(4):
            x = x + self.block(x)
        return self.head(x.mean((2, 3)))
