"""Small files that ask for much: photos, annotations and seeds.

As a program, it writes each to a folder, reads it with 1.5 GB to spare, and prints what came of it as JSON.
"""

import _codecs
import io
import json
import os
import pickle
import resource
import struct
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
import torchvision_schemas  # noqa: F401

from captum_regioncam.evaluation import load_seed
from captum_regioncam.evaluation.datasets.reading import read_xml
from captum_regioncam.files.inputs import read_json
from captum_regioncam.files.photos import read_photo

warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # but tensors are pickled with it
SPARE = 3 << 29  # 1.5 GB
READERS = {".npy": load_seed, ".xml": read_xml, ".json": read_json, ".jpg": read_photo}  # the first may take the least
LOAD_STORAGE = torch.storage._load_from_bytes
FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]


class Call:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def npy(content, header=b"{'descr': '|O', 'fortran_order': False, 'shape': ()}"):
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + content


def seed(**parts):
    """A seed with parts of our own making."""
    whole = {"keys": np.zeros(1, int), "cam": np.zeros((1, 1, 1)), "high_res": np.zeros((1, 2, 2))}
    return npy(pickle.dumps(whole | parts))


def steps(*parts):
    """A seed of a pickle's steps."""
    return npy(b"\x80\x04" + b"".join(parts) + b".")


def storage(count=4, kind=b"FloatStorage"):
    """A tensor's four numbers, or what is said to be more."""
    file = io.BytesIO()
    torch.save(torch.zeros(4).storage(), file, _use_new_zipfile_serialization=False)
    content = (
        file.getvalue()
        .replace(b"FloatStorage", kind)
        .replace(b"K\x04N", b"\x8a\x07" + count.to_bytes(7, "little") + b"N")
    )
    return Call(LOAD_STORAGE, content[:-24] + struct.pack("<q", count) + content[-16:])


