"""Checkpoints made to do harm, as torch.save writes them: a zip archive of a pickle and storages.

The pickle's opcodes are those of Python's `pickletools`.
"""

import io
import struct
import zipfile
from collections.abc import Iterable

CONVOLUTION = "layer1.0.conv1.weight"
STORAGE_BYTES = 20 << 20
# So that all views of a storage are just below 4 GiB, the most that a file of weights may have.
VIEWS = (4 << 30) // STORAGE_BYTES - 1


def integer(value: int) -> bytes:
    return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def sides(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def tensor(shape: bytes, strides: bytes, elements: int, storage: str = "0", kind: bytes = b"FloatStorage") -> bytes:
    """A call of `torch._utils._rebuild_tensor_v2`."""
    described = text("storage") + b"ctorch\n" + kind + b"\n" + text(storage) + text("cpu") + integer(elements)
    return b"ctorch._utils\n_rebuild_tensor_v2\n((" + described + b"tQ" + integer(0) + shape + strides + b"\x89}tR"


def checkpoint(entries: Iterable[bytes], storage: bytes, copies: int = 1) -> bytes:
    """A file whose pickle is a dict of `entries`. All `copies` of the storage are the same bytes of the file."""
    pickled = b"\x80\x02}(" + b"".join(entries) + b"u."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in [("data.pkl", pickled), ("byteorder", b"little"), ("data/0", storage)]:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
        for number in range(1, copies):
            again = copy.copy(archive.getinfo("archive/data/0"))
            again.filename = f"archive/data/{number}"
            archive.filelist.append(again)
    return file.getvalue()


def views(shape: list[int], strides: list[int], elements: int, kind: bytes = b"FloatStorage") -> bytes:
    """Many names for one view of a storage of zeros."""
    first = tensor(sides(shape), sides(strides), elements, kind=kind) + b"q\0"
    entries = (text(f"layer{number}.weight") + (b"h\0" if number else first) for number in range(VIEWS))
    return checkpoint(entries, bytes(STORAGE_BYTES))


def key_twice() -> bytes:
    return checkpoint([text(CONVOLUTION) + tensor(sides([1] * 4), sides([1] * 4), 1)] * 2, bytes(4))


def long_key() -> bytes:
    """A key of a megabyte, for 4,000 tensors."""
    first = text("k" * (1 << 20)) + b"q\0" + tensor(sides([1]), sides([1]), 1) + b"q\1"
    return checkpoint([first] + [b"h\0h\1"] * 3_999, bytes(4))


def one_storage() -> bytes:
    elements = STORAGE_BYTES // 4
    return views([elements], [1], elements)


def overlapping_storages() -> bytes:
    """Small tensors of many storages, which the archive's directory places at the same bytes."""
    elements, one = STORAGE_BYTES // 4, sides([1])
    entries = (text(f"layer{number}.weight") + tensor(one, one, elements, str(number)) for number in range(VIEWS))
    return checkpoint(entries, bytes(STORAGE_BYTES), VIEWS)


def many_axes() -> bytes:
    """10,000 tensors of one number, of 20,000 axes."""
    shape = sides([1] * 20_000) + b"q\0"
    first = tensor(shape, b"h\0", 1) + b"q\1"
    entries = (b"U\4%04d" % number + (b"h\1" if number else first) for number in range(10_000))
    return checkpoint(entries, bytes(4))


def transposed() -> bytes:
    """Views whose bytes lie apart from each other, so that each byte is copied by itself."""
    shape = [2] * 7 + [STORAGE_BYTES >> 7]
    return views(shape, [1 << axis for axis in range(8)], STORAGE_BYTES, b"ByteStorage")


def stride_zero() -> bytes:
    """One number that is expanded to 4 GiB."""
    return checkpoint([text(CONVOLUTION) + tensor(sides([1, 1024, 1024, 1024]), sides([0] * 4), 1)], bytes(4))


def nested_tuples() -> bytes:
    """Each of 200 tuples holds the one before twice: 2^200 values if they were copied."""
    nested = b"N" + b"q\0h\0\x86" * 200 + b"q\0"
    return checkpoint([text(CONVOLUTION) + tensor(nested, b"h\0", 1), text("state_dict") + b"h\0"], bytes(4))
