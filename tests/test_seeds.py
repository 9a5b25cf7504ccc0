import io
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
import torch

from captum_regioncam.cli import parser
from captum_regioncam.evaluation import Seed, label_map, load_seed, save_seed, seed_files

FORMATS = ["irn", "psa", "clip-es", "wsol"]


def one_class(seed):
    return Seed(seed.keys[:1], seed.cam[:1], seed.high_res[:1])


@pytest.fixture
def seed():
    return Seed(torch.tensor([2, 14]), torch.rand(2, 3, 4), np.random.default_rng(0).random((2, 9, 14), np.float32))


def test_readable_as_irn_reads_it(tmp_path, seed):
    save_seed(tmp_path / "photo.npy", seed)
    # What IRN's scripts do with the file.
    content = np.load(tmp_path / "photo.npy", allow_pickle=True).item()
    assert sorted(content) == ["cam", "high_res", "keys"]
    assert np.pad(content["keys"] + 1, (1, 0), mode="constant").tolist() == [0, 3, 15]
    assert isinstance(content["cam"], torch.Tensor)
    assert (content["cam"].dtype, content["cam"].device.type) == (torch.float32, "cpu")
    planes = np.pad(content["high_res"], ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=0.15)
    assert planes.shape == (3, 9, 14)


def test_round_trip(tmp_path, seed):
    save_seed(tmp_path / "sub" / "photo.npy", seed)
    again = load_seed(tmp_path / "sub" / "photo.npy")
    assert torch.equal(again.keys, seed.keys)
    assert torch.equal(again.cam, seed.cam)
    assert np.array_equal(again.high_res, seed.high_res)


def test_reads_a_seed_made_by_numpy_alone(tmp_path):
    content = {"keys": np.array([1]), "cam": np.ones((1, 1, 1), np.float32), "high_res": np.ones((1, 4, 4))}
    np.save(tmp_path / "photo.npy", content)
    assert load_seed(tmp_path / "photo.npy").keys.tolist() == [1]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("was_here",)


def test_a_seed_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("photo.npy", {"keys": Evil()}, allow_pickle=True)
    with pytest.raises(ValueError, match=r"photo.npy: not a whole seed file \(refers to \w+.mkdir"):
        load_seed("photo.npy")
    assert not os.path.exists("was_here")


