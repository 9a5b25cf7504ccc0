"""Files that are broken at random: what comes of each is a value, or a ValueError that names a file."""

import copy
import json
import pickle
import random
import secrets

import numpy as np
import pytest
import torch
from made_datasets import NAMES, make_coco, make_folder, make_ilsvrc, make_voc
from PIL import Image

from captum_regioncam.evaluation import Coco, Ilsvrc2012, PhotoFolder, Seed, Voc2012, load_seed, save_seed
from captum_regioncam.evaluation.seeds import FORMATS
from captum_regioncam.files.photos import is_whole_image, read_photo

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of odd tags: errors in the other tests

ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    2**31,
    10**30,
    float("nan"),
    float("inf"),
    -1e9,
    "",
    "\0",
    "\ud800",
    "x" * 300,
    "../x",
    [],
    {},
    [[]],
]


def broken_bytes(content, choose):
    """Flip, cut, insert or repeat bytes."""
    content = bytearray(content)
    for _ in range(choose.choice([1, 1, 2, 10])):
        place = choose.randrange(len(content) + 1)
        match choose.randrange(4):
            case 0:
                content[place : place + 1] = bytes([choose.randrange(256)])
            case 1:
                del content[place : place + choose.choice([1, 4, 100, len(content)])]
            case 2:
                content[place:place] = choose.randbytes(choose.choice([1, 4, 100]))
            case 3:
                content[place : place + 4] = choose.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"])
    return bytes(content)


def broken_json(content, choose):
    """Replace parts by values of other types, or remove them."""
    content = copy.deepcopy(content)
    for _ in range(choose.choice([1, 1, 3])):
        part = content
        while isinstance(part, (list, dict)) and part:
            key = choose.choice(list(part)) if isinstance(part, dict) else choose.randrange(len(part))
            if not isinstance(part[key], (list, dict)) or choose.random() < 0.2:
                if choose.random() < 0.2:
                    del part[key]
                else:
                    part[key] = choose.choice(ODD)
                break
            part = part[key]
    return json.dumps(content).encode()


def photos(folder):
    """Yield (file, how it is read) of photos in every format."""
    image = Image.effect_noise((24, 16), 60)
    for format, mode in {
        "JPEG": "RGB",
        "MPO": "RGB",
        "PNG": "P",
        "BMP": "RGB",
        "TIFF": "RGBA",
        "WEBP": "RGB",
        "GIF": "L",
    }.items():
        exif = Image.Exif()
        exif[0x0112] = 6
        path = folder / f"{format}.jpg"
        options = {} if format in ("BMP", "GIF") else {"exif": exif}
        image.convert(mode).save(path, format=format, **options)
        yield path, lambda path=path: (is_whole_image(path), read_photo(path))
    image.save(folder / "lzw.tif", compression="tiff_lzw")
    yield folder / "lzw.tif", lambda: read_photo(folder / "lzw.tif")
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(folder / "deep.png")
    yield folder / "deep.png", lambda: read_photo(folder / "deep.png")


def seeds(folder):
    generator = np.random.default_rng(0)
    seed = Seed(torch.tensor([3]), torch.rand(1, 2, 3), generator.random((1, 8, 12), np.float32))
    for format in FORMATS:
        save_seed(folder / f"{format}.npy", seed, format)
    content = {"keys": seed.keys, "cam": seed.cam, "high_res": seed.high_res}
    for protocol in range(2, 6):
        with open(folder / f"protocol {protocol}.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
            pickle.dump(np.array(content), file, protocol=protocol)
    for path in sorted(folder.glob("*.npy")):
        yield path, lambda path=path: load_seed(path)


def annotations(root):
    """Yield (file, how it is read) of lists, XML, JSON and masks."""
    home, folder = make_voc(root / "voc"), make_folder(root / "folder")
    coco, ilsvrc = make_coco(root / "coco"), make_ilsvrc(root / "ilsvrc")
    yield home / "ImageSets/Segmentation/train.txt", lambda: list(Voc2012(home))
    yield home / "Annotations" / f"{NAMES[0]}.xml", lambda: Voc2012(home)[0]
    yield home / "SegmentationClass" / f"{NAMES[0]}.png", lambda: Voc2012(home)[0]
    yield home / "SegmentationClass" / f"{NAMES[0]}.png", lambda: Voc2012(home, labels_from="mask")[0]
    yield ilsvrc / "synset_words.txt", lambda: list(Ilsvrc2012(ilsvrc))
    yield ilsvrc / "bbox/val/ILSVRC2012_val_00000001.xml", lambda: Ilsvrc2012(ilsvrc)[0]
    yield folder / "masks/photo_0.png", lambda: PhotoFolder(folder)[0]
    for _ in range(3):  # they have more parts
        yield folder / "index.json", lambda: list(PhotoFolder(folder))
        yield coco / "annotations/instances_val2014.json", lambda: list(Coco(coco))
        yield coco / "annotations/instances_val2014.json", lambda: list(Coco(coco, ground_truth=False))


@pytest.mark.parametrize(("made", "count"), [(photos, 300), (seeds, 500), (annotations, 500)])
def test_what_comes_of_broken_files_is_a_value_or_an_error_that_names_one(tmp_path, made, count):
    number = secrets.randbits(32)
    print(f"seed: {number}")
    choose, values = random.Random(number), 0
    files = list(made(tmp_path))
    for _, read in files:
        read()
    for _ in range(count):
        path, read = choose.choice(files)
        whole = path.read_bytes()
        if path.suffix == ".json" and choose.random() < 0.7:
            content = broken_json(json.loads(whole), choose)
        else:
            content = broken_bytes(whole, choose)
        path.write_bytes(content)
        try:
            read()
            values += 1
        except Exception as error:
            if not isinstance(error, ValueError) or str(tmp_path) not in str(error):
                raise AssertionError(path, content) from error
        path.write_bytes(whole)
    assert count / 50 < values < count * 4 / 5
