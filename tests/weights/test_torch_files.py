"""``.pth`` files without torch: both forms, every kind of number, and nothing that stands in them is run."""

import os
import pickle
import sys

import numpy as np
import pytest
from torch_bytes import (
    call,
    mapping,
    named,
    number,
    plain,
    several,
    tensor,
    tensors,
    text,
    write_legacy,
    write_zip,
)

from c2am_jax.errors import UserError
from c2am_jax.weights.foreign import read_weights

RNG = np.random.default_rng(0)
KINDS = ("f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "?")
ARRAYS = {f"of.{kind}": RNG.integers(0, 2, (3, 4)).astype(kind) for kind in KINDS} | {
    "weight": RNG.normal(size=(5, 2, 3)).astype(np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "num_batches_tracked": np.int64(7),
}
FORMS = {"zip": (write_zip, False), "legacy": (write_legacy, True)}


@pytest.fixture(params=FORMS)
def save(request, tmp_path):
    """(write a body and its storages, whether it is the older form)"""
    write, legacy = FORMS[request.param]
    return (lambda body, storages=None: write(tmp_path / "w.pth", body, storages or {})), legacy


def test_every_kind_of_number_comes_back(save):
    write, legacy = save
    found = read_weights(write(*tensors(ARRAYS, legacy=legacy))).arrays
    assert set(found) == set(ARRAYS)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert found[name].dtype == (np.float32 if name == "of.f2" else np.asarray(value).dtype)


def test_views_of_one_storage_and_bfloat16(save):
    write, legacy = save
    numbers = np.arange(12, dtype=np.float32)
    short = (np.array([1.5, -2.0, 0.15625], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    body = {
        "transposed": tensor("0", 12, (3, 4), (1, 3), legacy=legacy),
        "part": tensor("0", 12, (2, 2), (4, 1), offset=5, legacy=legacy),
        "scalar": tensor("0", 12, (), (), offset=11, legacy=legacy),
        "short": tensor("1", 3, (3,), (1,), storage="BFloat16Storage", legacy=legacy),
    }
    found = read_weights(write(mapping(body), {"0": numbers, "1": short})).arrays
    np.testing.assert_array_equal(found["transposed"], numbers.reshape(4, 3).T)
    np.testing.assert_array_equal(found["part"], [[5, 6], [9, 10]])
    assert found["scalar"] == 11
    np.testing.assert_array_equal(found["short"], np.array([1.5, -2.0, 0.15625], np.float32))


def harm(place):
    """A pickle's body that would make a file when it is run."""
    return call("os.system", text(f"touch {place}"))


def test_code_in_a_pickle_is_not_run(save, tmp_path, monkeypatch):
    write, legacy = save
    called = []
    monkeypatch.setattr(os, "system", called.append)
    state, storages = tensors({"weight": ARRAYS["weight"]}, legacy=legacy)
    meta = {
        "hook": harm(tmp_path / "harmed"),
        "numbers": plain(np.arange(3)),
        "module": named("antigravity.fly"),
        "toolbox": call("mmdet.core.Something", number(3)) + mapping({"state": number(1)}, ordered=False) + b"b",
        "CLASSES": several(text("cat"), text("dog")),
    }
    found = read_weights(write(mapping({"meta": mapping(meta, ordered=False), "state_dict": state}, False), storages))
    np.testing.assert_array_equal(found.arrays["weight"], ARRAYS["weight"])
    assert found.classes == ("cat", "dog")
    with pytest.raises(UserError, match=r"w\.pth: .*state dict.* os\.system; nothing in it was run"):
        read_weights(write(mapping({"state_dict": harm(tmp_path / "harmed")})))
    with pytest.raises(UserError, match=r"evil is no plain tensor, but a os\.system"):
        read_weights(write(mapping({"evil": harm(tmp_path / "harmed")})))
    assert not called and not (tmp_path / "harmed").exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize("meta", [{"CLASSES": ("a", "b")}, {"dataset_meta": {"classes": ["a", "b"], "palette": []}}])
def test_class_names_of_both_versions_of_mmdetection(tmp_path, meta):
    state, storages = tensors({"weight": ARRAYS["weight"]})
    body = mapping({"meta": plain(meta), "state_dict": state}, ordered=False)
    assert read_weights(write_zip(tmp_path / "w.pth", body, storages)).classes == ("a", "b")


def wrong(**change):
    given = {
        "key": "0",
        "count": 4,
        "shape": (2, 2),
        "strides": (2, 1),
        "offset": 0,
        "storage": "FloatStorage",
    } | change
    return lambda legacy: mapping({"w": tensor(**given, legacy=legacy)})


BROKEN = {
    "offset": (wrong(offset=1), "reaches beyond its storage of 4 numbers"),
    "stride": (wrong(strides=(4, 1)), "reaches beyond"),
    "negative": (wrong(strides=(-2, 1)), "no counts"),
    "shape": (wrong(shape=(2**40, 2**40), strides=(0, 0)), "reaches beyond"),
    "ranks": (wrong(strides=(1,)), "do not go together"),
    "count": (wrong(count=9), "36|beyond its 4"),
    "key": (wrong(key="../../etc/passwd"), "missing in it|belongs to no tensor"),
    "kind": (wrong(storage="QInt8Storage"), "kind QInt8Storage"),
    "number": (lambda legacy: number(3), "holds a int|belongs to no tensor"),
    "memo": (lambda legacy: b"j\xff\xff\xff\x7f", "damaged"),
    "stack": (lambda legacy: b"0000", "damaged|opcode|EOF"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_the_file_is_one_line(save, name):
    write, legacy = save
    body, message = BROKEN[name]
    with pytest.raises(UserError, match=message) as caught:
        read_weights(write(body(legacy), {"0": np.zeros(4, np.float32)}))
    assert "\n" not in str(caught.value) and "w.pth" in str(caught.value)


def test_a_huge_memo_and_a_deep_nest_cost_nothing(save):
    write, legacy = save
    state, storages = tensors({"weight": ARRAYS["weight"]}, legacy=legacy)
    deep = b"]" * 50_000 + b"a" * 49_999
    body = mapping({"meta": text("x") + b"r\xff\xff\xff\x7f" + b"0" + deep, "state_dict": state})
    np.testing.assert_array_equal(read_weights(write(body, storages)).arrays["weight"], ARRAYS["weight"])


def test_damage_anywhere_is_an_error_or_other_numbers(save):
    write, legacy = save
    path = write(*tensors({"a": ARRAYS["weight"], "b": ARRAYS["of.i8"]}, legacy=legacy))
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(0, len(whole), 97)]
    for at in RNG.integers(0, len(whole), 200):
        damaged.append(whole[:at] + bytes([RNG.integers(256)]) + whole[at + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            read_weights(path)
        except UserError:
            refused += 1
    assert refused >= len(whole) // 97


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps(3, 2), pickle.dumps({"state_dict": 1}, 2), b"PK"])
def test_a_file_that_torch_did_not_write_is_named(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(
        UserError, match=r"w\.pth: not a state dict of plain tensors: neither a zip archive of torch nor"
    ):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("new", [True, False])
def test_torch_reads_the_same(tmp_path, new):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    base = torch.arange(24, dtype=torch.float32)
    state = {"view": base.reshape(4, 6).T[1:], "half": base.half(), "bf": base.bfloat16(), "long": base.long()}
    state |= {"parameter": torch.nn.Parameter(base * 2), "bool": base > 3, "scalar": torch.tensor(4.0)}
    torch.save(
        {"state_dict": state, "meta": {"n": np.arange(2)}}, tmp_path / "w.pth", _use_new_zipfile_serialization=new
    )
    found = read_weights(tmp_path / "w.pth").arrays
    expected = torch.load(tmp_path / "w.pth", weights_only=False)["state_dict"]
    assert set(found) == set(expected)
    for name, value in expected.items():
        kept = value.detach().float() if value.is_floating_point() else value
        np.testing.assert_array_equal(found[name], kept.numpy(), err_msg=name)
