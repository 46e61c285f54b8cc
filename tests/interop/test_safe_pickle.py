"""What is read is data; what a hostile file wants done is not done."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_ecg.errors import CheckpointError
from fairseq_ecg.interop.safe_pickle import Inert, read_pickled

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool, torch.complex64,
]  # fmt: skip


def tree() -> dict[str, Any]:
    torch.manual_seed(0)
    shared = torch.randn(4, 6)
    return {
        "model": OrderedDict(
            {f"t.{dtype}": (torch.rand(3, 2) * 9).to(dtype) for dtype in DTYPES},
            transposed=shared.t(),
            part=shared[1:3, ::2],
            scalar=torch.tensor(3.5),
            empty=torch.empty(0, 4),
            parameter=torch.nn.Parameter(torch.ones(2)),
        ),
        "numbers": [
            1,
            2.5,
            None,
            True,
            "text",
            b"bytes",
            (1, 2),
            {3},
            frozenset({4}),
            torch.Size([2, 3]),
            2**70,
        ],
        "numpy": [
            np.float32(1.5),
            np.arange(6.0).reshape(2, 3),
            np.arange(6).reshape(2, 3).T,
            np.array(["a", "bc"]),
        ],
        "namespace": Namespace(lr=0.1),
        "dtype": torch.float16,
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_both_formats_of_torch_are_read_exactly(tmp_path: Path, zipped: bool, protocol: int) -> None:
    path, expected = tmp_path / "x.pt", tree()
    torch.save(expected, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    found = read_pickled(path)
    assert list(found["model"]) == list(expected["model"])
    assert type(found["model"]) is dict
    for name, value in expected["model"].items():
        mine = found["model"][name]
        assert torch.equal(mine, value.detach()), name
        assert mine.dtype == value.dtype
        assert not mine.requires_grad
    assert found["numbers"] == expected["numbers"]
    for mine, value in zip(found["numpy"], expected["numpy"], strict=True):
        np.testing.assert_array_equal(mine, value)
    assert isinstance(found["namespace"], Inert)
    assert found["namespace"].state == {"lr": 0.1}
    assert "argparse.Namespace" in repr(found["namespace"])
    assert found["dtype"] is torch.float16


def test_arrays_of_protocol_five_and_old_names_are_read(tmp_path: Path) -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4)
    for protocol in range(2, 6):
        path = tmp_path / f"{protocol}.pkl"
        data = pickle.dumps({"a": array, "b": np.float64(2.0)}, protocol)
        # NumPy 1 wrote the module's old name.
        old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray") if protocol == 2 else data
        path.write_bytes(old)
        found = read_pickled(path)
        np.testing.assert_array_equal(found["a"], array)
        assert found["b"] == 2.0


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("container", ["plain", "zip", "legacy"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_function_is_ever_called(tmp_path: Path, container: str, protocol: int) -> None:
    mark = tmp_path / "mark"
    hostile = {
        "system": Call(os.system, f"touch {mark}"),
        "eval": Call(eval, f"open({str(mark)!r}, 'w')"),
        "exec": Call(exec, f"open({str(mark)!r}, 'w')"),
        "open": Call(open, str(mark), "w"),
        "import": Call(__import__, "antigravity"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "load": Call(torch.load, str(mark)),
        "popen": Call(os.popen, f"touch {mark}"),
        "good": torch.ones(2),
    }
    path = tmp_path / "x.pt"
    if container == "plain":
        path.write_bytes(pickle.dumps({k: v for k, v in hostile.items() if k != "good"}, protocol))
    else:
        torch.save(
            hostile, path, _use_new_zipfile_serialization=container == "zip", pickle_protocol=max(protocol, 2)
        )
    found = read_pickled(path)
    assert not mark.exists()
    assert isinstance(found["system"], Inert)
    assert found["system"].args == (f"touch {mark}",)
    assert all(isinstance(value, Inert) for key, value in found.items() if key != "good")
    if container != "plain":
        assert torch.equal(found["good"], torch.ones(2))


def raw(tmp_path: Path, program: bytes) -> Path:
    path = tmp_path / "x.pkl"
    path.write_bytes(program)
    return path


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch {mark}'\ntR.",
        b"(S'touch {mark}'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch {mark}'\no.",  # OBJ
        b"cos\nsystem\nS'touch {mark}'\n\x85\x81.",  # NEWOBJ
        b'c__builtin__\neval\n(S\'open("{mark}", "w")\'\ntR.',
        b"cfairseq_ecg.interop.safe_pickle\nread_pickled\n(S'{mark}'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R.",  # STACK_GLOBAL
    ],
)
def test_opcodes_that_call_make_records(tmp_path: Path, program: bytes) -> None:
    mark = tmp_path / "mark"
    found = read_pickled(raw(tmp_path, program.replace(b"{mark}", str(mark).encode())))
    assert isinstance(found, Inert)
    assert not mark.exists()


def test_attributes_of_known_names_cannot_be_reached(tmp_path: Path) -> None:
    """Protocol 4 may name ``OrderedDict.__init__.__globals__``: dotted names are names of nothing."""
    name = b"OrderedDict.__init__.__globals__"
    program = b"\x80\x04\x8c\x0bcollections\x8c" + bytes([len(name)]) + name + b"\x93."
    found = read_pickled(raw(tmp_path, program))
    assert isinstance(found, type)
    assert issubclass(found, Inert)


def test_state_cannot_change_what_a_known_name_does(tmp_path: Path) -> None:
    """BUILD may set attributes of any object: not of the reader's functions and classes."""
    for target in (
        b"c_codecs\nencode\n",
        b"cnumpy\ndtype\n",
        b"ccollections\nOrderedDict\n",
        b"cos\nsystem\n",
    ):
        for state in (b"}S'__code__'\nNs", b"(N}S'__defaults__'\nNst"):
            with pytest.raises(CheckpointError):
                read_pickled(raw(tmp_path, target + state + b"b."))
    torch.save({"a": b"x"}, tmp_path / "y.pt", pickle_protocol=2)
    assert read_pickled(tmp_path / "y.pt") == {"a": b"x"}