def deflated_storage():
    """64 MB of numbers in 64 KB."""
    stored, deflated = io.BytesIO(), io.BytesIO()
    torch.save(torch.zeros(1 << 24).storage(), stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return Call(LOAD_STORAGE, deflated.getvalue())


def tensor(storage, size, stride):
    return Call(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, {})


def nested(kind):
    """10 levels of 10 references to the level below, and 10 to the power of 10 leaves."""
    value = 0
    for _ in range(10):
        value = kind([value] * 10)
    return value


def nested_key():
    """The same as the key of a dict, which is hashed when it is set."""
    levels = (b"t\x94" + (b"h" + bytes([level])) * 9 for level in range(9))
    return steps(b"}", b"(" * 10, b"K\x00" * 10, *levels, b"tK\x01s")


def one_map_many_times():
    """10,000 classes with the same map of a megabyte."""
    first = b"K\x00cnumpy\nndarray\n\x94(M\x00\x02M\x00\x02\x86\x94X\x02\x00\x00\x00f4\x94B\x00\x00\x10\x00"
    others = (b"M" + struct.pack("<H", key) + b"h\x00(h\x01h\x02h\x03tR" for key in range(1, 10_000))
    return steps(b"}(", first, bytes(1 << 20), b"\x94tR", *others, b"u")


def one_text_many_times():
    """10,000 times a megabyte of bytes, as protocol 2 writes them."""
    first = b"K\x00c_codecs\nencode\n\x94X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"\x94X\x06\x00\x00\x00latin1\x94\x86R"
    others = (b"M" + struct.pack("<H", key) + b"h\x00h\x01h\x02\x86R" for key in range(1, 10_000))
    return steps(b"}(", first, *others, b"u")


def seeds():
    """Yield (name, content); none of them is a seed."""
    yield "nested lists for maps.npy", seed(high_res=nested(list))
    yield "nested lists for keys.npy", seed(keys=nested(list))
    yield "nested tuples for a shape.npy", seed(cam=Call(np.ndarray, nested(tuple), "f4", b""))
    yield "nested tuples for a type.npy", seed(cam=Call(np.ndarray, (1,), nested(tuple), b"1234"))
    yield "nested tuples for a size.npy", seed(cam=tensor(storage(), nested(tuple), (1,)))
    yield "nested tuples for a key.npy", nested_key()
    yield "a list within itself.npy", steps(b"]\x94h\x00a")
    yield "deep lists.npy", steps(b"]" * 1_500, b"a" * 400)
    yield "an entry of the memo.npy", steps(b"}r", struct.pack("<I", 1 << 28))
    yield "bytes.npy", steps(b"\x8e", struct.pack("<Q", 1 << 40), b"abc")
    yield "bytes that can be written to.npy", steps(b"\x96", struct.pack("<Q", 1 << 33), b"abc")
    yield "text.npy", steps(b"\x8d", struct.pack("<Q", 1 << 40), b"abc")
    yield "a number.npy", steps(b"\x8b", struct.pack("<i", (1 << 31) - 1), b"abc")
    yield "a frame.npy", steps(b"\x95", struct.pack("<Q", 1 << 40))
    for name, step in {
        "sets": b"\x8f", "dicts": b"}", "lists": b"]", "marks": b"(", "entries of the memo": b"\x94",
        "names": b"cnumpy\nndarray\n",
    }.items():  # fmt: skip
        yield f"many {name}.npy", steps(b"}", step * 300_000)
    yield "maps with strides of 0.npy", seed(high_res=tensor(storage(), (1, 1 << 18, 1 << 18), (0, 0, 0)))
    yield "keys with strides of 0.npy", seed(keys=tensor(storage(2, b"LongStorage"), (1 << 40,), (0,)))
    yield "a storage of 2 ** 40 numbers.npy", seed(high_res=tensor(storage(1 << 40), (1, 2, 2), (4, 2, 1)))
    yield (
        "a deflated storage.npy",
        seed(high_res=tensor(deflated_storage(), (1, 1 << 12, 1 << 12), (1 << 24, 1 << 12, 1))),
    )
    yield "an int for bytes.npy", seed(high_res=Call(FROM_BUFFER, 1 << 32, np.dtype("u1"), (1, 1 << 16, 1 << 16), "C"))
    yield "an int for a storage.npy", seed(high_res=tensor(Call(LOAD_STORAGE, 1 << 32), (1,), (1,)))
    yield "an int for text.npy", seed(high_res=Call(_codecs.encode, 1 << 32, "latin1"))
    yield "a shape of 2 ** 124.npy", seed(high_res=Call(np.ndarray, (1, 1 << 62, 1 << 62), "f4", b"1234"))
    yield "a shape of 0 maps.npy", seed(keys=np.zeros(0), high_res=Call(np.ndarray, (0, 1 << 31, 1 << 31), "f4", b""))
    yield "one map many times.npy", one_map_many_times()
    yield "one text many times.npy", one_text_many_times()
    for name, header in {
        "a header of 50 MB": b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 25_000_000 + b")}",
        "a header of brackets": b"(" * 9_000,
        "a header of signs": b"-" * 9_000 + b"1",
        "a header's shape of 2 ** 62": b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 1)}",
        "a header's shape of -1": b"{'descr': '<f4', 'fortran_order': True, 'shape': (-1, -1)}",
        "a header's type of 2 GB": b"{'descr': '|V2147483647', 'fortran_order': False, 'shape': (1,)}",
    }.items():
        yield f"{name}.npy", npy(b"1234", header)


def deflated(count):
    """So many zeros, deflated: one block over and over."""
    blocks = -(-count >> 20)
    deflate = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">I", (blocks << 20) % 65521 << 16 | 1)  # Adler-32
    return b"\x78\x01" + block * blocks + deflate.flush() + checksum


