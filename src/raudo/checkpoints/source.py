"""Opens a model file: looks into it, finds its family, refuses what is unsafe, loads it."""

from __future__ import annotations

import pickletools
from dataclasses import replace
from typing import TYPE_CHECKING

from raudo import discover
from raudo.checkpoints.imports import disallowed
from raudo.checkpoints.scan import ZIP_MAGIC, PickleScan, scan_checkpoint
from raudo.errors import MissingDependencyError, SourceError, UsageError
from raudo.families.base import Evidence
from raudo.graphs.surgery import inputs_of, shape_of
from raudo.records import MAX_SIDE

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.families.base import Family, Model

_PROTOBUF_FIRST_BYTE = 0x08
"""Field 1 as a varint: `ir_version`, with which every ONNX file starts (onnx.proto)."""
_PICKLE_FIRST_BYTES = frozenset(opcode.code.encode("latin-1")[0] for opcode in pickletools.opcodes)
_SHOWN = 8


def open_model(path: Path, *, size: tuple[int, int] | None = None, trust: bool = False) -> Model:
    """Open a trained detector.

    Args:
        path: A PyTorch checkpoint or an ONNX file.
        size: Input (height, width) in pixels; None takes the model's own.
        trust: Unpickle the file even though it imports code that nobody vouches for.

    Raises:
        SourceError: The file is missing, damaged, of an unknown family, unsafe, or no detector.
        MissingDependencyError: A package that the family needs is not installed.
        UsageError: The size cannot be right.
    """
    if size is not None and not all(0 < side <= MAX_SIDE for side in size):
        raise UsageError(
            f"an input of {size[0]}x{size[1]} pixels makes no sense",
            hint=f"each side is between 1 and {MAX_SIDE}",
        )
    evidence, scan = inspect(path)
    family = recognize(evidence)
    unsafe = disallowed(scan, family)
    if unsafe and not trust:
        raise SourceError(
            f"{path} is a pickle that could run code; it holds {_some(unsafe)}",
            hint="if you know who made it and trust them, open it with --trust-checkpoint",
        )
    if family is None:
        raise _unrecognized(evidence)
    return family.load(replace(evidence, trusted=bool(unsafe)), size)


def inspect(path: Path) -> tuple[Evidence, PickleScan]:
    """Look into a model file without running anything of it.

    Raises:
        SourceError: The file is missing, empty, damaged, or neither a checkpoint nor ONNX.
        MissingDependencyError: It is an ONNX file, and the onnx package is not installed.
    """
    head = first_bytes(path)
    if head[0] == _PROTOBUF_FIRST_BYTE:
        return _inspect_onnx(path), PickleScan()
    if head != ZIP_MAGIC and head[0] not in _PICKLE_FIRST_BYTES:
        raise SourceError(
            f"{path} is neither a PyTorch checkpoint nor an ONNX file",
            hint="give the .pt or .pth file that training saved, or an exported .onnx file",
        )
    scan = scan_checkpoint(path)
    imports = frozenset(f"{module}.{name}" for module, name in scan.imports)
    return Evidence(path, "checkpoint", imports, frozenset(scan.strings), {}), scan


def recognize(evidence: Evidence) -> Family | None:
    """Return the first family that recognizes a file by its contents."""
    return next((f for f in discover.families() if f.recognizes(evidence)), None)


def first_bytes(path: Path) -> bytes:
    """Return what a model file begins with.

    Raises:
        SourceError: It is missing, empty, a folder, or cannot be read.
    """
    if path.is_dir():
        raise SourceError(f"{path} is a folder", hint="give the model file in it")
    try:
        with path.open("rb") as stream:
            head = stream.read(len(ZIP_MAGIC))
    except FileNotFoundError as error:
        raise SourceError(f"no such model: {path}", hint="check the path") from error
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror or error}", hint="check its permissions"
        ) from error
    if not head:
        raise SourceError(f"{path} is empty", hint="get the file again")
    return head


def _inspect_onnx(path: Path) -> Evidence:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingDependencyError(
            "reading an ONNX file needs onnx, which is not installed",
            hint="pip install 'raudo[onnx]'",
        ) from error

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise SourceError(
            f"{path} is not an ONNX file, or is damaged or cut off",
            hint="get the file again, or export it again",
        ) from error
    if not model.graph.node or not model.graph.output:
        raise SourceError(f"{path} holds no ONNX graph", hint="export it again")
    strings = {text for prop in model.metadata_props for text in (prop.key, prop.value)}
    values = (*inputs_of(model), *model.graph.output)
    shapes = {value.name: shape_of(value) for value in values}
    return Evidence(path, "onnx", frozenset(), frozenset(strings), shapes)


def _unrecognized(evidence: Evidence) -> SourceError:
    if evidence.kind == "onnx":
        shapes = (f"{name} {list(shape)}" for name, shape in evidence.shapes.items())
        found = f"tensors {', '.join(shapes)}"
    else:
        own = sorted(n for n in evidence.imports if not n.startswith(("torch", "collections")))
        keys = sorted(s for s in evidence.strings if s.endswith((".weight", ".bias")))
        weights = f"weights {_some(keys)}" if keys else "no network's weights"
        found = f"objects of {_some(own)}" if own else weights
    titles = "; ".join(family.title for family in discover.families())
    return SourceError(
        f"{evidence.path} is of no model family that raudo knows; it holds {found}",
        hint=f"supported: {titles}; other models: export them to one of the ONNX layouts",
    )


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")
