import pytest
import torch

from captum_regioncam.network.reshape import TokensToGrid, channels_last, nearest_grid, tokens_to_grid


def test_channels_last_moves_channels_first():
    tensor = torch.arange(24).view(1, 2, 3, 4)
    moved = channels_last(tensor)
    assert moved.shape == (1, 4, 2, 3)
    assert moved[0, 3, 1, 2] == tensor[0, 1, 2, 3]


def test_tokens_to_grid_drops_prefix_and_keeps_rows():
    tokens = torch.arange(10.0).view(1, 5, 2)
    grid = tokens_to_grid()(tokens)
    assert grid[0, 0].tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert tokens_to_grid(2, grid=(1, 3))(tokens)[0, 1].tolist() == [[5.0, 7.0, 9.0]]


@pytest.mark.parametrize(
    ("transform", "shape", "message"),
    [
        (tokens_to_grid(), (1, 7, 4), "leave 6 patches, which is not a square number"),
        (tokens_to_grid(grid=(2, 4)), (1, 7, 4), "leave 6 patches, which is not 2 x 4 = 8"),
        (tokens_to_grid(prefix_tokens=7), (1, 7, 4), "leave 0 patches"),
        (
            TokensToGrid(sides=(64, 96)),
            (1, 198, 4),
            r"leave 197 patches, which is not a grid with the proportions 64 x 96",
        ),
        (tokens_to_grid(), (1, 7), r"\(N, tokens, C\), got \(1, 7\)"),
    ],
)
def test_tokens_to_grid_says_what_does_not_fit(transform, shape, message):
    with pytest.raises(ValueError, match=message):
        transform(torch.zeros(shape))


@pytest.mark.parametrize(
    ("positions", "sides", "grid"),
    [
        (24, (64, 96), (4, 6)),
        (24, (96, 64), (6, 4)),
        (196, (224, 224), (14, 14)),
        (4, (64, 64), (2, 2)),
        (9 * 13, (150, 215), (9, 13)),  # 16 x 16 patches, rounded down
        (10 * 14, (150, 215), (10, 14)),  # rounded up
        (12, (100, 37), (6, 2)),
        (3 * 4 * 6, (6, 64, 96), None),
        (2 * 4 * 6, (32, 64, 96), (2, 4, 6)),
        (197, (224, 224), None),  # a class token too many
        (7, (5,), (7,)),
    ],
)
def test_the_grid_of_a_number_of_positions(positions, sides, grid):
    assert nearest_grid(positions, sides) == grid


def test_every_grid_of_whole_patches_is_found():
    for rows in range(1, 25):
        for columns in range(1, 25):
            assert nearest_grid(rows * columns, (16 * rows, 16 * columns)) == (rows, columns)


def test_the_grid_follows_the_inputs():
    tokens = torch.arange(24.0).view(1, 24, 1)
    for height, width in ((64, 96), (96, 64)):
        bound = tokens_to_grid(0).for_inputs([torch.zeros(1), torch.zeros(1, 3, height, width)])
        assert torch.equal(bound(tokens)[0, 0], torch.arange(24.0).view(height // 16, width // 16))
    oblong = TokensToGrid(0, patch=(16, 8))
    assert torch.equal(oblong.for_inputs([torch.zeros(1, 3, 64, 48)])(tokens)[0, 0], torch.arange(24.0).view(4, 6))
    fixed = tokens_to_grid(0, grid=(2, 12))
    assert torch.equal(fixed.for_inputs([torch.zeros(1, 3, 64, 96)])(tokens)[0, 0], torch.arange(24.0).view(2, 12))
    assert tokens_to_grid(0).for_inputs([torch.zeros(1, 9)]) == tokens_to_grid(0)
