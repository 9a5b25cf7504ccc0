"""Whether positions answer to their own places: tensors whose places are known, in order and out of it."""

import pytest
import torch

from captum_regioncam import find_stages, tokens_to_grid
from captum_regioncam.stages.layouts import Layout
from captum_regioncam.stages.places import BANDS, answers, are_in_place, at_own_place
from captum_regioncam.stages.watch import Call

SIDE, CHANNELS = 8, 6


def changed_bands(axis):
    """A probe of 16 x 16, and the same with each band along an axis changed."""
    batch = torch.zeros(1 + BANDS, 3, 16, 16)
    for band in range(BANDS):
        batch[1 + band].narrow(1 + axis, 4 * band, 4).fill_(1)
    return batch


def features(batch, blur=1):
    """(N, C, 8, 8) features of a probe, which answer to places around their own, too."""
    weights = torch.linspace(1, 2, CHANNELS).view(1, CHANNELS, 1, 1)
    return torch.nn.functional.avg_pool2d(batch.mean(1, keepdim=True), 2 * blur + 2, 2, blur) * weights


def tokens(batch, before=0, after=0):
    patches = features(batch).flatten(2).transpose(1, 2)
    whole = batch.mean((1, 2, 3)).view(-1, 1, 1)  # a class token sees everything
    return torch.cat([whole.expand(-1, before, CHANNELS), patches, whole.expand(-1, after, CHANNELS)], 1)


def reading_of(make):
    """How a tensor is read, and whether it is then in place."""
    call = Call("layer", "Layer", (), False, False, True, True, 0, (), False)
    call.shape = tuple(make(changed_bands(0)).shape)
    call.answers = {axis: answers(make(changed_bands(axis))) for axis in range(2)}
    layout = Layout([call], (1 + BANDS, 3, 16, 16))
    return layout.readings.get(call.shape), layout.in_place == [call]


@pytest.mark.parametrize("blur", [0, 1, 3])
def test_answers_are_sums_over_the_other_dimensions(blur):
    tensor = features(changed_bands(0), blur)
    changes = (tensor[1:] - tensor[:1]).abs()
    for one, other in zip(answers(tensor), ((2, 3), (1, 3), (1, 2)), strict=True):
        torch.testing.assert_close(one, changes.sum(other))


def test_the_share_of_the_own_band():
    eye = torch.eye(BANDS)
    assert at_own_place(eye) == 1
    assert at_own_place(eye.repeat_interleave(3, dim=1)) == 1
    assert at_own_place(eye.roll(1, 0)) == 0
    assert at_own_place(torch.ones(BANDS, 7)) == pytest.approx(1 / BANDS)
    halves = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])  # two positions, each of which covers two bands
    assert at_own_place(halves) == 0.5
    assert are_in_place(halves.flip(1)) is None  # too few to tell
    assert are_in_place(eye) is True
    assert are_in_place(eye.flip(1)) is False
    assert are_in_place(torch.ones(BANDS, 7)) is None


@pytest.mark.parametrize("blur", [0, 1, 3])
def test_channels_first_and_last(blur):
    reading, in_place = reading_of(lambda batch: features(batch, blur))
    assert (reading.grid, reading.octave, reading.reshape_transform, in_place) == ((8, 8), 1, None, True)
    reading, in_place = reading_of(lambda batch: features(batch, blur).movedim(1, -1))
    assert reading.grid == (8, 8)
    assert in_place
    assert reading.reshape_transform.__name__ == "channels_last"


def test_as_many_channels_as_rows():
    square = lambda batch: features(batch).repeat(1, 2, 1, 1)[:, :SIDE]  # noqa: E731
    assert reading_of(square)[0].reshape_transform is None
    assert reading_of(lambda batch: square(batch).movedim(1, -1))[0].reshape_transform.__name__ == "channels_last"


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 1), (2, 3), (5, 0), (1, 20)])
def test_tokens_before_and_after_the_patches(before, after):
    reading, in_place = reading_of(lambda batch: tokens(batch, before, after))
    assert in_place
    assert (reading.grid, reading.octave) == ((8, 8), 1)
    transform = reading.reshape_transform
    assert (transform.prefix_tokens, transform.suffix_tokens) == (before, after)
    batch = changed_bands(0)
    assert torch.equal(transform(tokens(batch, before, after)), features(batch))
    assert torch.equal(tokens_to_grid(before, suffix_tokens=after)(tokens(batch, before, after)), features(batch))


def refused(make):
    reading, in_place = reading_of(make)
    return reading is None or not in_place


def test_what_is_not_in_place_is_refused():
    shuffle = torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(0))
    assert refused(lambda batch: tokens(batch)[:, shuffle])
    assert refused(lambda batch: features(batch).transpose(2, 3))
    assert refused(lambda batch: features(batch).roll(3, 2))
    assert refused(lambda batch: features(batch).roll((2, 2), (2, 3)))
    assert refused(lambda batch: features(batch).flip(3))
    assert refused(lambda batch: torch.ones(len(batch), CHANNELS, SIDE, SIDE))
    assert refused(lambda batch: torch.full((len(batch), SIDE**2, CHANNELS), float("nan")))


def test_tokens_of_several_resolutions_are_refused():
    """Their numbers change with the size of the input, unlike those of class tokens."""

    def pyramid(batch):
        levels = [features(batch), *(torch.nn.functional.avg_pool2d(features(batch), side) for side in (2, 4))]
        return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2)

    assert pyramid(changed_bands(0)).shape[1] == 64 + 16 + 4
    assert refused(pyramid)


def test_windows_are_refused():
    """Tokens window after window, as in Hiera and, inside its blocks, in Swin."""

    def windows(batch):
        split = features(batch).unflatten(3, (2, 4)).unflatten(2, (2, 4))  # (N, C, 2, 4, 2, 4)
        return split.permute(0, 2, 4, 3, 5, 1).reshape(len(batch), SIDE**2, CHANNELS)

    assert refused(windows)


class Shuffles(torch.nn.Module):
    """Patches in place, then out of it."""

    def __init__(self, in_order):
        super().__init__()
        self.embed, self.order = torch.nn.Conv2d(3, CHANNELS, 16, 16), torch.nn.Identity()
        self.mix, self.head = torch.nn.Linear(CHANNELS, CHANNELS), torch.nn.Linear(CHANNELS, 2)
        self.in_order = in_order

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        order = torch.arange(x.shape[1]) if self.in_order else torch.randperm(x.shape[1])
        return self.head(self.mix(x[:, order]).relu().mean(1))


@pytest.mark.parametrize(("in_order", "expected"), [(True, ["mix"]), (False, ["embed"])])
def test_shuffled_tokens_are_no_stage(in_order, expected):
    net = Shuffles(in_order)
    assert list(find_stages(net, torch.randn(1, 3, 64, 64))) == expected
