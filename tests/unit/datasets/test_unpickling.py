"""Pickles that hold more than data are refused by name, and none of their code runs."""

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
from rlwandb_callbacks.datasets.safe_pickle.arrays import ArrayShell, DType
from rlwandb_callbacks.datasets.safe_pickle.file import read_pickle
from rlwandb_callbacks.datasets.safe_pickle.tensors import LEGACY_BEGINNING
from rlwandb_callbacks.errors import DatasetError

COMMAND = "touch code_ran"


def text(value: str) -> bytes:
    """Puts a short text on the stack."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    """Puts the object of a name on the stack, as protocol 4 does; dots in the name are attributes."""
    return text(module) + text(name) + b"\x93"


def call(module: str, name: str, *args: bytes) -> bytes:
    return named(module, name) + b"(" + b"".join(args) + b"tR"


def protocol_4(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


class Reduced:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.answer = function, args

    def __reduce__(self) -> Any:
        return self.answer


def tensor_of(storage: bytes) -> bytes:
    rebuild = [storage, b"K\x00", b"K\x01\x85", b"K\x01\x85", b"\x89", call("collections", "OrderedDict")]
    return call("torch._utils", "_rebuild_tensor_v2", *rebuild)


def torch_zip(body: bytes, **parts: bytes) -> bytes:
    """Builds a file of torch.save with another pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in ({"data.pkl": body, "byteorder": b"little", "version": b"3\n"} | parts).items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def legacy(body: bytes) -> bytes:
    parts = [1001, {"little_endian": True}]
    return LEGACY_BEGINNING + b"".join(pickle.dumps(part, 2) for part in parts) + body + pickle.dumps([], 2)


def protocol_2(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def call_2(module: str, name: str, text: str) -> bytes:
    """Calls a function with a text, as protocol 2 does."""
    return f"c{module}\n{name}\n".encode() + b"X" + struct.pack("<I", len(text)) + text.encode() + b"\x85R"


def bytes_of(raw: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(raw)) + raw


LOAD = "torch.storage", "_load_from_bytes"
SYSTEM = call("os", "system", text(COMMAND))
SYSTEM_2 = call_2("os", "system", COMMAND)
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
    "within a torch storage": (protocol_4(tensor_of(call(*LOAD, bytes_of(legacy(protocol_2(SYSTEM_2)))))), "os.system"),
    "storages in storages": (
        protocol_4(call(*LOAD, bytes_of(legacy(protocol_2(call_2(*LOAD, "x")))))),
        "torch.storage._load_from_bytes",
    ),
    "in a file of torch.save": (torch_zip(protocol_2(SYSTEM_2)), "os.system"),
    "in an old file of torch.save": (legacy(protocol_2(SYSTEM_2)), "os.system"),
    "eval in a file of torch.save": (torch_zip(protocol_2(call_2("builtins", "eval", "1"))), "eval"),
    "as a storage's type": (torch_zip(protocol_2(b"X\x07\0\0\0storage" + SYSTEM_2 + b"\x86Q")), "os.system"),
    "of another package": (pickle.dumps(collections.Counter("ab")), "collections.Counter"),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "name"), ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_are_refused_by_name_and_no_code_runs(attack: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(attack)
    for dataset_format in (None, "di-engine-pickle"):
        with pytest.raises(DatasetError) as caught:
            open_dataset(tmp_path / "evil", dataset_format)
        assert f"asks for {name}" in str(caught.value) or f".{name}" in str(caught.value)
        assert str(tmp_path / "evil") in str(caught.value)
        assert "numpy.savez" in str(caught.value)
    assert not (tmp_path / "code_ran").exists()


def test_attack_works_without_protection(tmp_path: Path) -> None:
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
    "a storage that is a plain pickle": tensor_of(call(*LOAD, bytes_of(protocol_4(SYSTEM)))),
    "a deque of a number": call("collections", "deque", b"K\x05"),
    "a device of a list": call("torch", "device", b"]"),
    "a state for a device": call("torch", "device", text("cpu")) + b"}" + text("type") + text("x") + b"sb",
}  # fmt: skip


