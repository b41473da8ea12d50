"""ncnn on the CPU: FP32, from its `.param` and `.bin` files.

The runtime takes floats with channels first, so the engine converts: uint8 [batch, height, width,
3] goes image by image through `Mat.from_pixels`, ncnn's own conversion. The program `pnnx`, from
the package of that name, translates the ONNX graph; it runs alone, without PyTorch or a network.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.backends.base import Backend, Engine, Outputs, Resources, Variant
from raudo.errors import EngineError, SourceError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from raudo.records import Artifact, Machine, PrecisionAudit, Target

COMPUTE = frozenset(
    {"Convolution", "ConvolutionDepthWise", "Deconvolution", "InnerProduct", "Gemm", "MatMul"}
)
LOWER = {"bf16": "use_bf16", "fp16": "use_fp16", "int8": "use_int8"}
"""Precision -> how the options that allow it begin."""
CONVERTER_SECONDS = 120


@dataclass(frozen=True)
class NcnnGraph:
    """The contents of a `.param` and of a `.bin` file."""

    structure: bytes
    weights: bytes


class Ncnn(Backend):
    """Tencent's ncnn.

    Its INT8 and BF16 are not offered: the tools that calibrate are in no package, and BF16 lost
    precision and time on the one CPU that it was tried on.
    """

    name = "ncnn"
    title = "ncnn"
    format = "ncnn"
    suffix = ".ncnn.param"
    companions: ClassVar[tuple[str, ...]] = (".bin",)
    modules: ClassVar[tuple[str, ...]] = ("ncnn",)
    extra = "ncnn"
    targets: ClassVar[tuple[Target, ...]] = ("edge",)
    variants: ClassVar[tuple[Variant, ...]] = (Variant("fp32", "fp32", batches=(1,)),)

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell which package is missing to make a file; None if none is."""
        del variant, machine
        missing = [m for m in ("onnx", "pnnx") if importlib.util.find_spec(m) is None]
        if missing:
            return f"not installed: {', '.join(missing)} (pip install 'raudo[ncnn-export]')"
        return None

    def read_graph(self, path: Path) -> Any:
        """Translate a contract ONNX file.

        Raises:
            SourceError: The converter fails, or ncnn lacks a layer that the model needs.
        """
        import onnx

        model = onnx.load(path)
        _sums_as_means(model)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            sides = _start_with_floats(model)
            onnx.save(model, file)
            graph = _convert(file, sides)
        _check_layers(graph.structure)
        return graph

    def write_graph(self, graph: Any, path: Path) -> None:
        """Write the `.param` file, and the `.bin` beside it."""
        path.write_bytes(graph.structure)
        path.with_suffix(".bin").write_bytes(graph.weights)

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load a pair of files; see `Backend.open`."""
        return NcnnEngine(artifact, resources)


class NcnnEngine(Engine):
    """A net that all threads share; the binding to Python lets one of them run at a time.

    So every run gets all of the threads, however many streams there are.
    """

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        super().__init__(artifact.manifest.spec)
        import ncnn

        self._ncnn = ncnn
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = resources.threads
        for name in dir(options):
            if name.startswith(tuple(LOWER.values())):
                setattr(options, name, False)
        self._net.opt = options
        files = (artifact.path, artifact.path.with_suffix(".bin"))
        steps = (self._net.load_param, self._net.load_model)
        for load, file in zip(steps, files, strict=True):
            if not file.is_file() or load(str(file)) != 0:
                raise EngineError(f"{file} does not load", hint="make it again with 'raudo export'")

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        import numpy as np

        found = [self._detect(np.ascontiguousarray(image)) for image in images]
        boxes, scores = (np.stack(parts) for parts in zip(*found, strict=True))
        return Outputs(boxes, scores)

    def _detect(self, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        import numpy as np

        kind = self._ncnn.Mat.PixelType.PIXEL_BGR
        pixels = self._ncnn.Mat.from_pixels(image, kind, self.spec.width, self.spec.height)
        with self._net.create_extractor() as extractor:
            extractor.input("in0", pixels)
            results = [extractor.extract(name) for name in ("out0", "out1")]
            if any(code for code, _ in results):
                raise EngineError(
                    "ncnn could not compute the outputs", hint="is there memory enough?"
                )
            arrays = [np.array(tensor) for _, tensor in results]
        return [array.reshape(-1, array.shape[-1]) for array in arrays]  # some keep a batch of one

    def audit(self) -> PrecisionAudit:
        """Count the computing layers by the lowest precision that they support and may use."""
        from raudo.records import PrecisionAudit

        found: Counter[str] = Counter()
        for layer in self._net.layers():
            if layer.type in COMPUTE:
                found[_precision(layer, self._net.opt)] += 1
        return PrecisionAudit(found=dict(found), providers={"CPU": sum(found.values())})

    def close(self) -> None:
        """Free the net."""
        self._net.clear()


def _precision(layer: Any, options: Any) -> str:
    if layer.support_bf16_storage and options.use_bf16_storage:
        return "bf16"
    if layer.support_fp16_storage and options.use_fp16_storage:
        return "fp16"
    return "int8" if options.use_int8_inference else "fp32"


def _sums_as_means(model: onnx.ModelProto) -> None:
    """Write sums as means times a count, and fix the batch to one.

    The converter overlooks axes that are an input, as those of a sum are.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    from raudo.graphs.fold import fold

    graph = fold(model)
    for place, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type != "ReduceSum":
            continue
        shape = graph.shapes[node.input[0]]
        axes = [int(axis) % len(shape) for axis in graph.constants[node.input[1]]]
        keep = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        mean, count = f"{node.output[0]}/mean", f"{node.output[0]}/count"
        total = np.array(np.prod([shape[axis] for axis in axes]), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(total, count))
        made = helper.make_node("ReduceMean", [node.input[0]], [mean], axes=axes, keepdims=keep)
        scaled = helper.make_node("Mul", [mean, count], list(node.output))
        model.graph.node.remove(node)
        model.graph.node.insert(place, scaled)
        model.graph.node.insert(place, made)


