import pytest
import torch

from captum_regioncam.method.grids import channel_chunks, depth_weights, finest_grid, fuse, min_max, pool, resize


def test_min_max_stretches_each_map_alone():
    maps = torch.tensor([[[2.0, 4.0, 3.0], [-1.0, 0.0, 3.0]]])
    assert min_max(maps).tolist() == [[[0.0, 1.0, 0.5], [0.0, 0.25, 1.0]]]


@pytest.mark.parametrize("value", [0.0, 1.0, -7.0, 1e-30, 1e30])
def test_min_max_of_a_constant_map_is_zero(value):
    noise = 1 + torch.tensor([0.0, 1e-7, -1e-7])  # what rounding leaves of a constant
    assert min_max((value * noise).view(1, 1, 3)).tolist() == [[[0.0, 0.0, 0.0]]]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_min_max_does_not_depend_on_scale(scale):
    maps = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(min_max(maps * scale), min_max(maps))


def test_resize_interpolates_between_pixel_centres():
    assert resize(torch.tensor([[[0.0, 1.0]]]), (4,)).tolist() == [[[0.0, 0.25, 0.75, 1.0]]]
    plane = torch.tensor([[[[0.0, 1.0]]]])
    assert resize(plane, (2, 4)).tolist() == [[[[0.0, 0.25, 0.75, 1.0]] * 2]]
    assert resize(plane[..., None], (1, 4, 1)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
    assert resize(plane, (1, 2)) is plane


def test_pool_averages_also_where_grids_are_not_nested():
    assert pool(torch.tensor([[[1.0, 3.0, 5.0]]]), (2,)).tolist() == [[[2.0, 4.0]]]
    assert pool(torch.arange(16.0).view(1, 1, 4, 4), (2, 2)).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert pool(torch.arange(8.0).view(1, 1, 2, 2, 2), (1, 1, 1)).tolist() == [[[[[3.5]]]]]


def test_min_max_of_maps_that_are_told_what_is_constant():
    maps = torch.tensor([[[0.0, 1e-5], [0.0, 3e-5]]])
    assert min_max(maps, 2e-5).tolist() == [[[0.0, 0.0], [0.0, 1.0]]]
    assert min_max(maps, torch.tensor([[[0.0], [1.0]]])).tolist() == [[[0.0, 1.0], [0.0, 0.0]]]


def test_fuse_leaves_constant_maps_out_of_the_mean_per_example():
    rising = min_max(torch.tensor([[[0.0, 1.0]], [[0.0, 2.0]]]))
    other = min_max(torch.tensor([[[5.0, 5.0]], [[3.0, 1.0]]]))  # constant in the first example alone
    assert fuse([rising, other], (2,)).tolist() == [[[0.0, 1.0]], [[0.5, 0.5]]]
    assert fuse([other[:1]], (2,)).tolist() == [[[0.0, 0.0]]]


def test_fuse_of_what_was_normalised_before_it_is_resized():
    coarse = torch.tensor([[[0.0, 8.0]]])
    fine = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    assert fuse([min_max(coarse), fine], (4,)).tolist() == [[[0.5, 0.125, 0.375, 0.5]]]


def test_weights_of_the_mean_count_for_maps_that_vary():
    left, right = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]])
    assert fuse([left, right], (2,), [1, 3]).tolist() == [[[0.25, 0.75]], [[1.0, 0.0]]]


@pytest.mark.parametrize(
    ("grids", "weights"),
    [
        ([(112, 112), (28, 28), (7, 7)], [1, 2, 4]),
        ([(2, 4, 4), (8, 16, 16)], [2, 1]),
        ([(100,), (25,), (100,)], [1, 2, 1]),
        ([(8, 8), (8, 2)], [1, 2**0.5]),
    ],
)
def test_weights_are_square_roots_of_strides(grids, weights):
    assert depth_weights(grids) == pytest.approx(weights)


def test_finest_grid_has_most_positions_in_any_order():
    grids = [(7, 7), (56, 56), (28, 28)]
    assert finest_grid(grids) == finest_grid(grids[::-1]) == (56, 56)
    assert finest_grid([(4, 8), (8, 4)]) == finest_grid([(8, 4), (4, 8)])


@pytest.mark.parametrize("shape", [(2, 13, 50), (1, 1, 7), (3, 64, 200_000), (1, 8, 2_000_000)])
def test_channel_chunks_cover_all_channels_in_small_parts(shape):
    features = torch.empty(shape)
    chunks = list(channel_chunks(features))
    assert sum(chunk.shape[1] for chunk in chunks) == shape[1]
    assert chunks[0].data_ptr() == features.data_ptr()
    assert all(chunk.shape[1] <= max(1, 2**20 // (shape[0] * shape[2])) for chunk in chunks)
