"""Reads what a PyTorch checkpoint holds without unpickling it.

The opcodes of its pickles are followed symbolically (pickletools' tables say what each one takes
and leaves), so that every import is known by module and name before any of it happens. What
cannot be followed counts as an import that nobody knows.
"""

from __future__ import annotations

import io
import pickletools
import struct
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from raudo.checkpoints.archive import HINT_DAMAGED, read_pickle
from raudo.errors import MissingDependencyError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ZIP_MAGIC = b"PK\x03\x04"
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of a file in the format that torch.save wrote before version 1.6."""
_UNRESOLVED = "an import whose name is not written out"
_PARSE_ERRORS = (
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    AttributeError,
    MemoryError,  # a few bytes can announce a text of exabytes
)


@dataclass(frozen=True)
class Import:
    """A name that unpickling would import."""

    module: str
    name: str


Value = Import | str | int | tuple["Value", ...] | None
"""What the scan knows of an object on the pickle's stack; None stands for all the rest."""


@dataclass
class PickleScan:
    """What unpickling would do.

    Attributes:
        imports: (module, name) of all that would be imported.
        calls: Those of the imports that would be called.
        oddities: What no honest checkpoint does, in words.
        strings: All text.
    """

    imports: set[tuple[str, str]] = field(default_factory=set)
    calls: set[tuple[str, str]] = field(default_factory=set)
    oddities: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)


class _Machine:
    """Follows the opcodes of one pickle."""

    def __init__(self, scan: PickleScan) -> None:
        self.scan = scan
        self.stack: list[Value] = []
        self.below: list[list[Value]] = []
        self.memo: dict[int, Value] = {}
        self.special: dict[str, Callable[[Value], None]] = {
            "MARK": self._mark,
            "POP": self._pop,
            "DUP": self._dup,
            "MEMOIZE": self._memoize,
            "GLOBAL": self._global,
            "STACK_GLOBAL": self._stack_global,
            "INST": self._inst,
            "OBJ": self._obj,
            "REDUCE": self._reduce,
            "NEWOBJ": self._newobj,
            "NEWOBJ_EX": self._newobj_ex,
            "TUPLE": self._tuple,
            "BINPERSID": self._persistent,
        }

    def run(self, stream: BinaryIO) -> Value:
        """Follow one pickle up to its STOP, and return what is known of its value."""
        for opcode, argument, _ in pickletools.genops(stream):
            if isinstance(argument, str):
                self.scan.strings.add(argument)
            self._step(opcode, argument)
        return self.stack.pop()

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Value) -> None:
        name = opcode.name
        if name == "STOP":
            return
        if name in self.special:
            self.special[name](argument)
        elif "GET" in name:
            self.stack.append(self.memo[int(str(argument))])
        elif "PUT" in name:
            self.memo[int(str(argument))] = self.stack[-1]
        else:
            if name.startswith("EXT"):
                self.scan.oddities.add(f"an import by extension code ({name} {argument})")
            self._generic(opcode, argument)

    def _generic(self, opcode: pickletools.OpcodeInfo, argument: Value) -> None:
        before = opcode.stack_before
        if pickletools.markobject in before:
            self._pop_mark()
            before = before[: before.index(pickletools.markobject)]
        taken = [self.stack.pop() for _ in before]
        # BUILD, APPEND, SETITEM and their kin change the object that lies below their operands.
        if opcode.name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.stack.append(tuple(reversed(taken)))
            return
        if taken and isinstance(target := taken[-1], Import):
            self.scan.oddities.add(f"a change to {target.module}.{target.name} itself")
        constant = not opcode.stack_before and opcode.name != "PERSID"
        known = argument if constant and isinstance(argument, str | int) else None
        self.stack.extend(known for _ in opcode.stack_after)

    def _tuple(self, _: Value) -> None:
        items = tuple(self._pop_mark())
        self.stack.append(items)

    def _persistent(self, _: Value) -> None:
        """Files of before PyTorch 1.6 name a layer's class by ("module", class, its source)."""
        match self.stack.pop():
            case ("module", Import() as layer, *_):
                self.stack.append(layer)
            case _:
                self.stack.append(None)

    def _mark(self, _: Value) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _pop_mark(self) -> list[Value]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _pop(self, _: Value) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark()

    def _dup(self, _: Value) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self, _: Value) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _global(self, argument: Value) -> None:
        module, _, name = str(argument).partition(" ")
        self._import(module, name)

    def _stack_global(self, _: Value) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if isinstance(module, str) and isinstance(name, str):
            self._import(module, name)
        else:
            self.scan.oddities.add(_UNRESOLVED)
            self.stack.append(None)

    def _import(self, module: str, name: str) -> None:
        module = {"__builtin__": "builtins"}.get(module, module)
        self.scan.imports.add((module, name))
        self.stack.append(Import(module, name))

    def _called(self, target: Value) -> None:
        if isinstance(target, Import):
            self.scan.calls.add((target.module, target.name))
        else:
            self.scan.oddities.add("a call of something that it made itself")

    def _inst(self, argument: Value) -> None:
        self._pop_mark()
        self._global(argument)
        self._called(self.stack.pop())
        self.stack.append(None)

    def _obj(self, _: Value) -> None:
        self._called(self._pop_mark()[0])
        self.stack.append(None)

    def _reduce(self, _: Value) -> None:
        _, target = self.stack.pop(), self.stack.pop()
        self._called(target)
        self.stack.append(None)

    def _newobj(self, _: Value) -> None:
        _, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, Import):
            self._called(target)
        self.stack.append(None)

    def _newobj_ex(self, _: Value) -> None:
        self.stack.pop()
        self._newobj(_)


