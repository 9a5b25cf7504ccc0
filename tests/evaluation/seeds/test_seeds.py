import importlib
import io
import os
import pickle
import pickletools
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from captum_regioncam.cli.parser import build_parser
from captum_regioncam.evaluation import Seed, label_map, load_seed, save_seed, seeds
from captum_regioncam.evaluation.score_maps import score_map
from captum_regioncam.evaluation.seeds import FORMATS
from captum_regioncam.evaluation.seeds.npy import decode_npy, encode_npy
from captum_regioncam.evaluation.seeds.seed import Parts


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
        (
            np.zeros(3),
            r"holds an array of float64 of shape \(3,\), which is in none of the formats irn, psa",
        ),
        (np.array(None), "holds a NoneType, which is in none of the formats"),
        (np.array([{}, {}]), "holds 2 objects, not a dict"),
        (np.array(["cat"]), "holds an array of <U3"),
        ({"keys": np.array(["cat"]), "cam": 0, "high_res": 0}, "holds an array of <U3"),
    ):
        np.save(path, content, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            load_seed(path)
    np.save(path, {"keys": np.zeros(1), "maps": np.zeros((1, 1, 1))}, allow_pickle=True)
    with pytest.raises(ValueError, match="holds a dict of 'keys', 'maps', which is in none of the formats irn, psa"):
        load_seed(path)
    np.save(path, {"cam": np.zeros((1, 1, 1)), "high_res": np.zeros((1, 2, 2))}, allow_pickle=True)
    with pytest.raises(ValueError, match="has no 'keys'"):
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


def whole(**parts):
    content = {"keys": np.array([1, 2]), "cam": np.zeros((2, 1, 1)), "high_res": np.zeros((2, 3, 4))} | parts
    return {name: value for name, value in content.items() if value is not None}


NOT_FINITE = "has values that are NaN or infinite"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (whole(keys=np.array([1, 65_536])), "has a key that is not a class from 0 to 65535"),
        (whole(keys=np.array([-1, 2])), "has a key that is not a class from 0 to 65535"),
        (whole(keys=np.array([1.5, 2])), "has a key that is not a class from 0 to 65535"),
        (whole(keys=[1, "2"]), "has a key that is not a class from 0 to 65535"),
        (whole(keys=np.array([1, np.nan])), "cannot convert float NaN to integer"),
        (whole(keys=np.array([2, 2])), "has a key twice"),
        (whole(keys=np.array([1, 2, 3])), r"has 3 keys for maps of shape \(2, 3, 4\)"),
        ({-1: np.zeros((3, 4))}, "has a key that is neither a name nor a class from 0 to 65535"),
        ({65_536: np.zeros((3, 4))}, "has a key that is neither a name nor a class from 0 to 65535"),
        ({(1, 2): np.zeros((3, 4))}, "has a key that is neither a name nor a class from 0 to 65535"),
        (whole(high_res=np.full((2, 3, 4), np.nan)), NOT_FINITE),
        (whole(high_res=np.full((2, 3, 4), np.inf)), NOT_FINITE),
        (whole(high_res=np.full((2, 3, 4), 1e300)), NOT_FINITE),  # as float32
        (whole(cam=np.full((2, 1, 1), -np.inf)), NOT_FINITE),
        (whole(cam=torch.full((2, 1, 1), torch.nan)), NOT_FINITE),
        (whole(cam=None, high_res=None, attn_highres=np.full((2, 3, 4), np.nan, np.float16)), NOT_FINITE),
        ({1: np.full((3, 4), np.nan)}, NOT_FINITE),
        (np.full((3, 4), np.nan), NOT_FINITE),
        (whole(cam=np.zeros((1, 1, 1))), r"has a cam of shape \(1, 1, 1\) for maps of shape \(2, 3, 4\)"),
        (whole(cam=np.zeros((2, 4, 1))), r"has a cam of shape \(2, 4, 1\) for maps of shape \(2, 3, 4\)"),
        (whole(cam=np.zeros((2, 0, 1))), r"has a cam of shape \(2, 0, 1\) for maps of shape \(2, 3, 4\)"),
        (whole(high_res=np.zeros((2, 0, 4))), r"has 2 keys for maps of shape \(2, 0, 4\)"),
        (whole(high_res=np.zeros((3, 4))), r"has an array of shape \(3, 4\) for maps"),
        (whole(high_res=[[[0.5]], [[0.5]]]), "has a list for maps"),
        ({1: np.zeros((3, 4)), 2: np.zeros((4, 3))}, "dimensions"),
        ({1: 0.5}, "has a float for maps"),
    ],
)
def test_values_that_no_seed_has(tmp_path, content, message):
    np.save(tmp_path / "photo.npy", content, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"photo.npy: not a whole seed file \(.*{message}"):
        load_seed(tmp_path / "photo.npy")


