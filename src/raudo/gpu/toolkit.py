"""NVIDIA's library for inference, as it is found: what differs between its flavours and versions.

`backends/tensorrt.py` finds the module; `build.py` and `lane.py` work with any of them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

LOGGER = "raudo_logger"


@dataclass(frozen=True)
class Toolkit:
    """One module, and what differs between them.

    Attributes:
        module: The Python module; its names are those of the C++ API.
        title: Flavour and version.
        typed: The graph alone decides on precision (since 9.1); before, flags have to allow it.
        aims: It builds engines for GPUs that are not here, so it times no kernels.
        network: Flags of a new network.
        share_profile: Several contexts of one engine may use the same profile.
        branches: Branches of a network can be computed side by side, on streams of their own (since
            8.6; TensorRT for RTX is left to choose).
    """

    module: Any
    title: str
    typed: bool
    aims: bool
    network: int
    share_profile: bool
    branches: bool

    @classmethod
    def of(cls, module: Any, flavour: str) -> Toolkit:
        """Tell what a module is like, by the names that it has."""
        creation = module.NetworkDefinitionCreationFlag
        typed = hasattr(creation, "STRONGLY_TYPED")
        flag = creation.STRONGLY_TYPED if typed else creation.EXPLICIT_BATCH
        aims = hasattr(module, "ComputeCapability")
        settings = getattr(module, "IBuilderConfig", None)
        return cls(
            module=module,
            title=f"{flavour} {module.__version__}",
            typed=typed,
            aims=aims,
            network=1 << int(flag),
            share_profile=typed,
            branches=not aims and hasattr(settings, "max_aux_streams"),
        )

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of GPU that it can build for, `sm86` for instance."""
        members = self.module.ComputeCapability.__members__ if self.aims else ()
        return tuple(name.lower() for name in members if name.startswith("SM"))

    def logger(self) -> Any:
        """Return the process's one logger, its errors forgotten.

        A second one would not be heard. Worse, the library says so while it holds a lock, and if
        Python then collects another of its objects as garbage, that waits for this lock for ever.
        """
        kept = vars(self.module)
        if LOGGER not in kept:
            kept[LOGGER] = _make_logger(self.module.ILogger)
        kept[LOGGER].errors.clear()
        return kept[LOGGER]


def _make_logger(base: Any) -> Any:
    """Make a logger that keeps errors, and passes everything on to Python's."""
    severity = base.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
    }

    class Logger(base):  # type: ignore[misc]  # known once the module is loaded
        def __init__(self) -> None:
            base.__init__(self)
            self.errors: list[str] = []

        def log(self, level: Any, text: str) -> None:
            grade = levels.get(level, logging.DEBUG)
            log.log(grade, "%s", text)
            if grade == logging.ERROR:
                self.errors.append(text)

        def reason(self) -> str:
            text = self.errors[-1] if self.errors else "it does not say why"
            return text.strip().partition("\n")[0]

    return Logger()