def scan_pickle(stream: BinaryIO, scan: PickleScan) -> Value:
    """Scan the pickle at the stream's position, and leave the stream behind it.

    Args:
        stream: A binary stream.
        scan: Takes what is found.

    Returns:
        What is known of the pickle's value.

    Raises:
        SourceError: The bytes are no pickle, or end too early.
    """
    try:
        return _Machine(scan).run(stream)
    except _PARSE_ERRORS as error:
        raise SourceError("the pickle in it is damaged or cut off", hint=HINT_DAMAGED) from error


def scan_checkpoint(path: Path) -> PickleScan:
    """Scan a file that torch.load would read: a zip, or several pickles in a row.

    A zip's members are held to their checksums. Files of before PyTorch 1.6 are pickles in a row
    and have none: damage to their weights cannot be told.

    Raises:
        SourceError: The file is no checkpoint, is damaged, or is of a kind that cannot be scanned.
    """
    try:
        with path.open("rb") as stream:
            zipped = stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC
            stream.seek(0)
            if not zipped:
                return _scan_legacy(path, stream)
            scan = PickleScan()
            scan_pickle(io.BytesIO(read_pickle(stream)), scan)
            return scan
    except SourceError as error:
        raise SourceError(f"cannot read {path}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror or error}", hint="check the file's permissions"
        ) from error


def _scan_legacy(path: Path, stream: BinaryIO) -> PickleScan:
    if tarfile.is_tarfile(path):
        raise SourceError(
            "it is a tar archive, which hides several pickles",
            hint="load and save it again with a PyTorch of this decade",
        )
    scan = PickleScan()
    try:
        first = scan_pickle(stream, scan)
    except SourceError as error:
        raise SourceError(
            "it is neither a PyTorch checkpoint nor an ONNX file, or it is cut off",
            hint="give the .pt or .pth file that training saved, or an exported .onnx file",
        ) from error
    if first == TORCH_MAGIC:
        for _ in ("protocol version", "system", "the object", "storage keys"):
            scan_pickle(stream, scan)
    return scan


def load_checkpoint(path: Path, *, trusted: bool = False) -> Any:
    """Unpickle a checkpoint that holds plain tensors and values.

    Args:
        path: A file whose scan found nothing unknown, or that the user vouches for.
        trusted: The user does; PyTorch's safe unpickler is used otherwise.

    Raises:
        MissingDependencyError: PyTorch is not installed.
        SourceError: The file is damaged, or needs code that is not installed.
    """
    torch = import_torch()
    import numpy as np

    # Scores that training kept beside the weights are numpy scalars.
    scalar = np.float64(0).__reduce__()[0]
    values = [scalar, np.dtype, *(type(np.dtype(t)) for t in (np.float64, np.float32, np.int64))]
    aliases = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals([*values, *aliases]):
            return torch.load(path, map_location="cpu", weights_only=not trusted)
    except Exception as error:  # unpickling raises whatever damaged or foreign content makes of it
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(f"cannot load {path}: {reason}", hint=HINT_DAMAGED) from error


def import_torch() -> Any:
    """Import PyTorch.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "opening a PyTorch checkpoint needs torch, which is not installed",
            hint="pip install 'raudo[torch]'",
        ) from error
    return torch