def _start_with_floats(model: onnx.ModelProto) -> tuple[int, int]:
    """Take the conversion of the images away, and return their height and width."""
    from onnx import TensorProto, helper

    graph = model.graph
    (images,) = graph.input
    _, height, width, _ = (d.dim_value for d in images.type.tensor_type.shape.dim)
    name = images.name
    while True:
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1 or users[0].op_type not in ("Cast", "Transpose"):
            break
        name = users[0].output[0]
        graph.node.remove(users[0])
    graph.ClearField("input")
    floats = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, height, width])
    graph.input.append(floats)
    return height, width


def _convert(file: Path, sides: tuple[int, int]) -> NcnnGraph:
    package = importlib.util.find_spec("pnnx")
    assert package is not None  # noqa: S101 (see `unsupported`)
    program = Path(str(package.origin)).with_name("pnnx.exe" if os.name == "nt" else "pnnx")
    shape = f"inputshape=[1,3,{sides[0]},{sides[1]}]f32"
    ended = subprocess.run(
        [program, file.name, shape, "fp16=0"],
        cwd=file.parent,
        capture_output=True,
        timeout=CONVERTER_SECONDS,
        check=False,
    )
    made = [file.with_name(f"model.ncnn.{kind}") for kind in ("param", "bin")]
    if ended.returncode or not all(part.is_file() for part in made):
        raise SourceError(
            f"pnnx could not translate the model (exit code {ended.returncode})",
            hint="this model can run in the other formats ('raudo list')",
        )
    return NcnnGraph(*(part.read_bytes() for part in made))


def _check_layers(structure: bytes) -> None:
    import ncnn

    lines = structure.decode().splitlines()[2:]  # after the magic number and the counts
    kinds = {line.split()[0] for line in lines if line.strip()}
    if unknown := sorted(kind for kind in kinds if ncnn.layer_to_index(kind) < 0):
        raise SourceError(
            f"ncnn has no layer for {', '.join(unknown)}",
            hint="this model can run in the other formats ('raudo list')",
        )