def zip_with(tmp_path: Path, **entries: bytes) -> Path:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"x/{name.replace('__', '/').replace('_pkl', '.pkl')}", data)
    return path


def tensor_program(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, count: int = 4) -> bytes:
    """A pickle of one float tensor over storage ``0``."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(obj, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(Call(torch._utils._rebuild_tensor_v2, Storage(), offset, size, stride, False, {}))
    return buffer.getvalue()


def test_tensors_that_do_not_fit_their_data_are_refused(tmp_path: Path) -> None:
    data = np.arange(4, dtype="<f4").tobytes()
    good = zip_with(tmp_path, data_pkl=tensor_program((2, 2), (2, 1)), data__0=data)
    assert read_pickled(good).tolist() == [[0, 1], [2, 3]]
    for size, stride, offset in (
        ((3, 2), (2, 1), 0),
        ((2, 2), (2, 1), 1),
        ((10**9,), (0,), 0),  # a stride of 0 would fill the memory
        ((2,), (-1,), 1),
    ):
        program = tensor_program(size, stride, offset)
        with pytest.raises(CheckpointError, match="does not fit"):
            read_pickled(zip_with(tmp_path, data_pkl=program, data__0=data))
    short = zip_with(tmp_path, data_pkl=tensor_program((2, 2), (2, 1)), data__0=data[:-1])
    with pytest.raises(CheckpointError, match="15 bytes instead of 16"):
        read_pickled(short)


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(np.array([1, "a"], dtype=object), 2))
    with pytest.raises(CheckpointError, match="Python objects"):
        read_pickled(path)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a file"):
        read_pickled(tmp_path / "absent.pt")
    torch.save({"a": torch.ones(100)}, tmp_path / "whole.pt")
    for name, data in {
        "empty.pt": b"",
        "text.pt": b"not a checkpoint",
        "short.pt": (tmp_path / "whole.pt").read_bytes()[:400],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=name):
            read_pickled(tmp_path / name)
    torch.save({"a": torch.ones(100)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes((tmp_path / "old.pt").read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"old\.pt"):
        read_pickled(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(CheckpointError, match=r"data\.pkl"):
        read_pickled(tmp_path / "other.zip")
