"""What may be read: regular files, and nothing that could block, run or fill the memory."""

import contextlib
import json
import os
import stat
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from made_datasets import NAMES, make_coco, make_folder, make_ilsvrc, make_voc
from PIL import Image

from captum_regioncam.evaluation import Coco, Ilsvrc2012, PhotoFolder, Voc2012, load_seed
from captum_regioncam.evaluation.datasets.reading import read_labels, read_xml
from captum_regioncam.files.inputs import open_file, read_bytes, read_json, read_text
from captum_regioncam.files.photos import is_whole_image, read_image, read_photo

READERS = [open_file, read_bytes, read_text, read_json, read_photo, read_image, read_xml, load_seed]


@pytest.fixture
def odd(tmp_path):
    """Paths that are no regular file, by what is wrong with them."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "to_fifo").symlink_to(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    return {
        "it is a FIFO, not a regular file": tmp_path / "fifo",
        "it is a FIFO, not a regular file ": tmp_path / "to_fifo",
        "it is a socket, not a regular file": tmp_path / "socket",
        "it is a directory, not a regular file": tmp_path / "folder",
        "it is a character device, not a regular file": Path("/dev/zero"),
        "Too many levels of symbolic links": tmp_path / "loop",
        "No such file or directory": tmp_path / "dangling",
        "File name too long": tmp_path / ("ü" * 128),  # 256 bytes
        "embedded null": Path(f"{tmp_path}/nul\0.jpg"),
        "surrogates not allowed": Path(f"{tmp_path}/\ud800.jpg"),
    }


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_only_regular_files_are_read(odd, reader):
    for reason, path in odd.items():
        with pytest.raises(ValueError, match="cannot be read") as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}: cannot be read ("), caught.value
        assert reason.strip() in str(caught.value)
        assert not is_whole_image(path)


def test_links_to_files_are_read(tmp_path):
    (tmp_path / "text.txt").write_text("content")
    (tmp_path / "link").symlink_to("text.txt")
    assert read_text(tmp_path / "link") == "content"


def test_a_fifo_is_never_opened(tmp_path, monkeypatch):
    """Its writer would be woken, and killed by a broken pipe."""
    os.mkfifo(tmp_path / "fifo")
    opened = mock.Mock(side_effect=os.open)
    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(ValueError, match="it is a FIFO"):
        open_file(tmp_path / "fifo")
    assert not opened.called


def test_a_file_that_becomes_a_fifo_does_not_block(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    before, opened = os.stat(tmp_path / "file"), []
    monkeypatch.setattr(os, "stat", lambda path: before)
    really = os.open
    monkeypatch.setattr(os, "open", lambda *arguments: opened.append(really(*arguments)) or opened[-1])
    with pytest.raises(ValueError, match="it is a FIFO, not a regular file"):
        open_file(tmp_path / "fifo")
    with pytest.raises(OSError, match="Bad file descriptor"):  # it is closed again
        os.fstat(opened[0])


@contextlib.contextmanager
def ordinary_user():
    """Root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_folder():
    """A folder that every user reaches, other than those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_files_without_permission(open_folder):
    path = open_folder / "secret"
    path.write_text("{}")
    path.chmod(0)
    with ordinary_user(), pytest.raises(ValueError, match=r"secret: cannot be read \(Permission denied\)"):
        read_json(path)


def test_a_file_s_size_is_bounded(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * (1 << 20))
    assert len(read_bytes(path, 1 << 20)) == 1 << 20
    os.truncate(path, (1 << 20) + 1)
    with pytest.raises(ValueError, match=r"file: is larger than 1 MB, the most that is read of such a file\.$"):
        read_bytes(path, 1 << 20)
    os.truncate(path, 1 << 40)  # of which nothing is on disk
    for reader in (read_bytes, read_text, read_json, read_xml, load_seed):
        with pytest.raises(ValueError, match=r"file: is larger than \d+ MB"):
            reader(path)
    with pytest.raises(ValueError, match=r"is larger than 512 MB, .* Pass a higher max_bytes\.$"):
        load_seed(path)


def test_text_is_utf_8(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffcafé\r\n".encode())
    assert read_text(path) == "café\r\n"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"names.txt: is not text in UTF-8 \(unexpected end of data at byte 3\)"):
        read_text(path)
    path.write_bytes("café".encode("utf-16"))
    with pytest.raises(ValueError, match=r"names.txt: is not text in UTF-8 \(invalid start byte at byte 0\)"):
        read_text(path)


def test_json_that_is_none(tmp_path):
    path = tmp_path / "index.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    for content, reason in (
        ("[" * 100_000, "it is nested too deeply"),
        ("9" * 5_000, "Exceeds the limit"),
        ("[1,", "Expecting value"),
        ("", "Expecting value"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"index.json: cannot be read \({reason}"):
            read_json(path)


def read_all(dataset):
    """Return the names of the samples that can be read, and the errors of the others."""
    good, errors = [], {}
    for index, name in enumerate(dataset.names):
        try:
            good.append(dataset[index].name)
        except ValueError as error:
            errors[name] = str(error)
    return good, errors


def test_one_bad_entry_of_voc_costs_only_itself(tmp_path):
    home = make_voc(tmp_path)
    replaced = {
        home / "JPEGImages" / f"{NAMES[0]}.jpg": "fifo",
        home / "SegmentationClass" / f"{NAMES[1]}.png": "fifo",
        home / "Annotations" / f"{NAMES[2]}.xml": "fifo",
        home / "JPEGImages" / f"{NAMES[3]}.jpg": "loop",
        home / "Annotations" / f"{NAMES[4]}.xml": "folder",
    }
    for path, kind in replaced.items():
        path.unlink()
        {"fifo": os.mkfifo, "folder": os.mkdir, "loop": lambda path: os.symlink(path, path)}[kind](path)
    with open(home / "ImageSets/Segmentation/train.txt", "a") as file:
        file.write("x" * 300 + "\n")
    good, errors = read_all(Voc2012(tmp_path))
    assert good == NAMES[5:]
    for path, (name, error) in zip(replaced, list(errors.items())[:5], strict=True):
        assert name == path.stem
        assert error.startswith(f"{path}: cannot be read (")
    assert "File name too long" in errors["x" * 300]


def test_one_bad_entry_of_a_folder_costs_only_itself(open_folder):
    root = make_folder(open_folder / "photos")
    entries = json.loads((root / "index.json").read_text())
    for name in ("x" * 300, "secret/photo", "loop/photo", "half \ud800"):
        entries.append({"name": name, "target": 0})
    (root / "index.json").write_text(json.dumps(entries))
    (root / "images" / "photo_0.jpg").unlink()
    os.mkfifo(root / "images" / "photo_0.jpg")
    (root / "masks" / "photo_1.png").unlink()
    (root / "masks" / "photo_1.png").symlink_to("photo_1.png")
    (root / "images" / "secret").mkdir(mode=0)
    (root / "images" / "loop").symlink_to("loop")
    with ordinary_user():
        good, errors = read_all(PhotoFolder(root))
    assert good == ["photo_2", "photo_3"]
    assert "photo_0.jpg: cannot be read (it is a FIFO" in errors["photo_0"]
    assert "photo_1.png: cannot be read (Too many levels of symbolic links)" in errors["photo_1"]
    for name in ("x" * 300, "secret/photo", "loop/photo", "half \ud800"):
        assert f"images: has no photo {name}, which index.json lists" in errors[name]


def test_one_bad_entry_of_ilsvrc_costs_only_itself(open_folder):
    root = make_ilsvrc(open_folder / "ilsvrc")
    photos = root / "ILSVRC2012_img_val"
    for index, photo in enumerate(sorted(photos.iterdir())):  # into folders of classes
        (photos / f"n0{index}").mkdir()
        photo.rename(photos / f"n0{index}" / photo.name)
    (photos / "n00").chmod(0)
    (photos / "n05").symlink_to("n05")
    (photos / "n01" / "._ILSVRC2012_val_00000002.JPEG").write_bytes(b"")  # macOS leaves such files
    box = root / "bbox/val/ILSVRC2012_val_00000003.xml"
    box.unlink()
    os.mkfifo(box)
    with ordinary_user():
        good, errors = read_all(Ilsvrc2012(root))
    assert good == ["ILSVRC2012_val_00000002", "ILSVRC2012_val_00000004"]
    assert errors == {"ILSVRC2012_val_00000003": f"{box}: cannot be read (it is a FIFO, not a regular file)."}


def test_roots_that_cannot_be_read(open_folder):
    secret = open_folder / "secret"
    secret.mkdir(mode=0)
    (open_folder / "loop").symlink_to("loop")
    roots = {
        secret: "Permission denied",
        open_folder / "loop": "Too many levels of symbolic links",
        open_folder / ("x" * 300): "File name too long",
        Path(f"{open_folder}/a\0b"): "embedded null",
    }
    for root, reason in roots.items():
        for dataset in (Voc2012, Coco, Ilsvrc2012, PhotoFolder):
            with ordinary_user(), pytest.raises(ValueError, match="cannot be read") as caught:
                dataset(root)
            assert str(caught.value).startswith(f"{root}: cannot be read ({reason}")


def test_lists_that_are_no_files(tmp_path):
    home, folder, coco = make_voc(tmp_path / "voc"), make_folder(tmp_path / "folder"), make_coco(tmp_path / "coco")
    ilsvrc = make_ilsvrc(tmp_path / "ilsvrc")
    for path, dataset in (
        (home / "ImageSets/Segmentation/train.txt", lambda: Voc2012(home)),
        (folder / "index.json", lambda: PhotoFolder(folder)),
        (coco / "annotations/instances_val2014.json", lambda: Coco(coco)),
        (ilsvrc / "synset_words.txt", lambda: Ilsvrc2012(ilsvrc)),
    ):
        content = path.read_bytes()
        path.write_bytes(b"\xff\xfe" + content)
        with pytest.raises(ValueError, match=rf"{path.name}: is not text in UTF-8"):
            dataset()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(ValueError, match=rf"{path.name}: cannot be read \(it is a FIFO, not a regular file\)"):
            dataset()


def test_byte_order_marks_lose_nothing(tmp_path):
    """Nor do the line ends of Windows, and blanks at the end of a line."""
    home, folder, coco = make_voc(tmp_path / "voc"), make_folder(tmp_path / "folder"), make_coco(tmp_path / "coco")
    ilsvrc = make_ilsvrc(tmp_path / "ilsvrc")
    expected = [read_all(dataset) for dataset in (Voc2012(home), PhotoFolder(folder), Coco(coco), Ilsvrc2012(ilsvrc))]
    for path in (
        home / "ImageSets/Segmentation/train.txt",
        home / "Annotations" / f"{NAMES[0]}.xml",
        folder / "index.json",
        coco / "annotations/instances_val2014.json",
        ilsvrc / "synset_words.txt",
    ):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \t\r\n"))
    again = [read_all(dataset) for dataset in (Voc2012(home), PhotoFolder(folder), Coco(coco), Ilsvrc2012(ilsvrc))]
    assert again == expected
    assert again[0] == (NAMES, {})
    assert Ilsvrc2012(ilsvrc).classes == ["n01", "n02", "n03"]


def test_masks_are_read_as_they_are(tmp_path):
    labels = np.array([[0, 20], [255, 3]], np.uint8)
    image = Image.fromarray(labels)
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "mask.png")
    assert stat.S_ISREG(os.stat(tmp_path / "mask.png").st_mode)
    assert np.array_equal(read_labels(tmp_path / "mask.png", 20), labels)
    assert is_whole_image(tmp_path / "mask.png")
    whole = (tmp_path / "mask.png").read_bytes()
    (tmp_path / "mask.png").write_bytes(whole[:-30])
    assert not is_whole_image(tmp_path / "mask.png")
