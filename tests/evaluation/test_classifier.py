import sys
import types
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from skimage.data import chelsea
from torch import nn

from captum_regioncam.cli.usage import as_options
from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation.classifier import Classifier
from captum_regioncam.evaluation.models import load_classifier

FACTORY = "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))\n"


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """A module in the working directory with factories; its weights are of its own shape."""
    (tmp_path / "my_factory.py").write_text(
        f"{FACTORY}number = 3\ndef wrong():\n    return 3\ndef fails():\n    1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    yield "my_factory:make"
    sys.modules.pop("my_factory", None)


def test_default_is_efficientnet_lite0_with_its_weights_and_names():
    classifier = load_classifier()
    assert not classifier.model.training
    assert classifier.class_name(281) == "tabby"
    assert classifier.class_index("Tabby Cat") == classifier.class_index("281") == 281
    assert classifier.class_index("missile") == 657  # and not 744, "projectile, missile"
    extremes = classifier.preprocess(Image.fromarray(np.array([[[0, 255, 51]]], np.uint8)))
    torch.testing.assert_close(extremes.flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_torchvision_and_timm_bring_their_preprocessing():
    classifier = load_classifier("torchvision:resnet18", "none")
    assert isinstance(classifier.model, torchvision.models.ResNet)
    assert (classifier.size, list(classifier.mean)) == (224, [0.485, 0.456, 0.406])
    assert classifier.class_names[281] == "tabby"
    classifier = load_classifier("timm:mobilenetv3_small_050", "none", size=160)
    assert classifier.size == 160
    assert classifier.class_index("tabby") == 281


def test_factory_with_a_checkpoint(factory, tmp_path):
    wanted = {name: torch.randn_like(value) for name, value in load_classifier(factory).model.state_dict().items()}
    for checkpoint in (wanted, {"state_dict": {f"module.{name}": value for name, value in wanted.items()}}):
        torch.save(checkpoint, tmp_path / "weights.pt")
        classifier = load_classifier(factory, str(tmp_path / "weights.pt"), mean=(0, 0, 0), std=(1, 1, 1))
        torch.testing.assert_close(classifier.model.state_dict(), wanted)
    assert classifier.class_name(3) == "class 3"
    assert classifier.class_index("3") == 3
    with pytest.raises(ValueError, match="the classes are numbers from 0"):
        classifier.class_index("-1")
    assert list(classifier.mean) == [0, 0, 0]


def test_photos_in_any_mode_become_the_network_s_input():
    classifier = Classifier(nn.Flatten(), size=16, mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0))
    rgb = Image.new("RGB", (40, 30), (255, 0, 51))
    expected = torch.tensor([1.0, -0.5, 0.2]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    clear = rgb.convert("RGBA")
    clear.putalpha(0)  # white
    white = torch.tensor([1.0, 1.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    for photo, wanted in (
        (rgb, expected),
        (rgb.convert("P"), expected),
        (rgb.convert("RGBA"), expected),
        (clear, white),
    ):
        torch.testing.assert_close(classifier.transform(photo), wanted, atol=0.01, rtol=0)
    grey = classifier.transform(Image.new("L", (40, 30), 255))
    torch.testing.assert_close(grey, white)
    torch.testing.assert_close(classifier.transform(Image.new("I;16", (40, 30), 65535)), white)
    assert classifier.transform(Image.new("CMYK", (40, 30))).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="floating-point numbers of unknown range"):
        classifier.transform(Image.new("F", (40, 30)))


def test_fits_the_photo_to_the_network():
    photo = Image.new("RGB", (64, 32))
    sizes = {
        resize: [image.size for image in Classifier(nn.Identity(), 16, resize=resize).fit(photo)]
        for resize in ("squash", "short", "crop")
    }
    assert sizes == {"squash": [(64, 32), (16, 16)], "short": [(64, 32), (32, 16)], "crop": [(28, 28), (16, 16)]}
    assert Classifier(nn.Identity(), 16, resize="crop", crop_ratio=0.5).seen_box(64, 32) == (24, 8, 40, 24)


@pytest.mark.parametrize(
    ("name", "ratio", "interpolation"),
    [
        ("efficientnet-lite0", 224 / 256, "BICUBIC"),
        ("torchvision:resnet18", 224 / 256, "BILINEAR"),
        ("torchvision:regnet_y_400mf", 224 / 232, "BILINEAR"),
        ("torchvision:efficientnet_b0", 224 / 256, "BICUBIC"),
        ("timm:mobileone_s1", 0.9, "BILINEAR"),
        ("timm:vit_tiny_patch16_224", 0.9, "BICUBIC"),
    ],
)
def test_the_centre_crop_is_the_one_that_the_model_names(name, ratio, interpolation):
    classifier = load_classifier(name, "none", resize="crop")
    assert (classifier.crop_ratio, classifier.interpolation.name) == (ratio, interpolation)


@pytest.mark.parametrize(("name", "apart"), [("resnet18", 0.06), ("regnet_y_400mf", 0.05)])
def test_the_centre_crop_is_torchvision_s(name, apart):
    photo = Image.fromarray(chelsea())  # 451 x 300
    weights = torchvision.models.get_model_weights(name).DEFAULT
    classifier = load_classifier(f"torchvision:{name}", "none", resize="crop")
    found = classifier.preprocess(classifier.fit(photo)[1])
    expected = weights.transforms()(photo)[None]
    assert (found - expected).abs().mean() < apart  # torchvision resizes first, and crops at whole pixels of the result
    squashed = load_classifier(f"torchvision:{name}", "none").fit(photo)[1]
    assert np.array_equal(squashed, photo.resize((224, 224), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("resize", ["squash", "short", "crop", "keep"])
def test_photos_that_are_too_narrow(resize):
    classifier = Classifier(nn.Identity(), 16, resize=resize)
    message = r"the photo has 2 x 41 pixels, a ratio of 20\.5; at most 20 is possible. Crop the photo."
    with pytest.raises(ValueError, match=message):
        classifier.fit(Image.new("RGB", (2, 41)))
    with pytest.raises(ValueError, match="41 x 2 pixels"):
        classifier.fit(Image.new("RGB", (41, 2)))
    assert classifier.fit(Image.new("RGB", (2, 40)))[0].size == ((2, 2) if resize == "crop" else (2, 40))


def test_inputs_that_are_too_large():
    photo = Image.new("RGB", (4096, 4096))
    keep, large = Classifier(nn.Identity(), resize="keep"), Classifier(nn.Identity(), 2048)
    assert keep.seen(photo) is photo
    assert large.seen(photo, scale=2) is photo
    message = (
        r"the photo has 4096 x 4096 pixels, which make an input of 6144 x 6144; at most 4096 x 4096 are possible. "
    )
    with pytest.raises(ValueError, match=message + "Use resize 'short' or smaller scales."):
        keep.seen(photo, scale=1.5)
    with pytest.raises(ValueError, match=r"an input of 5120 x 5120; .* Use a smaller size or smaller scales."):
        large.seen(photo, scale=2.5)
    with pytest.raises(ValueError, match=r"an input of 4097 x 4096; .* Use resize 'short'.$"):
        keep.fit(Image.new("RGB", (4097, 4096)))
    with pytest.raises(ValueError, match="size=4097: expects at most 4096 pixels"):
        load_classifier(size=4097)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tabbi", "no such class. Nearest: tabby"),
        ("1000", "the classes are 0 to 999"),
        ("-1", "the classes are 0 to 999"),
        ("crane", r"several classes have that name: 134 \(crane\), 517 \(crane\)"),
        ("§§§§", "There is no similar name"),
    ],
)
def test_unknown_class(target, message):
    with pytest.raises(ValueError, match=message):
        load_classifier().class_index(target)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet50", None, "expects efficientnet-lite0, torchvision:NAME"),
        ("torchvision:resnet51", "none", r"no such classifier. Nearest: .*resnet50"),
        ("timm:resnet51", "none", r"no such model. Nearest: .*resnet51q"),
        ("no_such_package:make", None, "No module named 'no_such_package'"),
        ("my_factory:mkae", None, r"my_factory\.py has no such function. Nearest: make"),
        ("math:make", None, "math:make': .*math.* has no such function"),
        ("my_factory:number", None, "has no such function"),
        ("my_factory:wrong", None, "returned int, not a torch.nn.Module"),
        ("my_factory:fails", None, r"cannot be built \(ZeroDivisionError"),
        ("broken_factory:make", None, r"broken_factory cannot be imported \(RuntimeError: my own\)\.$"),
        ("my_factory:make", "missing.pt", "missing.pt': no such file"),
        ("my_factory:make", "my_factory.py", "not a checkpoint"),
        ("my_factory:make", "list.pt", r"has no tensors; it holds list of \[int\]\.$"),
        ("my_factory:make", "other.pt", r"does not fit the model: the file has 1 tensor \(other\)"),
    ],
)
@pytest.mark.usefixtures("factory")
def test_models_that_cannot_be_had(name, weights, message, tmp_path):
    torch.save([1], tmp_path / "list.pt")
    (tmp_path / "broken_factory.py").write_text("raise RuntimeError('my own')")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_classifier(name, weights)


@pytest.mark.parametrize("of_the_user", [[], [""]])
def test_the_current_folder_is_on_the_path_for_a_factory_alone_and_last(of_the_user, tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(
        "import sys\nduring = [list(sys.path)]\n"
        "def make():\n    import my_part\n    during.append(list(sys.path))\n    return my_part.net()\n"
        "def fails():\n    import no_such_part\n"
    )
    (tmp_path / "my_part.py").write_text("import colorsys, torch\nnet = torch.nn.Identity\n")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('it hides what is installed')\n")
    (tmp_path / "broken_net.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    before = [entry for entry in sys.path if entry not in ("", str(tmp_path))] + of_the_user
    monkeypatch.setattr(sys, "path", list(before))
    modules = ("my_net", "my_part", "colorsys")
    for module in modules:
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert isinstance(load_classifier("my_net:make").model, nn.Identity)
    assert sys.modules["my_net"].during == [[*before, ""], [*before, ""]]
    assert sys.path == before
    for name in ("my_net:fails", "my_net:mkae", "broken_net:make", "no_net:make"):
        with pytest.raises(ValueError, match="model="):
            load_classifier(name)
        assert sys.path == before
    for module in modules:
        sys.modules.pop(module, None)


def test_broken_torchvision_is_a_clear_error(monkeypatch):
    class Broken(types.ModuleType):
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision.models":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(sys, "meta_path", [Broken("broken"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torchvision.models")
    with pytest.raises(ValueError, match="Install a torchvision that matches torch"):
        load_classifier("torchvision:resnet18", "none")
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r'pip install "captum_regioncam\[demo\]"'):
        load_classifier()


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_weights_that_cannot_be_downloaded(name, monkeypatch):
    def offline(*arguments, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    monkeypatch.setattr(timm, "create_model", offline)
    reason = f"{name!r}: cannot be built (URLError: <urlopen error Name or service not known>)."
    with pytest.raises(ArgumentError) as error:
        Classifier.load(name)
    assert str(error.value) == (f"model={reason} If its weights cannot be downloaded here, pass weights='FILE'.")
    assert as_options(error.value).endswith("pass --weights FILE.")
    with pytest.raises(ArgumentError) as error:  # nothing is downloaded
        Classifier.load(name, "none")
    assert str(error.value) == f"model={reason}"
