"""Read torch and plain pickle files into tensors and plain containers, executing nothing.

A pickle is a program that may name any function and call it. Here names mean only what this file gives them:
tensors, NumPy arrays and scalars are rebuilt by own code from bytes; dicts, lists, sets and ``OrderedDict``
are what they are; every other name becomes an ``Inert`` record that remembers its arguments and state and
does nothing.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from fairseq_ecg.errors import CheckpointError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


class Inert:
    """Stands for an object of a class that is not rebuilt: its name, what it was made of, its state."""

    origin = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        self = object.__new__(cls)
        self.args, self.kwargs = args, kwargs
        self.state, self.items = None, []
        return self

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: Any
    items: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return Inert(self, *args, **kwargs)

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Any) -> None:
        self.items.extend(items)

    def add(self, item: Any) -> None:
        self.items.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __repr__(self) -> str:
        return f"<{self.origin or 'object'} (not rebuilt)>"


def read_pickled(path: str | Path) -> Any:
    """Everything a torch or pickle file holds, as tensors, NumPy arrays and plain containers.

    Raises:
        CheckpointError: the file is absent, of another format, truncated, or describes impossible tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; give the path of a checkpoint")
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as file:
            return _read_stream(file, path.stat().st_size)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        ImportError,
        OverflowError,
        RuntimeError,
        RecursionError,
        MemoryError,
        struct.error,
    ) as error:
        raise CheckpointError(
            f"{path} cannot be read as a torch or pickle file ({type(error).__name__}: {error}); "
            "it may be damaged or of another format"
        ) from error


@dataclass
class _Storage:
    """Bytes of a tensor; in the older format they follow after the tensors that use them."""

    dtype: torch.dtype
    num_elements: int
    data: Tensor | None = None

    def fill(self, data: bytes) -> None:
        size = torch.empty((), dtype=self.dtype).element_size()
        if len(data) != self.num_elements * size:
            raise CheckpointError(f"a tensor has {len(data)} bytes instead of {self.num_elements * size}")
        if not data:
            self.data = torch.empty(0, dtype=self.dtype)
        else:
            self.data = torch.frombuffer(bytearray(data), dtype=self.dtype)


@dataclass
class _Deferred:
    """A tensor to be made once its storage is filled."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        data = self.storage.data
        if data is None:
            raise CheckpointError("a tensor's data are missing from the file")
        count = math.prod(self.size)
        reach = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True)) + 1
        negative = min((self.offset, *self.size, *self.stride)) < 0
        # A stride of 0 can describe a tensor far larger than the file.
        if negative or count > max(data.numel(), 1) or (count and reach > data.numel()):
            raise CheckpointError(
                f"a tensor of size {self.size} and stride {self.stride} does not fit its {data.numel()} "
                f"numbers"
            )
        return data.as_strided(self.size, self.stride, self.offset).clone()


class _Array:
    """A NumPy array in the making: pickles create it empty and then set its state."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(data, bytes):
            raise CheckpointError("a NumPy array of Python objects is not read")
        array = np.frombuffer(data, _dtype_of(dtype))
        self.value = array.reshape(shape, order="F" if fortran else "C").copy()


class _DType:
    """A NumPy dtype in the making."""

    def __init__(self, code: Any = "f8", *_: Any) -> None:
        self.code, self.order = str(code), ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">", "|") else ""


def _dtype_of(described: Any) -> np.dtype[Any]:
    dtype = np.dtype(described.order + described.code if isinstance(described, _DType) else str(described))
    if dtype.kind not in "biufcSU":
        raise CheckpointError(f"a NumPy array of type {dtype} is not read")
    return dtype


def _scalar(dtype: Any, data: bytes = b"") -> Any:
    if not isinstance(data, bytes):
        raise CheckpointError("a NumPy scalar that holds a Python object is not read")
    return np.frombuffer(data, _dtype_of(dtype))[0].item()


def _buffer_array(data: Any, dtype: Any, shape: Any, order: str = "C") -> Any:
    return np.frombuffer(data, _dtype_of(dtype)).reshape(shape, order="F" if order == "F" else "C").copy()


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> _Deferred:
    if not isinstance(storage, _Storage):
        raise CheckpointError("a tensor without a storage")
    return _Deferred(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    return str(text).encode(encoding if encoding in ("latin1", "utf-8", "ascii") else "latin1")


def _set(items: Any = ()) -> set[Any]:
    return set(items) if isinstance(items, list | tuple) else set()


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items) if isinstance(items, list | tuple) else ()