def test_files_that_are_no_seed(tmp_path, seed):
    path = tmp_path / "photo.npy"
    with pytest.raises(ValueError, match=r"photo.npy: cannot be read \(No such file"):
        load_seed(path)
    save_seed(path, seed)
    whole = path.read_bytes()
    for length in (0, 5, 100, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole seed file"):
            load_seed(path)
    for content, message in (
        (np.zeros(3), "holds an array of float64, not a dict"),
        (np.array([{}, {}]), "holds 2 objects, not a dict"),
        (np.array(["cat"]), "holds an array of <U3"),
        ({"keys": np.array(["cat"]), "cam": 0, "high_res": 0}, "holds an array of <U3"),
    ):
        np.save(path, content, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            load_seed(path)
    np.save(path, {"keys": np.zeros(1), "cam": np.zeros((1, 1, 1))}, allow_pickle=True)
    with pytest.raises(ValueError, match="has no 'high_res'"):
        load_seed(path)
    np.save(path, {"keys": np.zeros(2), "cam": np.zeros((1, 1, 1)), "high_res": np.zeros((1, 2, 2))}, allow_pickle=True)
    with pytest.raises(ValueError, match="has 2 keys"):
        load_seed(path)


def test_shapes_that_do_not_go_together(tmp_path, seed):
    wrong = Seed(seed.keys, torch.rand(2, 2, 4), seed.high_res)
    with pytest.raises(ValueError, match=r"cam \(2, 2, 4\)"):
        save_seed(tmp_path / "photo.npy", wrong)
    assert not list(tmp_path.iterdir())


def test_photo_without_classes(tmp_path):
    nothing = Seed(torch.tensor([], dtype=torch.long), torch.zeros(0, 1, 1), np.zeros((0, 4, 4), np.float32))
    save_seed(tmp_path / "photo.npy", nothing)
    assert load_seed(tmp_path / "photo.npy").high_res.shape == (0, 4, 4)
    assert not label_map(nothing.high_res, nothing.keys).any()


def crafted(value):
    """A file whose pickle is of our own making."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    file.write(pickle.dumps(value))
    return file.getvalue()


class Crafted:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


STORAGE, *_ = torch.rand(4).__reduce_ex__(2)[1]
TENSOR = torch._utils._rebuild_tensor_v2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        # NumPy would read the eight bytes as the address of an object, and the process crash.
        (Crafted(np.ndarray, (1,), np.dtype(object), b"A" * 8), "holds an array of object"),
        (Crafted(np.ndarray, (4,), np.dtype("f4"), b"A" * 8), r"has 8 bytes for an array of shape \(4,\)"),
        (Crafted(np.ndarray, (-1, -2), np.dtype("f4"), b"A" * 8), r"has 8 bytes for an array of shape \(-1, -2\)"),
        (Crafted(np.ndarray, (2,)), "missing 2 required positional arguments"),
        (Crafted(TENSOR, [1.0], 0, (1,), (1,), False, {}), "holds a tensor over list"),
        (Crafted(TENSOR, STORAGE, 0, (1000,), (1,), False, {}), r"has 4 numbers for a tensor of shape \(1000,\)"),
        (Crafted(TENSOR, STORAGE, -1, (1,), (1,), False, {}), "has 4 numbers"),
        (Crafted(os.system, "exit 3"), r"refers to \w+.system, which no seed needs"),
        (Crafted(eval, "1"), "refers to builtins.eval"),
    ],
)
def test_crafted_seeds_are_refused(tmp_path, value, message):
    path = tmp_path / "photo.npy"
    path.write_bytes(crafted({"keys": np.zeros(1), "cam": value, "high_res": np.zeros((1, 2, 2))}))
    with pytest.raises(ValueError, match=message):
        load_seed(path)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_names_only_what_all_versions_of_numpy_have(tmp_path, seed, format):
    save_seed(tmp_path / "photo.npy", one_class(seed), format)
    with open(tmp_path / "photo.npy", "rb") as file:
        np.lib.format.read_magic(file)
        _, _, dtype = np.lib.format.read_array_header_1_0(file)
        if format == "wsol":
            assert dtype == np.float32  # no pickle at all
            return
        named = {argument for opcode, argument, _ in pickletools.genops(file) if "GLOBAL" in opcode.name}
    assert {"numpy array", "numpy ndarray"} <= named <= {"numpy array", "numpy ndarray", "torch from_numpy"}


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip_of_every_format(tmp_path, seed, format):
    seed = one_class(seed) if format == "wsol" else seed
    save_seed(tmp_path / "photo.npy", seed, format)
    again = load_seed(tmp_path / "photo.npy", keys=seed.keys.tolist())
    assert torch.equal(again.keys, seed.keys)
    assert again.cam.shape == seed.cam.shape
    np.testing.assert_allclose(again.high_res, seed.high_res, rtol=0, atol=1e-3 if format == "clip-es" else 0)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_seeds_of_the_pipelines_own(tmp_path, protocol):
    """Written as their scripts write them, by the NumPy that is installed, in any protocol."""
    maps = np.random.default_rng(0).random((2, 5, 6), np.float32)
    contents = {
        "irn": {"keys": torch.tensor([3, 7]), "cam": torch.rand(2, 2, 2), "high_res": maps},
        "psa": {np.int64(3): maps[0], 7: maps[1]},
        "psa, columns first": {3: np.asfortranarray(maps[0]), 7: maps[1]},
        "clip-es": {"keys": np.array([3, 7]), "attn_highres": maps.astype(np.float16)},
        "big-endian": {"keys": np.array([3, 7]), "cam": np.zeros((2, 2, 2)), "high_res": maps.astype(">f8")},
    }
    for content in contents.values():
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(np.array(content), file, protocol=protocol)
        (tmp_path / "photo.npy").write_bytes(file.getvalue())
        seed = load_seed(tmp_path / "photo.npy")
        assert seed.keys.tolist() == [3, 7]
        np.testing.assert_allclose(seed.high_res, maps, rtol=0, atol=1e-3)


# What the pipelines do with a file: PSA's and SEAM's evaluation.py, CLIP-ES's eval_cam.py, wsolevaluation.
READERS = {
    "irn": """
content = np.load(path, allow_pickle=True).item()
assert np.pad(content["keys"] + 1, (1, 0), mode="constant").tolist() == [0, 3, 15]
cam, high_res = content["cam"].to("cpu").clone(), content["high_res"]
assert cam.dtype == torch.float32 and cam.shape == (2, 3, 4), cam
high_res += 0  # may be written to
planes = np.pad(high_res, ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=0.15)
assert abs(planes[1:].sum() - total) < 1e-2
""",
    "psa": """
content = np.load(path, allow_pickle=True).item()
planes = np.zeros((21, 9, 14), np.float32)
for key in content.keys():
    planes[key + 1] = content[key]
assert planes[[3, 15]].any((1, 2)).all() and abs(planes.sum() - total) < 1e-2
""",
    "clip-es": """
content = np.load(path, allow_pickle=True).item()
assert np.pad(content["keys"] + 1, (1, 0), mode="constant").tolist() == [0, 3, 15]
assert content["attn_highres"].dtype == np.float16 and abs(content["attn_highres"].astype(float).sum() - total) < 1
""",
    "wsol": """
cam = np.load(path)
assert cam.shape == (9, 14) and cam.dtype == np.float32 and 0 <= cam.min() and cam.max() <= 1
""",
}


@pytest.fixture(scope="session")
def numpy_1(tmp_path_factory):
    """A folder with a NumPy of the pipelines' time, to go before the one that is installed."""
    folder = tmp_path_factory.mktemp("numpy-1")
    version = "numpy==1.23.5" if sys.version_info < (3, 12) else "numpy==1.26.4"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, version]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{version} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_numpy_1_reads_every_format_as_its_pipelines_do(tmp_path, seed, format, numpy_1):
    path = tmp_path / "photo.npy"
    save_seed(path, one_class(seed) if format == "wsol" else seed, format)
    head = "import numpy as np, torch\nassert np.__version__.startswith('1.')\n"
    script = f"{head}path, total = {str(path)!r}, {float(seed.high_res.sum())}\n{READERS[format]}"
    environment = {**os.environ, "PYTHONPATH": str(numpy_1)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_formats_that_cannot_be(tmp_path, seed):
    with pytest.raises(ValueError, match=r"format='npz': expects one of irn, psa, clip-es, wsol"):
        save_seed(tmp_path / "photo.npy", seed, "npz")
    with pytest.raises(ValueError, match="wsol holds one map per photo, not 2"):
        save_seed(tmp_path / "photo.npy", seed, "wsol")
    assert not list(tmp_path.iterdir())


def test_the_command_line_offers_every_format():
    assert list(parser.FORMATS) == list(seed_files.FORMATS) == FORMATS
