"""Pickles that want more than data are refused by name, and none of their code runs."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.datasets.safe_pickle.arrays import DType, Shell
from rlwandb_callbacks.datasets.safe_pickle.file import read_pickle
from rlwandb_callbacks.datasets.safe_pickle.unpickler import LEGACY_MAGIC
from rlwandb_callbacks.errors import DatasetError

COMMAND = "touch code_ran"


def text(value: str) -> bytes:
    """Puts a short text on the stack."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    """Puts what a name stands for on the stack, as protocol 4 does; dots in it are attributes."""
    return text(module) + text(name) + b"\x93"


def call(module: str, name: str, *args: bytes) -> bytes:
    return named(module, name) + b"(" + b"".join(args) + b"tR"


def protocol_4(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


class Reduced:
    """Unpickles by calling what it is given."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.answer = function, args

    def __reduce__(self) -> Any:
        return self.answer


def tensor_of(storage: bytes) -> bytes:
    rebuild = [storage, b"K\x00", b"K\x01\x85", b"K\x01\x85", b"\x89", call("collections", "OrderedDict")]
    return call("torch._utils", "_rebuild_tensor_v2", *rebuild)


def torch_zip(body: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", body)
    return file.getvalue()


def legacy(body: bytes) -> bytes:
    parts = [LEGACY_MAGIC, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in parts) + body + pickle.dumps([], 2)


def bytes_of(raw: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(raw)) + raw


LOAD = "torch.storage", "_load_from_bytes"
SYSTEM = call("os", "system", text(COMMAND))
ATTACKS: dict[str, tuple[bytes, str]] = {
    "os.system": (pickle.dumps(Reduced(os.system, COMMAND)), "posix.system"),
    "among data": (
        pickle.dumps([{"obs": np.zeros(2), "action": 0, "reward": Reduced(os.system, COMMAND)}]),
        "posix.system",
    ),
    "by its text protocol": (pickle.dumps(Reduced(os.system, COMMAND), 0), "posix.system"),
    "eval": (pickle.dumps(Reduced(eval, f"__import__('os').system({COMMAND!r})")), "builtins.eval"),
    "getattr": (pickle.dumps(Reduced(getattr, "text", "upper")), "builtins.getattr"),
    "dots in the name": (protocol_4(call("numpy", "f2py.os.system", text(COMMAND))), "numpy.f2py.os.system"),
    "dots in an allowed class": (
        protocol_4(call("collections", "OrderedDict.__class__", text(COMMAND))),
        "OrderedDict.__class__",
    ),
    "dots in the module": (protocol_4(call("torch.storage.os", "system", text(COMMAND))), "torch.storage.os.system"),
    "an instance": (b"(S'" + COMMAND.encode() + b"'\nios\nsystem\n.", "os.system"),
    "an instance by its class": (protocol_4(b"(" + named("os", "system") + text(COMMAND) + b"o"), "os.system"),
    "subprocess.Popen by __new__": (
        protocol_4(named("subprocess", "Popen") + text(COMMAND) + b"\x85\x81"),
        "subprocess.Popen",
    ),
    "functools.partial": (protocol_4(call("functools", "partial", named("os", "system"))), "functools.partial"),
    "operator.attrgetter": (protocol_4(call("operator", "attrgetter", text("system"))), "operator.attrgetter"),
    "torch.load": (protocol_4(call("torch.serialization", "load", text("x"))), "torch.serialization.load"),
    "torch's type rebuilding": (
        protocol_4(call("torch._utils", "_rebuild_from_type_v2", named("os", "system"), b")", b")", b"}")),
        "torch._utils._rebuild_from_type_v2",
    ),
    "numpy.load": (protocol_4(call("numpy", "load", text("x"))), "numpy.load"),
    "numpy's test runner": (
        protocol_4(call("numpy.testing._private.utils", "runstring", text("x"), b"}")),
        "runstring",
    ),
    "within a torch storage": (protocol_4(tensor_of(call(*LOAD, bytes_of(legacy(protocol_4(SYSTEM)))))), "os.system"),
    "within a plain storage": (protocol_4(tensor_of(call(*LOAD, bytes_of(protocol_4(SYSTEM))))), "os.system"),
    "storages in storages": (
        protocol_4(call(*LOAD, bytes_of(legacy(protocol_4(call(*LOAD, bytes_of(b"x"))))))),
        "torch.storage._load_from_bytes",
    ),
    "in what torch saved": (torch_zip(protocol_4(SYSTEM)), "os.system"),
    "in what torch saved once": (legacy(protocol_4(SYSTEM)), "os.system"),
    "as a storage's type": (torch_zip(protocol_4(text("storage") + SYSTEM + b"\x86Q")), "os.system"),
    "of another package": (pickle.dumps(collections.Counter("ab")), "collections.Counter"),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "name"), ATTACKS.values(), ids=ATTACKS.keys())
