import pytest
import torch
from helpers import dense_propagation
from hypothesis import given
from hypothesis import strategies as st

from captum_regioncam.method.grids import pool
from captum_regioncam.method.sip import propagate


def whole(features, semantics):
    """M itself: what ``propagate`` returns, and the mean that it leaves out."""
    local = pool(semantics, features.shape[2:])
    return propagate(features, semantics) + local.mean(tuple(range(2, local.dim())), keepdim=True)


SHAPES = st.tuples(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.lists(st.integers(1, 6), min_size=1, max_size=3)
)


@given(SHAPES, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_equals_the_dense_affinity(shape, seed, empty_positions, empty_semantics):
    batch, channels, targets, grid = shape
    generator = torch.Generator().manual_seed(seed)

    def random(*sizes):
        return torch.randn(*sizes, generator=generator, dtype=torch.float64)

    features = random(batch, channels, *grid)
    features = features * (torch.rand(batch, 1, *grid, generator=generator) >= empty_positions)
    semantics = random(batch, targets, *grid).abs()
    semantics = semantics * (torch.rand(batch, targets, *grid, generator=generator) >= empty_semantics)
    result = propagate(features, semantics)
    for n in range(batch):
        for k in range(targets):
            expected = dense_propagation(features[n], semantics[n, k])
            torch.testing.assert_close(result[n, k], expected, rtol=0, atol=1e-6)


def test_two_regions_by_hand():
    features = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 0.0, 5.0]]])  # positions 0 and 1 look alike, 2 is alone
    semantics = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 0.0, 1.0]]])
    expected = [[[0.5, 0.5, 0.5], [0.0, 0.0, 1.0]]]
    torch.testing.assert_close(whole(features, semantics), torch.tensor(expected))


def test_partly_alike_positions_by_hand():
    features = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])  # cosine sqrt(1/2)
    a = 0.5**0.5
    expected = torch.tensor([[[1 / (1 + a), a / (1 + a)]]])
    torch.testing.assert_close(whole(features, torch.tensor([[[1.0, 0.0]]])), expected)


def test_positions_without_positive_features_get_zero_and_give_nothing():
    features = torch.tensor([[[1.0, -3.0, 0.0, 2.0]]])
    semantics = torch.tensor([[[1.0, 9.0, 9.0, 0.0]]])
    torch.testing.assert_close(whole(features, semantics), torch.tensor([[[0.5, 0.0, 0.0, 0.5]]]))
    assert whole(-features.abs(), semantics).tolist() == [[[0.0] * 4]]


def test_semantics_are_averaged_down_to_the_stage():
    features = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert whole(features, torch.tensor([[[1.0, 3.0, 5.0, 5.0]]])).tolist() == [[[2.0, 5.0]]]


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-3, 1e18, 1e30])
def test_does_not_depend_on_the_scale_of_the_features(scale):
    features, semantics = torch.rand(2, 7, 5, 4), torch.rand(2, 1, 5, 4)
    torch.testing.assert_close(
        propagate(features * scale, semantics), propagate(features, semantics), atol=1e-5, rtol=0
    )


def test_positions_of_very_different_strength_count_alike():
    features = torch.tensor([[[1e-25, 1e25, 1.0], [1e-25, 1e25, 0.0]]])
    result = whole(features, torch.tensor([[[1.0, 0.0, 0.0]]]))
    a = 0.5**0.5
    torch.testing.assert_close(result, torch.tensor([[[1 / (2 + a), 1 / (2 + a), a / (1 + 2 * a)]]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_are_summed_in_float32(dtype):
    # 70,000 positions of 1.0: in the dtype itself, the sums would stop growing (bf16) or overflow (half).
    features = torch.ones(1, 1, 70_000, dtype=dtype)
    semantics = torch.zeros(1, 1, 70_000)
    semantics[..., :35_000] = 1
    result = whole(features, semantics)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.full_like(result, 0.5))
    assert torch.equal(propagate(features, semantics.to(dtype)), propagate(features, semantics))


def test_channels_in_many_chunks_or_strided_give_the_same():
    features, semantics = torch.randn(2, 40, 30, 30), torch.rand(2, 1, 30, 30)
    strided = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(propagate(strided, semantics), propagate(features, semantics))
    expected = dense_propagation(features[1], semantics[1, 0]).float()
    torch.testing.assert_close(propagate(features, semantics)[1, 0], expected, atol=1e-5, rtol=0)


def test_differences_far_smaller_than_the_semantics():
    # Features nearly alike: M varies by 1e-4 of S. What rounding does to S itself would be a hundredth of that.
    features = (1 + 0.01 * torch.rand(1, 8, 50)).double()
    semantics = torch.rand(1, 1, 50).double()
    exact = dense_propagation(features[0], semantics[0, 0])
    result = propagate(features.float(), semantics.float())[0, 0].double()
    assert exact.max() - exact.min() < 1e-3
    assert (result - exact - (result - exact).mean()).abs().max() < 1e-4 * (exact.max() - exact.min())


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_setting_of_float32_products_is_left_alone_and_does_no_harm_on_cuda(precision, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("TF32 needs CUDA, which this machine has not")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        features, semantics = torch.rand(1, 64, 900, device=device), torch.rand(1, 2, 900, device=device)
        result = propagate(features, semantics)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert result.dtype == torch.float32
    exact = torch.stack([dense_propagation(features[0], one) for one in semantics[0]])
    if device == "cuda" or precision == "highest":  # processors may shorten products too, on "medium"
        torch.testing.assert_close(result[0].double(), exact, atol=1e-6, rtol=0)


def test_can_be_differentiated():
    features = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    semantics = torch.rand(1, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(propagate, (features, semantics))
    silent = torch.tensor([[[1.0, -1.0]]], requires_grad=True)
    assert torch.autograd.grad(propagate(silent, torch.rand(1, 1, 2)).sum(), silent)[0].isfinite().all()
