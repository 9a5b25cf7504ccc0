import pytest
import torch
from captum.attr import LayerGradCam
from helpers import GapNet, dense_layer_cam, features_and_gradients, small_net

from captum_regioncam import LayerCam, LayerRegionCam
from captum_regioncam.method.grids import min_max


def expected_at(net, layer, x, target):
    ((features, gradients),) = features_and_gradients(net, [layer], x, target)
    return dense_layer_cam(features, gradients).float()


def test_one_layer_is_the_papers_formula():
    net, x = small_net()
    expected = expected_at(net, net.relu2, x, 2)
    torch.testing.assert_close(LayerCam(net, net.relu2).attribute(x, target=2), expected, atol=1e-6, rtol=0)


def test_several_layers_are_fused_by_the_maximum():
    net, x = small_net()
    cam = LayerCam(net, [net.relu3, net.relu2])
    upsampled = [
        torch.nn.functional.interpolate(expected_at(net, layer, x, 2), size=(4, 4), mode="bilinear")
        for layer in (net.relu3, net.relu2)
    ]
    torch.testing.assert_close(cam.attribute(x, target=2), torch.maximum(*upsampled), atol=1e-6, rtol=0)
    apart = cam.attribute(x, target=2, attr_dim_summation=False)
    torch.testing.assert_close(apart, torch.cat(upsampled, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{"target": [0, 1, 2]}, {"target": 1, "attribute_to_layer_input": True}])
def test_takes_what_region_cam_takes(options):
    net, x = small_net()
    ours = LayerCam(net, [net.conv2, net.conv3]).attribute(x, **options)
    # What goes into a convolution is what comes out of the ReLU before it.
    layers = [net.relu1, net.relu2] if "attribute_to_layer_input" in options else [net.conv2, net.conv3]
    targets = options["target"] if isinstance(options["target"], list) else [options["target"]] * 3
    for n, target in enumerate(targets):
        torch.testing.assert_close(ours[n : n + 1], LayerCam(net, layers).attribute(x[n : n + 1], target))
    assert ours.shape == LayerRegionCam(net, [net.conv2, net.conv3]).attribute(x, **options).shape
    assert not ours.requires_grad
    assert ours.dtype == x.dtype


def test_whole_number_inputs_give_maps_in_the_dtype_of_the_features():
    embedding, (net, _) = torch.nn.Embedding(7, 3), small_net(1)
    attribution = LayerCam(lambda x: net(embedding(x).transpose(1, 2)), net.relu1).attribute
    assert attribution(torch.randint(7, (2, 8)), target=0).dtype == torch.float32


def test_captums_grad_cam_is_cam_on_pooling_and_linear():
    net, x = GapNet(), torch.randn(2, 3, 6, 6)
    cam = torch.einsum("c,nchw->nhw", net.fc.weight[1], net.relu(net.conv(x)))[:, None].relu()
    grad_cam = LayerGradCam(net, net.relu).attribute(x, target=1, relu_attributions=True)
    torch.testing.assert_close(min_max(grad_cam), min_max(cam), atol=1e-5, rtol=0)