def test_sizes_are_bounded(tmp_path, seed):
    path = tmp_path / "photo.npy"
    save_seed(path, seed)
    size = path.stat().st_size
    assert load_seed(path, max_bytes=size).high_res.shape == (2, 9, 14)
    with pytest.raises(ValueError, match=r"photo.npy: is larger than .* MB, .* Pass a higher max_bytes"):
        load_seed(path, max_bytes=size - 1)
    # 4 bytes of memory for one of the file: more than max_bytes, or more than the file's size allows.
    np.save(path, {1: np.zeros((1000, 1000), bool)})
    assert load_seed(path).high_res.shape == (1, 1000, 1000)
    with pytest.raises(ValueError, match=r"makes 4,000,000 bytes of maps; its own size and max_bytes allow 2,000,000"):
        load_seed(path, max_bytes=2_000_000)
    np.save(path, {"keys": [1], "attn_highres": torch.zeros(1, 1).expand(1000, 1000)[None]})
    with pytest.raises(ValueError, match=r"makes 4,000,000 bytes of maps; its own size and max_bytes allow 1,0"):
        load_seed(path)
    # Without classes, the maps take nothing, but what is made of them would.
    np.save(path, {"keys": [], "cam": np.zeros((0, 1, 1)), "high_res": np.zeros((0, 3000, 4000))})
    assert load_seed(path).high_res.shape == (0, 3000, 4000)
    with pytest.raises(ValueError, match="is of a photo of 3000 x 4000 pixels; pass a higher max_bytes"):
        load_seed(path, max_bytes=47_999_999)


def test_parts_that_share_memory(tmp_path):
    """As pickles keep them: one array as two maps, and views of tensors."""
    maps = torch.rand(3, 4, 5)
    np.save(tmp_path / "photo.npy", {1: maps[0].numpy(), 2: maps[0].numpy()})
    shared = load_seed(tmp_path / "photo.npy")
    assert np.array_equal(shared.high_res, maps[[0, 0]])
    assert not np.shares_memory(shared.high_res[0], shared.high_res[1])
    content = {"keys": [1, 2], "cam": maps[1:, ::2, ::2], "high_res": maps.transpose(1, 2)[::2].half()}
    np.save(tmp_path / "photo.npy", content)
    viewed = load_seed(tmp_path / "photo.npy")
    assert torch.equal(viewed.cam, maps[1:, ::2, ::2])
    assert np.array_equal(viewed.high_res, maps.transpose(1, 2)[::2].half())
    viewed.high_res[:] = 0  # what is returned may be written to
    viewed.cam[:] = 0


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool],
)
def test_tensors_of_every_type(tmp_path, dtype):
    maps = (torch.rand(2, 3, 4) * 4).to(dtype)
    np.save(tmp_path / "photo.npy", {"keys": torch.tensor([1, 2]), "cam": maps, "high_res": maps})
    seed = load_seed(tmp_path / "photo.npy")
    assert torch.equal(seed.cam, maps.float())
    assert torch.equal(torch.from_numpy(seed.high_res), maps.float())


def test_a_seed_of_a_thousand_classes(tmp_path):
    maps = {key: np.full((7, 7), key, np.float32) for key in range(1000)}
    np.save(tmp_path / "photo.npy", maps)
    assert load_seed(tmp_path / "photo.npy").high_res[:, 0, 0].tolist() == list(range(1000))


