from __future__ import annotations

from typing import ClassVar

import pytest

from raudo.checkpoints.imports import disallowed
from raudo.checkpoints.scan import PickleScan
from raudo.families.base import Evidence, Family, Model


class Known(Family):
    name: ClassVar[str] = "known"
    title: ClassVar[str] = "known"
    allowed_imports: ClassVar[tuple[str, ...]] = ("known.layers",)
    allowed_calls: ClassVar[tuple[str, ...]] = ("known.settings.Settings",)

    def recognizes(self, evidence: Evidence) -> bool:
        return True

    def load(self, evidence: Evidence, size: tuple[int, int] | None) -> Model:
        raise NotImplementedError


def verdict(module: str, name: str, *, called: bool, family: Family | None) -> tuple[str, ...]:
    scan = PickleScan(imports={(module, name)}, calls={(module, name)} if called else set())
    return disallowed(scan, family)


@pytest.mark.parametrize(
    ("module", "name", "called"),
    [
        ("torch._utils", "_rebuild_tensor_v2", True),
        ("torch", "FloatStorage", False),
        ("collections", "OrderedDict", True),
        ("torch.nn.modules.conv", "Conv2d", False),
        ("numpy._core.multiarray", "scalar", True),
    ],
)
def test_allows_values_and_layers(module: str, name: str, called: bool) -> None:
    assert verdict(module, name, called=called, family=None) == ()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.nn.modules.conv", "F"),
        ("torch.nn.modules.module", "torch"),
        ("torch.nn.modules.conv.evil", "Conv2d"),
        ("torch.nn", "Conv2d.forward"),
        ("numpy", "load"),
        ("builtins", "getattr"),
        ("builtins", "exec"),
        ("collections", "namedtuple"),
        ("known.layersevil", "Layer"),
        ("known", "Layer"),
    ],
)
def test_refuses_neighbours_of_what_is_allowed(module: str, name: str) -> None:
    assert verdict(module, name, called=False, family=Known()) == (f"{module}.{name}",)


def test_a_familys_classes_are_restored_but_not_called() -> None:
    family = Known()
    assert verdict("known.layers.deep", "Layer", called=False, family=family) == ()
    assert verdict("known.layers.deep", "v10Layer", called=False, family=family) == ()
    assert verdict("known.layers.deep", "Layer", called=False, family=None) != ()
    assert verdict("known.layers.deep", "Layer", called=True, family=family) == (
        "known.layers.deep.Layer(...)",
    )
    assert verdict("known.layers", "download", called=False, family=family) != ()
    assert verdict("known.settings", "Settings", called=True, family=family) == ()
