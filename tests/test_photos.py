import numpy as np
import pytest
from PIL import Image

from captum_regioncam.photos import read_photo


def test_reads_any_mode_as_upright_rgb(tmp_path):
    wide = Image.new("RGB", (8, 4), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    wide.save(tmp_path / "turned.jpg", exif=exif)
    wide.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.new("L", (8, 4), 7).save(tmp_path / "grey.png")
    assert read_photo(tmp_path / "turned.jpg").size == (4, 8)
    assert read_photo(tmp_path / "cmyk.jpg").mode == "RGB"
    assert np.asarray(read_photo(tmp_path / "grey.png")).tolist() == [[[7] * 3] * 8] * 4


def test_16_bits_are_scaled_and_transparency_is_white(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(read_photo(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 100, 255]
    clear = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert np.asarray(read_photo(tmp_path / "clear.png")).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="floating-point numbers of unknown range"):
        read_photo(tmp_path / "float.tif")
    Image.fromarray(np.array([[70_000]], np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match="70000 to 70000 are not 8-bit or 16-bit pixels"):
        read_photo(tmp_path / "wide.tif")


def test_says_what_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: cannot be read \(No such file"):
        read_photo(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.png: not an image"):
        read_photo(tmp_path / "text.png")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.png: cannot be read \("):
        read_photo(tmp_path / "half.png")