@pytest.mark.parametrize("body", MISUSE.values(), ids=MISUSE.keys())
def test_allowed_names_cannot_be_misused(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(body if body[:1] == b"\x80" else protocol_4(body))
    with pytest.raises(DatasetError):
        open_dataset(tmp_path / "evil")
    assert not (tmp_path / "code_ran").exists()


TORCH_FILES: dict[str, tuple[bytes, str]] = {
    "another protocol": (torch_zip(protocol_4(SYSTEM)), "another protocol than 2"),
    "a program": (torch_zip(protocol_2(b"]"), **{"constants.pkl": b""}), "TorchScript"),
    "a call of an array": (torch_zip(protocol_2(call_2("numpy", "ndarray", "x"))), "only an argument"),
    "an object array": (torch_zip(protocol_2(call_2("numpy", "dtype", "O8"))), "an array of 'O8'"),
}


@pytest.mark.parametrize(("content", "part"), TORCH_FILES.values(), ids=TORCH_FILES.keys())
def test_files_of_torch_save_with_more_than_tensors_are_refused(content: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(content)
    with pytest.raises(DatasetError, match=part):
        read_pickle(tmp_path / "evil")
    assert not (tmp_path / "code_ran").exists()


def test_compressed_file_of_torch_save_is_refused(tmp_path: Path) -> None:
    torch.save({"obs": torch.zeros(2**20)}, tmp_path / "good")
    with zipfile.ZipFile(tmp_path / "good") as good, zipfile.ZipFile(tmp_path / "evil", "w") as evil:
        for item in good.infolist():
            evil.writestr(item.filename, good.read(item), zipfile.ZIP_DEFLATED)
    with pytest.raises(DatasetError, match="compressed parts"):
        read_pickle(tmp_path / "evil")


@pytest.mark.parametrize("save_as_zip", [True, False])
def test_tensor_of_a_file_cannot_reach_beyond_its_storage(save_as_zip: bool, tmp_path: Path) -> None:
    torch.save(torch.arange(4.0), tmp_path / "evil", _use_new_zipfile_serialization=save_as_zip)
    whole = (tmp_path / "evil").read_bytes()
    count = b"X\x03\0\0\0cpuq" + whole[whole.index(b"cpuq") + 4 :][:1] + b"K\x04"  # of the storage
    shape = b"K\x00K\x04\x85"
    assert whole.count(count) == whole.count(shape) == 1
    for changes in ({shape: b"K\x00K\x05\x85"}, {count: count[:-1] + b"\xff", shape: b"K\x00K\xff\x85"}):
        content = whole
        for old, new in changes.items():
            content = content.replace(old, new)
        (tmp_path / "evil").write_bytes(content)
        with pytest.raises(DatasetError):
            read_pickle(tmp_path / "evil")


def reaching_beyond(offset: int, size: int, stride: int) -> bytes:
    whole = pickle.dumps(torch.arange(4.0), 2)
    assert whole.count(b"K\x00K\x04\x85") + whole.count(b"K\x00K\x04\x85q") >= 1
    place = whole.index(b"K\x00K\x04\x85")
    numbers = b"K" + bytes([offset]) + b"K" + bytes([size]) + b"\x85"
    changed = whole[:place] + numbers + whole[place + 5 :]
    return changed.replace(b"K\x01\x85", b"K" + bytes([stride]) + b"\x85")


@pytest.mark.parametrize(("offset", "size", "stride"), [(1, 4, 1), (0, 5, 1), (0, 4, 2), (255, 1, 1)])
def test_tensor_cannot_reach_beyond_its_storage(offset: int, size: int, stride: int, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(reaching_beyond(offset, size, stride))
    with pytest.raises(DatasetError, match="beyond its storage"):
        read_pickle(tmp_path / "evil")
    (tmp_path / "good").write_bytes(reaching_beyond(1, 2, 2))
    np.testing.assert_array_equal(read_pickle(tmp_path / "good"), [1.0, 3.0])


def test_unpickled_arrays_are_not_numpy_arrays_until_all_is_read() -> None:
    assert not isinstance(ArrayShell(), np.ndarray)
    assert not isinstance(DType("f4"), np.dtype)


VALUES: dict[str, Any] = {
    "scalars": [1, -2.5, True, None, "text", b"bytes", 2**70],
    "containers": {"a": [1, {"b": 2}], "c": [3, 4]},
    "ordered": collections.OrderedDict(a=1, b=[2]),
    "deques": [collections.deque([1, np.zeros(2)]), collections.deque([3, 4], maxlen=2), collections.deque()],
    "every dtype": [np.arange(3).astype(name) for name in "?bhilqBHILQefd"],
    "big endian": np.arange(3, dtype=">f4"),
    "shapes": [np.zeros(()), np.zeros((0, 3)), np.ones((2, 3, 4)), np.asfortranarray(np.arange(6).reshape(2, 3))],
    "not contiguous": np.arange(12).reshape(3, 4)[:, ::2],
    "numpy scalars": [np.float32(1.5), np.int64(3), np.bool_(True)],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_data_of_every_protocol_are_read_back(value: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(value, protocol))
    assert_same(read_pickle(tmp_path / "a"), value)


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_same(list(found.values()), list(expected.values()))
    elif isinstance(expected, (list, tuple, collections.deque)):
        assert type(found) is list
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


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("save_as_zip", [True, False])
def test_data_of_torch_save_are_read_back(value: Any, save_as_zip: bool, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "a", _use_new_zipfile_serialization=save_as_zip)
    before = list(torch.serialization.get_safe_globals())
    assert_same(read_pickle(tmp_path / "a"), value)
    assert set(torch.serialization.get_safe_globals()) == set(before)


SAVES: dict[str, Callable[[Any, Path], None]] = {
    **{
        f"pickle {protocol}": lambda value, path, p=protocol: path.write_bytes(pickle.dumps(value, p))
        for protocol in range(6)
    },
    "torch.save": torch.save,
    "old torch.save": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES.keys())
def test_torch_tensors_become_arrays(save: Any, tmp_path: Path) -> None:
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
def test_torch_devices_become_texts(save: Any, tmp_path: Path) -> None:
    save({"obs": torch.zeros(2), "device": [torch.device("cpu"), torch.device("cuda", 1)]}, tmp_path / "a")
    assert read_pickle(tmp_path / "a")["device"] == ["cpu", "cuda:1"]


@pytest.mark.parametrize("tensor", [torch.eye(2).to_sparse(), torch.zeros(2, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_dense_data_are_refused(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"obs": tensor}, tmp_path / "a")
    with pytest.raises(DatasetError, match="allowed are dense tensors with data"):
        read_pickle(tmp_path / "a")


def test_tensors_of_unsigned_16_bits_become_arrays(tmp_path: Path) -> None:
    tensor = torch.arange(24).to(torch.uint16)
    try:
        torch.save([tensor], tmp_path / "a")
    except KeyError:
        pytest.skip("this torch cannot save them")
    assert_same(read_pickle(tmp_path / "a")[0], tensor.numpy())


def test_tensors_that_torch_itself_cannot_read_are_a_clear_error(tmp_path: Path) -> None:
    tensor = torch.arange(24).to(torch.uint16)
    for name, save in SAVES.items():
        if name == "torch.save":
            continue
        try:
            save([tensor], tmp_path / "a")
        except KeyError:
            pytest.skip("this torch cannot save them")
        with pytest.raises(DatasetError, match="such as uint16"):
            read_pickle(tmp_path / "a")


@pytest.mark.parametrize("kept", [1, 2, 50, 0.5, -1])
def test_truncated_pickle_is_a_clear_error(kept: float, tmp_path: Path) -> None:
    whole = pickle.dumps([{"obs": torch.zeros(3), "action": 0, "reward": 1.0}])
    (tmp_path / "a").write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
    with pytest.raises(DatasetError, match=r"not a complete pickle|no known layout"):
        open_dataset(tmp_path / "a")


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES.keys())
def test_repeated_numbers_cannot_fill_memory(save: Any, tmp_path: Path) -> None:
    for tensor in (torch.zeros(1).expand(2**40), torch.zeros(1, dtype=torch.bfloat16).expand(2**40)):
        save([tensor], tmp_path / "a")
        with pytest.raises(DatasetError, match="far more than it has room for"):
            read_pickle(tmp_path / "a")


def test_short_file_cannot_fill_memory(tmp_path: Path) -> None:
    numbers: list[Any] = [0.5] * 10
    for _ in range(9):
        numbers = [numbers] * 10
    path = tmp_path / "data.pkl"
    for named in (numbers, [torch.zeros(1).expand(2**19) for _ in range(50)]):
        path.write_bytes(pickle.dumps({"obs": named, "action": named, "reward": named, "done": named}))
        with pytest.raises(DatasetError, match="named again and again"):
            open_dataset(path)


def note_call(folder: str) -> None:
    (Path(folder) / "was called").touch()


class CallsAFunction:
    """Pickles as a call of a function of the program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return note_call, (str(self.folder),)


@pytest.mark.parametrize("save_as_zip", [True, False], ids=["zip", "legacy"])
def test_names_that_the_program_registered_with_torch_are_set_aside(save_as_zip: bool, tmp_path: Path) -> None:
    registered = [note_call, np.ndarray, np.dtype, np.empty(0).__reduce__()[0]]
    data, attack = tmp_path / "data.pt", tmp_path / "attack.pt"
    torch.save(np.arange(6.0), data, _use_new_zipfile_serialization=save_as_zip)
    torch.save(CallsAFunction(tmp_path), attack, _use_new_zipfile_serialization=save_as_zip)
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals(registered)
    try:
        assert np.array_equal(read_pickle(data), np.arange(6.0))
        with pytest.raises(DatasetError, match="note_call"):
            read_pickle(attack)
        assert set(registered) <= set(torch.serialization.get_safe_globals()), "they are registered again"
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    assert not (tmp_path / "was called").exists()
