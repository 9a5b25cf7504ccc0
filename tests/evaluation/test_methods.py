"""Methods by name: Captum's LayerGradCam depends on the layout of the last stage alone."""

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from captum_regioncam import LayerError, channels_last, find_stages
from captum_regioncam.evaluation.methods import make_method
from captum_regioncam.stages import Stages


class NormThenConv(nn.Module):
    """Channels-last features before convolutions."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8)
        self.conv, self.relu, self.fc = nn.Conv2d(8, 8, 2, 2), nn.ReLU(), nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.stem(x).movedim(1, -1)).movedim(-1, 1)
        return self.fc(self.relu(self.conv(x)).square().mean((2, 3)))


def test_grad_cam_needs_no_layout_of_earlier_stages():
    torch.manual_seed(0)
    net, x = NormThenConv().eval(), torch.randn(1, 3, 32, 32)
    wanted = LayerGradCam(net, net.relu).attribute(x, 3, relu_attributions=True)
    assert wanted.max() > 0
    stages = find_stages(net, x)
    assert list(stages) == ["norm", "relu"]
    assert stages.reshape_transform == {"norm": channels_last}
    for one in (stages, Stages({"relu": net.relu}, {})):
        torch.testing.assert_close(make_method("grad-cam", net, one, x)(x, [[3]])[0], wanted[0])


@pytest.mark.parametrize("transform", [channels_last, {"norm": channels_last}])
@pytest.mark.parametrize("name", ["grad-cam", "cam"])
def test_grad_cam_refuses_a_last_stage_of_another_layout(name, transform):
    net = NormThenConv().eval()
    stages = Stages({"norm": net.norm}, transform)
    with pytest.raises(LayerError, match="LayerGradCam does not support tokens or channels-last tensors"):
        make_method(name, net, stages, torch.randn(1, 3, 32, 32))