@pytest.mark.parametrize(
    ("format", "options"),
    [*((format, {}) for format in FORMATS), ("irn", {"dtype": "float16"}), ("irn", {"high_res": False})],
)
def test_every_format_names_only_what_all_versions_of_numpy_have(tmp_path, seed, format, options):
    save_seed(tmp_path / "photo.npy", one_class(seed), format, **options)
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
    if format == "wsol":
        assert again.cam.shape == (1, 56, 56)
        np.testing.assert_array_equal(again.high_res[0], score_map(torch.from_numpy(seed.high_res[0])))
        save_seed(tmp_path / "photo.npy", again, format)  # what has the size stays as it is
        np.testing.assert_array_equal(load_seed(tmp_path / "photo.npy").high_res, again.high_res)
        return
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
assert cam.shape == (224, 224) and cam.dtype == np.float32 and cam.min() == 0 and cam.max() == 1
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


@pytest.mark.slow
def test_numpy_1_reads_every_format_as_its_pipelines_do(tmp_path, seed, numpy_1):
    script = (
        f"import numpy as np, torch\nassert np.__version__.startswith('1.')\ntotal = {float(seed.high_res.sum())}\n"
    )
    for format in FORMATS:
        path = tmp_path / f"{format}.npy"
        save_seed(path, one_class(seed) if format == "wsol" else seed, format)
        script += f"path = {str(path)!r}\n{READERS[format]}"
    (tmp_path / "readers.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(numpy_1)}
    done = subprocess.run([sys.executable, tmp_path / "readers.py"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_formats_that_cannot_be(tmp_path, seed):
    with pytest.raises(ValueError, match=r"format='npz': expects one of irn, psa, clip-es, wsol"):
        save_seed(tmp_path / "photo.npy", seed, "npz")
    with pytest.raises(ValueError, match="wsol holds one map per photo, not 2"):
        save_seed(tmp_path / "photo.npy", seed, "wsol")
    assert not list(tmp_path.iterdir())


def test_the_command_line_offers_every_format():
    assert list(FORMATS) == ["irn", "psa", "clip-es", "wsol"]
    for format in FORMATS:
        options = build_parser().parse_args(["seeds", "voc", "--root", "voc", "--output", "seeds", "--format", format])
        assert options.format == format


def test_the_list_of_formats_imports_neither_torch_nor_numpy():
    program = (
        "import sys, captum_regioncam.evaluation.seeds as seeds; assert len(seeds.FORMATS) == 4; "
        "print({'torch', 'numpy', *seeds.FORMATS.values()} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_a_file_is_in_one_format(tmp_path, seed):
    """Whatever a format packs, no other unpacks: their order does not matter."""
    seed = one_class(seed)
    modules = {format: importlib.import_module(name) for format, name in FORMATS.items()}
    for format, module in modules.items():
        content = decode_npy(encode_npy(module.pack(seed)))
        assert [name for name, other in modules.items() if other.unpack(content, None) is not None] == [format]


def test_a_file_with_the_maps_of_irn_and_of_clip_es_is_of_clip_es(tmp_path, seed):
    content = {"keys": seed.keys, "cam": seed.cam, "high_res": seed.high_res, "attn_highres": seed.high_res[:, ::-1]}
    np.save(tmp_path / "photo.npy", content)
    assert np.array_equal(load_seed(tmp_path / "photo.npy").high_res, seed.high_res[:, ::-1])


def test_a_format_of_ones_own(tmp_path, seed, monkeypatch):
    """As the package seeds says."""

    def unpack(content, keys):
        if isinstance(content, dict) and "heat" in content:
            return Parts(content["classes"], [content["heat"]])
        return None

    own = types.ModuleType("own_format")
    own.pack, own.unpack = lambda seed: {"classes": seed.keys, "heat": seed.high_res}, unpack
    monkeypatch.setitem(sys.modules, "own_format", own)
    monkeypatch.setitem(seeds.FORMATS, "own", "own_format")
    save_seed(tmp_path / "photo.npy", seed, "own")
    again = load_seed(tmp_path / "photo.npy")
    assert torch.equal(again.keys, seed.keys)
    assert np.array_equal(again.high_res, seed.high_res)
    # What a format unpacks is checked like the others'.
    np.save(tmp_path / "photo.npy", {"classes": [1], "heat": torch.zeros(1, 1).expand(1000, 1000)[None]})
    with pytest.raises(ValueError, match="makes 4,000,000 bytes of maps; its own size and max_bytes allow 1,0"):
        load_seed(tmp_path / "photo.npy")
