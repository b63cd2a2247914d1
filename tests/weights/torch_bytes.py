"""Files as torch.save writes them, byte by byte: both forms, without torch."""

import pickle
import struct
import zipfile

import numpy as np

STORAGES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char"}
STORAGES |= {"u1": "Byte", "b1": "Bool"}


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else pickle.dumps(value, 2)[2:-1]


def named(name):
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def several(*parts):
    return b"(" + b"".join(parts) + b"t"


def mapping(pairs, ordered=True):
    start = named("collections.OrderedDict") + b")R" if ordered else b"}"
    return start + b"(" + b"".join(text(key) + value for key, value in pairs.items()) + b"u"


def plain(value):
    """Any Python value by pickle itself."""
    return pickle.dumps(value, 2)[2:-1]


def call(name, *arguments):
    return named(name) + several(*arguments) + b"R"


def tensor(key, count, shape, strides, *, offset=0, storage="FloatStorage", legacy=False):
    view = [b"N"] if legacy else []
    place = several(text("storage"), named(f"torch.{storage}"), text(key), text("cpu"), number(count), *view) + b"Q"
    sizes, steps = (several(*map(number, values)) for values in (shape, strides))
    return call("torch._utils._rebuild_tensor_v2", place, number(offset), sizes, steps, b"\x89", mapping({}))


def tensors(arrays, *, legacy=False):
    """(state dict as a pickle's body, numbers of each storage by key) of arrays by name."""
    body, storages = {}, {}
    for name, value in arrays.items():
        key, value = str(len(storages)), np.asarray(value)
        strides = [step // value.itemsize for step in np.ascontiguousarray(value).strides] if value.ndim else []
        storage = f"{STORAGES[value.dtype.str[1:]]}Storage"
        body[name] = tensor(key, value.size, value.shape, strides, storage=storage, legacy=legacy)
        storages[key] = np.ascontiguousarray(value)
    return mapping(body), storages


def write_zip(path, body, storages):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("archive/byteorder", "little")
        for key, value in storages.items():
            archive.writestr(f"archive/data/{key}", value.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(path, body, storages):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    content = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system))
    content += b"\x80\x02" + body + b"." + pickle.dumps(list(storages), 2)
    path.write_bytes(content + b"".join(struct.pack("<q", v.size) + v.tobytes() for v in storages.values()))
    return path