def test_what_is_not_data_is_refused_by_name_and_no_code_runs(attack: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(attack)
    for dataset_format in (None, "di-engine-pickle"):
        with pytest.raises(DatasetError) as caught:
            open_dataset(tmp_path / "evil", dataset_format)
        assert f"wants {name}" in str(caught.value) or f".{name}" in str(caught.value)
        assert str(tmp_path / "evil") in str(caught.value)
        assert "numpy.savez" in str(caught.value)
    assert not (tmp_path / "code_ran").exists()


def test_the_attack_itself_works_where_nothing_stops_it(tmp_path: Path) -> None:
    pickle.loads(ATTACKS["os.system"][0])
    assert (tmp_path / "code_ran").exists()


FLOAT = call("numpy", "dtype", text("f8"), b"\x89", b"\x88")
SHELL = call("numpy.core.multiarray", "_reconstruct", named("numpy", "ndarray"), b"K\x00\x85", b"C\x01b")
STATE = b"(K\x01" + b"K\x02\x85" + FLOAT + b"\x89"
MISUSE: dict[str, bytes] = {
    "objects": pickle.dumps(np.array([{}, []], dtype=object)),
    "records": pickle.dumps(np.zeros(2, dtype=[("a", "f4")])),
    "objects by name": call("numpy", "dtype", text("O8")),
    "fields": call("numpy", "dtype", text("f4,O")),
    "a state for a dtype with fields": FLOAT
    + b"(K\x03" + text("|") + b"N(t}" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb",
    "a state for an array, of objects": SHELL + STATE + b"]" + b"tb",
    "a state for an array, too short": SHELL + STATE + b"C\x08" + bytes(8) + b"tb",
    "an array without a state": SHELL,
    "a negative size": SHELL + b"(K\x01" + b"J\xff\xff\xff\xff\x85" + FLOAT + b"\x89C\x08" + bytes(8) + b"tb",
    "a state for a function": named("numpy", "dtype") + b"}" + text("__call__") + b"K\x01s" + b"b",
    "slots of a function": named("numpy.core.multiarray", "scalar") + b"N}" + text("_function") + b"K\x01s\x86b",
    "a state for a name": named("torch", "FloatStorage") + b"}" + text("meaning") + text("|O") + b"sb",
    "a call of a name": call("numpy", "ndarray", b"K\x02\x85"),
    "a name by __new__": named("numpy", "ndarray") + b")\x81",
    "a storage from outside": text("storage") + named("torch", "FloatStorage") + text("../../x") + b"\x87Q",
    "bytes of a number": call("builtins", "bytearray", b"J\x00\x00\x00\x7f"),
    "a bomb of containers": b"]" + (b"q\x00]" + b"(" + b"h\x00" * 10 + b"e") * 60,
    "a list within itself": b"]q\x00h\x00a",
    "another encoding": call("_codecs", "encode", text("x"), text("idna")),
}  # fmt: skip


@pytest.mark.parametrize("body", MISUSE.values(), ids=MISUSE.keys())
def test_allowed_names_cannot_be_misused(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(body if body[:1] == b"\x80" else protocol_4(body))
    with pytest.raises(DatasetError):
        open_dataset(tmp_path / "evil")


def reaching_beyond(offset: int, size: int, stride: int) -> bytes:
    whole = pickle.dumps(torch.arange(4.0), 2)
    assert whole.count(b"K\x00K\x04\x85") + whole.count(b"K\x00K\x04\x85q") >= 1
    place = whole.index(b"K\x00K\x04\x85")
    numbers = b"K" + bytes([offset]) + b"K" + bytes([size]) + b"\x85"
    changed = whole[:place] + numbers + whole[place + 5 :]
    return changed.replace(b"K\x01\x85", b"K" + bytes([stride]) + b"\x85")


@pytest.mark.parametrize(("offset", "size", "stride"), [(1, 4, 1), (0, 5, 1), (0, 4, 2), (255, 1, 1)])
def test_a_tensor_cannot_reach_beyond_its_storage(offset: int, size: int, stride: int, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(reaching_beyond(offset, size, stride))
    with pytest.raises(DatasetError, match="beyond its storage"):
        read_pickle(tmp_path / "evil")
    (tmp_path / "good").write_bytes(reaching_beyond(1, 2, 2))
    np.testing.assert_array_equal(read_pickle(tmp_path / "good"), [1.0, 3.0])


def test_unpickled_shells_are_never_numpys_own() -> None:
    assert not isinstance(Shell(), np.ndarray)
    assert not isinstance(DType("f4"), np.dtype)


VALUES: dict[str, Any] = {
    "scalars": [1, -2.5, True, None, "text", b"bytes", 2**70],
    "containers": {"a": [1, {"b": 2}], "c": [3, 4]},
    "ordered": collections.OrderedDict(a=1, b=[2]),
    "every dtype": [np.arange(3).astype(name) for name in "?bhilqBHILQefd"],
    "big endian": np.arange(3, dtype=">f4"),
    "shapes": [np.zeros(()), np.zeros((0, 3)), np.ones((2, 3, 4)), np.asfortranarray(np.arange(6).reshape(2, 3))],
    "not contiguous": np.arange(12).reshape(3, 4)[:, ::2],
    "numpy scalars": [np.float32(1.5), np.int64(3), np.bool_(True)],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_data_of_every_protocol_come_out_as_they_went_in(value: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(value, protocol))
    assert_same(read_pickle(tmp_path / "a"), value)


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_same(list(found.values()), list(expected.values()))
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected
        assert type(found) is type(expected)


def test_arrays_of_numpy_before_2_are_read(tmp_path: Path) -> None:
    body = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core", b"numpy.core")
    (tmp_path / "a").write_bytes(body)
    np.testing.assert_array_equal(read_pickle(tmp_path / "a"), [0.0, 1.0, 2.0])


SAVES: dict[str, Callable[[Any, Path], None]] = {
    **{
        f"pickle {protocol}": lambda value, path, p=protocol: path.write_bytes(pickle.dumps(value, p))
        for protocol in range(6)
    },
    "torch.save": torch.save,
    "torch.save of old": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES.keys())
def test_torch_tensors_come_out_as_arrays(save: Any, tmp_path: Path) -> None:
    base = torch.arange(24).reshape(2, 3, 4)
    dtypes = [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    ]
    tensors = [base.to(dtype) for dtype in dtypes]
    tensors += [
        base > 5,
        base[:, 1:, ::2],
        base.permute(2, 0, 1),
        torch.zeros(0, 3),
        torch.tensor(7.5),
        base[0, 0].expand(5, 4),
    ]
    tensors += [torch.nn.Parameter(torch.ones(2))]
    save(tensors, tmp_path / "a")
    for found, tensor in zip(read_pickle(tmp_path / "a"), tensors, strict=True):
        assert_same(found, tensor.detach().numpy())
    save([base.to(torch.bfloat16)], tmp_path / "a")
    np.testing.assert_array_equal(read_pickle(tmp_path / "a")[0], base.numpy())


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES.keys())
def test_tensors_of_two_bytes_without_a_sign_come_out_as_arrays(save: Any, tmp_path: Path) -> None:
    tensor = torch.arange(24).to(torch.uint16)
    try:
        save([tensor], tmp_path / "a")
    except KeyError:
        pytest.skip("this torch cannot save them")
    assert_same(read_pickle(tmp_path / "a")[0], tensor.numpy())


@pytest.mark.parametrize("kept", [1, 2, 50, 0.5, -1])
def test_a_pickle_that_is_cut_off_is_an_error_for_people(kept: float, tmp_path: Path) -> None:
    whole = pickle.dumps([{"obs": torch.zeros(3), "action": 0, "reward": 1.0}])
    (tmp_path / "a").write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
    with pytest.raises(DatasetError, match=r"no whole pickle|no known layout"):
        open_dataset(tmp_path / "a")


def test_a_short_file_cannot_ask_for_all_memory(tmp_path: Path) -> None:
    numbers: list[Any] = [0.5] * 10
    for _ in range(9):
        numbers = [numbers] * 10
    path = tmp_path / "data.pkl"
    for named in (numbers, [torch.zeros(1).expand(2**19) for _ in range(50)]):
        path.write_bytes(pickle.dumps({"obs": named, "action": named, "reward": named, "done": named}))
        with pytest.raises(DatasetError, match="named again and again"):
            open_dataset(path)