class _Maker:
    """A function a pickle may call and do nothing else with: its attributes cannot be set."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise CheckpointError(f"tries to set {name} of a function of the reader")

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError("tries to set the state of a function of the reader")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("torch", "Size"): _tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
}
for _module in ("builtins", "__builtin__"):
    _KNOWN |= {(_module, "set"): _set, (_module, "frozenset"): _frozenset}
for _package in ("numpy.core", "numpy._core"):
    _KNOWN |= {
        (f"{_package}.multiarray", "_reconstruct"): _Array,
        (f"{_package}.multiarray", "scalar"): _scalar,
        (f"{_package}.numeric", "_frombuffer"): _buffer_array,
    }


class _Unpickler(pickle.Unpickler):
    """Resolves names by ``_KNOWN`` and storages by a function of the file format."""

    def __init__(self, file: IO[bytes], load_storage: Callable[[tuple[Any, ...]], _Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self.load_storage = load_storage

    def find_class(self, module: str, name: str, /) -> Any:
        if (known := _KNOWN.get((module, name))) is not None:
            return _Maker(known)
        if module in ("torch", "torch.storage") and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module == "numpy.dtypes" and name.endswith("DType"):
            return type(name, (_DType,), {"__init__": _dtype_init(name)})
        return type(name.rpartition(".")[2] or "Inert", (Inert,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: Any, /) -> Any:
        if not isinstance(pid, tuple) or not pid or pid[0] != "storage":
            raise CheckpointError("a reference to something that is not a tensor's storage")
        return self.load_storage(pid)


def _dtype_init(name: str) -> Callable[..., None]:
    def init(self: _DType, *_: Any) -> None:
        _DType.__init__(self, name.removesuffix("DType").lower())

    return init


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if "data.pkl" not in names:
            raise CheckpointError("is a zip archive without data.pkl; it was not written by torch.save")
        if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
            raise CheckpointError("was written on a big-endian machine, which is not supported")
        storages: dict[str, _Storage] = {}

        def load_storage(pid: tuple[Any, ...]) -> _Storage:
            _, dtype, key, _, count = pid[:5]
            if key not in storages:
                storage = _Storage(_checked_dtype(dtype), int(count))
                storage.fill(archive.read(names[f"data/{key}"]))
                storages[key] = storage
            return storages[key]

        with archive.open(names["data.pkl"]) as file:
            return _plain(_Unpickler(file, load_storage).load())


def _read_stream(file: IO[bytes], num_bytes: int) -> Any:
    """The format before torch 1.6 (several pickles, then the data), or a single plain pickle."""
    storages: dict[str, _Storage] = {}

    def load_storage(pid: tuple[Any, ...]) -> _Storage:
        _, dtype, key, _, count = pid[:5]
        if len(pid) > 5 and pid[5] is not None:
            raise CheckpointError("holds views of storages, a form older than torch 0.4 that is not read")
        return storages.setdefault(str(key), _Storage(_checked_dtype(dtype), int(count)))

    first = _Unpickler(file, load_storage).load()
    if first != _LEGACY_MAGIC:
        return _plain(first)
    if _Unpickler(file, load_storage).load() != _LEGACY_PROTOCOL:
        raise CheckpointError("is of an unknown version of torch's format")
    system = _Unpickler(file, load_storage).load()
    if not system.get("little_endian", True):
        raise CheckpointError("was written on a big-endian machine, which is not supported")
    tree = _Unpickler(file, load_storage).load()
    for key in _Unpickler(file, load_storage).load():
        storage = storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        size = torch.empty((), dtype=storage.dtype).element_size()
        if not 0 <= count * size <= num_bytes:
            raise CheckpointError(f"a tensor claims {count} numbers")
        storage.num_elements = count
        storage.fill(file.read(count * size))
    return _plain(tree)


def _checked_dtype(dtype: Any) -> torch.dtype:
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"a tensor of unknown type {dtype!r}")
    return dtype


def _plain(tree: Any) -> Any:
    """Finish deferred tensors and arrays, and make plain dicts of ordered ones."""
    if isinstance(tree, _Deferred):
        return tree.tensor()
    if isinstance(tree, _Array):
        return tree.value
    if isinstance(tree, dict):
        return {_plain(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(item) for item in tree]
    if isinstance(tree, tuple):
        return tuple(_plain(item) for item in tree)
    if isinstance(tree, Inert):
        tree.args, tree.state, tree.items = _plain(tree.args), _plain(tree.state), _plain(tree.items)
    return tree
