"""Broken photos, XML, JSON, seeds and options: the command line ends with a message, never with a traceback."""

import json
import os
from pathlib import Path

import pytest
from commands import MODEL, SMALL, VOC_MODEL, run
from made_datasets import everything, make_coco, make_folder, make_ilsvrc, make_voc

from captum_regioncam.evaluation.runs.record import RECORD

pytestmark = pytest.mark.usefixtures("colour_factory")
NETWORK = [*MODEL, "--size", "32"]


def broken(content, chance):
    """Break a file's content in one of many ways."""
    content = bytearray(content)
    way = chance.randrange(7)
    if way == 0:
        return bytes(content[: chance.randrange(len(content) + 1)])
    if way == 1:
        for _ in range(chance.randint(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        return bytes(content)
    if way == 2:
        start = chance.randrange(len(content))
        return bytes(content[:start]) + chance.randbytes(chance.randint(1, 40)) + bytes(content[start:])
    if way == 3:
        return chance.randbytes(chance.randrange(200))
    if way == 4:
        start = chance.randrange(len(content))
        return bytes(content[:start] + content[start + chance.randint(1, 50) :])
    if way == 5:
        return b""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(out) (w) file\n"


def ends_with_a_message(capsys, arguments, statuses=(0, 1, 2)):
    status = run(*arguments)
    out, err = capsys.readouterr()
    assert status in statuses, (arguments, err)
    assert "Traceback" not in out + err
    return err


@pytest.mark.slow
def test_150_photos(chance, capsys):
    make_folder(Path("data"), photos=4)
    whole = [path.read_bytes() for path in sorted(Path("data/images").iterdir())]
    whole += [path.read_bytes() for path in sorted(Path("data/masks").iterdir())]
    Path("photos").mkdir()
    for number in range(150):
        ending = chance.choice(["jpg", "png", "tif", "bmp", "webp"])
        Path(f"photos/{number:03d}.{ending}").write_bytes(broken(chance.choice(whole), chance))
    Path("photos/folder.png").mkdir()
    Path("photos/loop.png").symlink_to("loop.png")
    before = everything("photos")
    err = ends_with_a_message(capsys, ["explain", "photos", "x" * 300 + ".png", *NETWORK, "--output", "maps"])
    assert " photos failed:" in err
    assert everything("photos") == before


def test_100_annotations_in_xml_and_in_lists(chance, capsys):
    names = [f"photo_{number:03d}" for number in range(60)]
    home = make_voc(Path("voc"), names)
    for name in names:
        for path in (home / "Annotations" / f"{name}.xml", home / "SegmentationClass" / f"{name}.png"):
            if chance.random() < 0.6:
                path.write_bytes(broken(path.read_bytes(), chance))
    ends_with_a_message(capsys, ["evaluate", "voc", "--root", home, *VOC_MODEL, *SMALL])
    root = make_ilsvrc(Path("ilsvrc"), photos=20)
    for path in (root / "bbox" / "val").iterdir():
        path.write_bytes(broken(path.read_bytes(), chance))
    ends_with_a_message(capsys, ["evaluate", "ilsvrc", "--root", root, *NETWORK])
    names_of = home / "ImageSets" / "Segmentation" / "train.txt"
    whole = names_of.read_bytes()
    for number in range(10):
        names_of.write_bytes(broken(whole, chance))
        command = ["seeds", "voc", "--root", home, *VOC_MODEL, *SMALL, "--limit", "2", "--output", f"seeds-{number}"]
        ends_with_a_message(capsys, command)


@pytest.mark.slow
def test_100_files_of_json(chance, capsys):
    root, coco = make_folder(Path("data")), make_coco(Path("coco"))
    files = {
        root / "index.json": ["evaluate", "folder", "--root", root, *NETWORK, "--limit", "1"],
        coco / "annotations/instances_val2014.json": [
            "evaluate",
            "coco",
            "--root",
            coco,
            *MODEL,
            *SMALL,
            "--limit",
            "1",
        ],
    }
    odd = [None, True, -1, 1e400, "x", [], {}, [[]], "\0", 2**70]
    for path, command in files.items():
        whole = path.read_bytes()
        for number in range(40):
            if number % 2:
                path.write_bytes(broken(whole, chance))
            else:  # another type in one place
                content = json.loads(whole)
                part, where = content, []
                while isinstance(part, (dict, list)) and part and (not where or chance.random() < 0.8):
                    where.append((part, chance.choice(list(part) if isinstance(part, dict) else range(len(part)))))
                    part = part[where[-1][1]]
                where[-1][0][where[-1][1]] = chance.choice(odd)
                path.write_text(json.dumps(content))
            ends_with_a_message(capsys, command)
    assert run("seeds", "folder", "--root", make_folder(Path("other")), *NETWORK, "--output", "seeds") == 0
    whole = Path("seeds", RECORD).read_bytes()
    for _ in range(20):
        Path("seeds", RECORD).write_bytes(broken(whole, chance))
        before = everything("seeds")
        ends_with_a_message(capsys, ["labels", "seeds", "--output", "labels", "--limit", "1"])
        ends_with_a_message(capsys, ["seeds", "folder", "--root", "other", *NETWORK, "--output", "seeds"], [2])
        assert everything("seeds") == before


def test_100_seeds(chance, capsys):
    root = make_folder(Path("data"))
    for format in ("irn", "psa", "clip-es", "wsol"):
        assert run("seeds", "folder", "--root", root, *NETWORK, "--format", format, "--output", format) == 0
    Path("broken").mkdir()
    for number in range(100):
        format = chance.choice(["irn", "psa", "clip-es", "wsol"])
        whole = Path(format, f"photo_{chance.randrange(4)}.npy").read_bytes()
        # The first is whole: a run ends where its first ten all fail.
        Path("broken", f"{number:03d}.npy").write_bytes(broken(whole, chance) if number else whole)
    os.mkfifo("broken/fifo.npy")
    err = ends_with_a_message(capsys, ["labels", "broken", "--output", "labels"])
    assert " seeds failed:" in err


@pytest.mark.slow
def test_100_options(chance, capsys):
    make_folder(Path("data"))
    words = [
        *[
            "folder",
            "voc",
            "--root",
            "data",
            "--output",
            "out",
            "--model",
            "colour_factory:colour_net",
            "--size",
            "32",
            "--threshold",
            "best",
        ],
        *[
            "--scales",
            "1,x",
            "--json",
            "-",
            "--",
            "--limit",
            "0",
            "--layers",
            "relu1",
            "--resume",
            "--target",
            "1e9",
            "99999999999999999999",
        ],
        *[
            "--contrast",
            "nan",
            "--mean",
            "1,2,3",
            "--device",
            "mps:9",
            "--seeds",
            "/dev/null",
            "data/images/photo_0.jpg",
            "--resize",
            "keep",
        ],
        *["--weights", "data/index.json", "--weights", "none", "--crf", "irn"],
        *("", "\0", "\x1b[1m", "é" * 300),
    ]
    commands = ["explain", "seeds", "labels", "evaluate", "classes", "layers"]
    before = everything("data")
    for _ in range(100):
        ends_with_a_message(capsys, [chance.choice(commands), *chance.choices(words, k=chance.randint(0, 8))])
    now = everything("data")
    assert all(now[name] == found for name, found in before.items() if found[0] is not None)