def png(width, height, depth, colour, *chunks):
    """A PNG of zeros, with other chunks before them."""
    line = -(-width * depth * {0: 1, 2: 3, 6: 4}[colour] // 8) + 1
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", deflated(min(line * height, 3 << 28))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def tiff(**entries):
    """A TIFF of one grey pixel, or what is said to be more."""
    tags = {
        "width": 256,
        "height": 257,
        "bits": 258,
        "compression": 259,
        "photometric": 262,
        "offset": 273,
        "samples": 277,
    }
    tags |= {"rows": 278, "bytes": 279, "tile_width": 322, "tile_height": 323, "tile_offset": 324, "tile_bytes": 325}
    values = {"width": 1, "height": 1, "bits": 8, "compression": 1, "photometric": 1, "offset": 8, "samples": 1}
    values |= {"rows": 1, "bytes": 1, **entries}
    listed = b"".join(
        struct.pack("<HHII", tags[name], 4, *(value if isinstance(value, tuple) else (1, value)))
        for name, value in sorted(values.items(), key=lambda item: tags[item[0]])
    )
    return b"II*\x00" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(values)) + listed + bytes(4)


def photos():
    """Yield (name, content); those that are named "large" may be read where there is the memory."""
    text = (b"zTXt", b"a\0\0" + deflated(1 << 20))
    yield "large grey png.jpg", png(10_000, 10_000, 1, 0)
    yield "large transparent png.jpg", png(12_000, 12_000, 8, 6)
    yield "png of 30,000 x 30,000.jpg", png(30_000, 30_000, 1, 0)
    yield "png of 2 ** 28 x 1.jpg", png((1 << 28) - 1, 1, 1, 0)
    yield "png of text.jpg", png(1, 1, 8, 0, *[text] * 100)
    yield "png of one text.jpg", png(1, 1, 8, 0, (b"zTXt", b"a\0\0" + deflated(1 << 27)))
    yield "large profile png.jpg", png(1, 1, 8, 2, (b"iCCP", b"a\0\0" + deflated(1 << 27)))
    yield (
        "gif.jpg",
        b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + bytes(6) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    )
    yield "bmp.jpg", b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 1 << 30, 1 << 30, 1, 24, 0, 0, 0, 0, 0, 0)
    yield (
        "jpeg.jpg",
        b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xdc\xff\xdc\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00?\x00\xff\xd9",
    )
    yield "webp.jpg", b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0/" + struct.pack("<I", 0x0FFFFFFF) + bytes(5)
    yield "tiff of 2 ** 31 x 2 ** 31.jpg", tiff(width=1 << 31, height=1 << 31)
    yield "tiff of many samples.jpg", tiff(samples=1 << 30)
    yield "tiff of many offsets.jpg", tiff(offset=((1 << 31) - 1, 8))
    yield (
        "tiff of large tiles.jpg",
        tiff(compression=5, tile_width=65_520, tile_height=65_520, tile_offset=8, tile_bytes=8),
    )


def annotations():
    """Yield (name, content) of XML and JSON; none can be read."""
    entities = "".join(f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 10))
    laughs = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "ha">{entities}]><a>&a9;</a>'
    yield "laughs.xml", laughs.encode()
    yield "laughs in utf-16.xml", laughs.encode("utf-16")
    yield "an entity of a file.xml", b'<!DOCTYPE a [<!ENTITY b SYSTEM "/etc/passwd">]><a>&b;</a>'
    yield "17 MB.xml", b"<a>" + bytes(17 << 20) + b"</a>"
    yield "deep.json", b"[" * 1_000_000
    yield "digits.json", b"[" + b"9" * 1_000_000 + b"]"


def outcome(reader, path):
    try:
        return f"read: {reader(path)!r:.60}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(folder):
    if os.fork() == 0:  # so that the memory to make the files does not count
        for name, content in (*seeds(), *annotations(), *photos()):
            (folder / name).write_bytes(content)
        os._exit(0)
    assert os.wait()[1] == 0
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + SPARE, own + SPARE))
    for suffix, reader in READERS.items():
        for path in sorted(folder.glob(f"*{suffix}")):
            before = peak()
            came = outcome(reader, path)
            print(json.dumps({"name": path.name, "outcome": came, "megabytes": peak() - before}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
