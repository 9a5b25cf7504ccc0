import importlib.util

import pytest
import torch
import torchvision
from helpers import dense_region_cam, features_and_gradients
from places import ROOT
from torch import nn

from captum_regioncam import LayerRegionCam, find_stages
from captum_regioncam.evaluation.methods import make_method
from captum_regioncam.evaluation.models import load_classifier


@pytest.fixture
def irn(monkeypatch):
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("irn_resnet50", ROOT / "examples" / "irn_resnet50.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Checkpoint(nn.Module):
    """The modules of IRN's network as it registers them: its stages under several names."""

    def __init__(self):
        super().__init__()
        self.resnet50 = torchvision.models.resnet50(weights=None)
        body = self.resnet50
        self.stage1 = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool, body.layer1)
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(part) for part in (body.layer2, body.layer3, body.layer4)
        )
        self.classifier = nn.Conv2d(2048, 20, 1, bias=False)
        self.backbone = nn.ModuleList([self.stage1, self.stage2, self.stage3, self.stage4])
        self.newly_added = nn.ModuleList([self.classifier])


def test_irn_resnet50_loads_a_checkpoint_of_irn_by_name(irn, tmp_path):
    checkpoint = Checkpoint()
    torch.save(checkpoint.state_dict(), tmp_path / "res50_cam.pth")
    network = load_classifier("examples.irn_resnet50:network", str(tmp_path / "res50_cam.pth")).model
    state = checkpoint.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
    x = torch.randn(1, 3, 96, 64)
    assert network.stage4(network.stage3(network.stage2(network.stage1(x)))).shape == (
        1,
        2048,
        6,
        4,
    )  # strides 2, 2, 2, 1
    assert network(x).shape == (1, 20)
    assert irn.coco_network()(x).shape == (1, 80)


def test_irn_resnet50_refuses_another_checkpoint(irn, tmp_path):
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="does not fit the model"):
        load_classifier("examples.irn_resnet50:network", str(tmp_path / "resnet.pth"))


def test_maps_of_irn_resnet50(irn):
    network = irn.network().eval()
    x = torch.randn(1, 3, 64, 64)
    stages = find_stages(network, x)
    assert list(stages) == ["stage1.2", "stage1", "stage2", "stage3.0.4", "stage4"]
    expected = dense_region_cam(features_and_gradients(network, stages.values(), x, 3))
    assert expected.shape == (1, 1, 32, 32)
    torch.testing.assert_close(LayerRegionCam(network, stages).attribute(x, 3), expected.float(), atol=1e-3, rtol=0)
    # CAM is the classifier's weights times the last features.
    cam = make_method("cam", network, stages, x)(x, [[3]])[0]
    features = network.stage4(network.stage3(network.stage2(network.stage1(x))))
    expected = torch.einsum("c,nchw->nhw", network.classifier.weight[3, :, 0, 0], features).relu()
    torch.testing.assert_close(cam, expected, rtol=1e-3, atol=1e-5)
