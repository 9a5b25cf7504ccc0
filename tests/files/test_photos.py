import ast
import contextlib
import subprocess
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import captum_regioncam
from captum_regioncam.evaluation.datasets.reading import read_labels
from captum_regioncam.files.photos import is_whole_image, read_image, read_photo


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


def test_a_photo_with_too_many_pixels_is_not_decoded(tmp_path):
    Image.new("RGB", (8, 4)).save(tmp_path / "photo.png")
    assert read_photo(tmp_path / "photo.png", most_pixels=32).size == (8, 4)
    with (
        mock.patch.object(Image.Image, "load", side_effect=AssertionError),
        pytest.raises(ValueError, match=r"photo\.png: cannot be read \(it has 8 x 4 pixels; at most 31 are allowed\)"),
    ):
        read_photo(tmp_path / "photo.png", most_pixels=31)


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


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(was_here) (w) file closefile
showpage
"""


def test_a_photo_that_is_postscript_starts_no_program(tmp_path, monkeypatch):
    """Pillow would hand it to Ghostscript, which runs what it says: here, a stand-in that leaves a mark."""
    ghostscript, path = tmp_path / "bin" / "gs", tmp_path / "photo.jpg"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/was_here\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    popen = mock.Mock(side_effect=subprocess.Popen)
    monkeypatch.setattr(subprocess, "Popen", popen)
    path.write_bytes(EPS)
    for reader in (read_photo, read_image, lambda path: read_labels(path, 20)):
        with pytest.raises(ValueError, match=r"photo.jpg: not an image that can be read \(JPEG, PNG, BMP, TIFF, WEBP"):
            reader(path)
    assert not is_whole_image(path)
    assert not popen.called
    assert not (tmp_path / "was_here").exists()
    # And that is what Pillow does without the names of formats. The stand-in makes no picture.
    with contextlib.suppress(OSError), Image.open(path) as image:
        image.load()
    assert popen.called
    assert (tmp_path / "was_here").exists()


def test_every_image_is_opened_with_the_names_of_formats():
    """A file is what its first bytes say, whatever its ending: PostScript, for which Pillow starts a program."""
    opened = []
    for path in Path(captum_regioncam.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
                assert "open" not in {alias.name for alias in node.names}, path
            if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("Image.open"):
                opened.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
                assert "formats" in {keyword.arg for keyword in node.keywords}, f"{path.name}:{node.lineno}"
    # In photos.py, where the formats are named, and in sheet.py, whose pictures the package itself has encoded.
    assert sorted(one.partition(":")[0] for one in opened) == ["photos.py", "sheet.py"]


@pytest.mark.parametrize("format", ["JPEG", "MPO", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_reads_the_first_picture_of_every_format(tmp_path, format):
    red, blue = (Image.new("RGB", (8, 4), colour) for colour in ("red", "blue"))
    several = {"save_all": True, "append_images": [blue]} if format in ("MPO", "TIFF", "WEBP", "GIF") else {}
    red.save(tmp_path / "photo.jpg", format=format, **several)
    photo = read_photo(tmp_path / "photo.jpg")
    assert (photo.mode, photo.size) == ("RGB", (8, 4))
    assert np.abs(np.asarray(photo).astype(int) - (255, 0, 0)).max() < 8
    assert is_whole_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize("format", ["PPM", "TGA", "ICO", "JPEG2000", "PCX", "SGI", "PDF"])
def test_other_formats_are_refused(tmp_path, format):
    Image.new("RGB", (8, 4), "red").save(tmp_path / "photo.jpg", format=format)
    with pytest.raises(ValueError, match=r"photo.jpg: not an image that can be read"):
        read_photo(tmp_path / "photo.jpg")


def test_what_a_decoder_raises_names_the_file(tmp_path, monkeypatch):
    Image.new("RGB", (8, 4)).save(tmp_path / "photo.png")
    for error, reason in ((MemoryError(), "MemoryError"), (UserWarning("odd tags"), "odd tags"), (KeyError(3), "3")):
        monkeypatch.setattr(Image.Image, "convert", mock.Mock(side_effect=error))
        with pytest.raises(ValueError, match=rf"photo.png: cannot be read \({reason}\)"):
            read_photo(tmp_path / "photo.png")
        with pytest.raises(ValueError, match=rf"photo.png: cannot be read \({reason}\)"):
            read_image(tmp_path / "photo.png", "L")


def test_too_many_pixels_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("RGB", (10, 21)).save(tmp_path / "photo.png")
    with pytest.raises(
        ValueError, match=r"photo.png: cannot be read \(Image size \(210 pixels\) exceeds limit of 200 pixels"
    ):
        read_photo(tmp_path / "photo.png")
    Image.new("RGB", (10, 15)).save(tmp_path / "photo.png")  # Pillow warns: an error in these tests
    with pytest.raises(ValueError, match=r"photo.png: cannot be read \(Image size \(150 pixels\) exceeds limit of 100"):
        read_photo(tmp_path / "photo.png")
