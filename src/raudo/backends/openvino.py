"""OpenVINO on the CPU: FP32, FP16, BF16 and INT8."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.backends.base import PROFILED_RUNS, Backend, Engine, Made, Outputs, Resources, Variant
from raudo.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Artifact, Machine, Manifest, NodeProfile, PrecisionAudit, Target

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
PRECISION_NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}
COMPUTE = frozenset({"Convolution", "MatMul", "FullyConnected", "Deconvolution"})
"""Node types that do the work; the precision of the rest follows from theirs."""
LAYERS = COMPUTE | {"GroupConvolution"}
"""The same in files."""
DISTRIBUTED = frozenset({"Exp", "SoftMax"})
"""What precedes a layer that decodes: the mean of a distribution (DFL, arXiv 2006.04388)."""
EXACT = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:f16"}
"""Attribute of a layer that computes in FP32, whatever the precision of the others."""
MAX_EXPONENT = 80.0
TIMED_NODES = {"PERF_COUNT": True}


class OpenVino(Backend):
    """OpenVINO's CPU plug-in, from IR files.

    What INT8 leaves out, layers given back included, computes in the precision that the runtime is
    told when it loads a file: FP32, FP16 or BF16, candidates that the gates judge. Decoding
    computes in FP32 in all of them.
    """

    name = "openvino"
    title = "OpenVINO"
    format = "openvino"
    suffix = ".xml"
    companions: ClassVar[tuple[str, ...]] = (".bin",)
    modules: ClassVar[tuple[str, ...]] = ("openvino",)
    extra = "openvino"
    targets: ClassVar[tuple[Target, ...]] = ("production_cpu",)
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("fp32", "fp32", {"rest": "fp32"}),
        Variant("fp16", "fp16", {"rest": "fp16"}),
        Variant("bf16", "bf16", {"rest": "bf16"}),
        Variant("fp16-pieces", "fp16", {"rest": "fp16"}, silu="pieces"),
        Variant("bf16-pieces", "bf16", {"rest": "bf16"}, silu="pieces"),
        Variant("int8", "int8", {"rest": "fp32"}),
        Variant("int8-fp16", "int8", {"rest": "fp16"}),
        Variant("int8-bf16", "int8", {"rest": "bf16"}),
    )
    keeps_compiled = True

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell why this CPU cannot run a variant; None if it can."""
        del machine
        import openvino

        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        asked = (variant.precision.upper(), str(variant.options["rest"]).upper())
        lacking = next((precision for precision in asked if precision not in able), None)
        return f"this CPU has no {lacking} arithmetic" if lacking else None

    def read_graph(self, path: Path) -> Any:
        """Read a contract ONNX file, in the shape that INT8 needs.

        The runtime's own simplifications are made before quantization instead of after it: a SiLU
        that is still Sigmoid and Multiply, weights that are still computed and halves that are
        still two slices get quantizers in the wrong places, and stay outside of INT8.
        """
        import openvino
        from openvino._offline_transformations import apply_moc_transformations

        graph = openvino.Core().read_model(str(path))
        apply_moc_transformations(graph, cf=True)
        _shorten_distributions(graph)
        return graph

    def write_graph(self, graph: Any, path: Path) -> None:
        """Write the `.xml`, and the `.bin` beside it."""
        import openvino

        try:
            openvino.save_model(graph, str(path), compress_to_fp16=False)
        except RuntimeError as error:  # how it says, among others, that a disk is full
            raise OSError(f"OpenVINO wrote only a part ({error})") from error

    def make(self, graph: Any, path: Path, variant: Variant, gpus: tuple[str, ...] = ()) -> Made:
        """Write a graph; its decoding stays in FP32 where the rest does not; see `Backend.make`."""
        made = super().make(graph, path, variant, gpus)
        if variant.options["rest"] != "fp32":
            _decode_exactly(path)
        return made

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load an IR file; see `Backend.open`."""
        return OpenVinoEngine(artifact, resources)


def _decode_exactly(path: Path) -> None:
    """Let all that follows the layers that predict compute in FP32.

    A coordinate near 640 is good to 2 pixels in BF16, and to half a pixel in FP16. The runtime
    takes the attribute from a file only.
    """
    from xml.etree import ElementTree as Tree

    file = Tree.parse(path)  # noqa: S314 (the runtime wrote it a moment ago)
    layers = {layer.get("id"): layer for layer in file.iter("layer")}
    sources: dict[str | None, list[str | None]] = {}
    for edge in file.iter("edge"):
        sources.setdefault(edge.get("to-layer"), []).append(edge.get("from-layer"))

    def predicts(number: str | None) -> bool:
        before = {layers[source].get("type") for source in sources.get(number, [])}
        return layers[number].get("type") in LAYERS and not before & DISTRIBUTED

    ahead = [number for number, layer in layers.items() if layer.get("type") == "Result"]
    decoding = set(ahead)
    while ahead:
        before = {n for n in sources.get(ahead.pop(), []) if n not in decoding and not predicts(n)}
        decoding |= before
        ahead.extend(before)
    for number in decoding:
        information = layers[number].find("rt_info")
        if information is None:
            information = Tree.SubElement(layers[number], "rt_info")
        Tree.SubElement(information, "attribute", EXACT)
    file.write(path)


def _shorten_distributions(graph: Any) -> None:
    """Turn sum(softmax(x) * bins) into sum(exp(x) * bins) / sum(exp(x)), both sums one product.

    This plug-in's softmax over the few bins of a box side (DFL, arXiv 2006.04388) takes longer
    than all of the rest of decoding. The exponent is bounded: FP32 ends at exp(88).
    """
    import numpy as np
    from openvino import opset14

    for total in graph.get_ordered_ops():
        if (found := _distribution(total)) is None:
            continue
        logits, bins = found
        powers = opset14.exp(opset14.clamp(logits, -MAX_EXPONENT, MAX_EXPONENT))
        sums = opset14.matmul(powers, np.stack([bins, np.ones_like(bins)], 1), False, False)
        parts = opset14.variadic_split(sums, -1, [1, 1])
        mean = opset14.squeeze(opset14.divide(parts.output(0), parts.output(1)), np.array([-1]))
        mean.set_friendly_name(total.get_friendly_name())
        total.output(0).replace(mean.output(0))


def _distribution(total: Any) -> tuple[Any, NDArray[np.float32]] | None:
    """Return logits and bins if a node is the mean of a distribution over the last axis."""
    if total.get_type_name() != "ReduceSum" or total.get_keep_dims():
        return None
    product = total.input_value(0).get_node()
    if product.get_type_name() != "Multiply":
        return None
    shares, bins = (product.input_value(side).get_node() for side in (0, 1))
    if bins.get_type_name() == "Convert":
        bins = bins.input_value(0).get_node()
    if shares.get_type_name() != "Softmax" or bins.get_type_name() != "Constant":
        return None
    last = len(shares.get_output_partial_shape(0)) - 1
    axes = {int(axis) for axis in total.input_value(1).get_node().get_data().reshape(-1)}
    values = bins.get_data().astype("float32").reshape(-1)
    length = shares.get_output_partial_shape(0)[last]
    fits = length.is_static and length.get_length() == len(values) == bins.shape[-1]
    if not fits or shares.get_axis() % (last + 1) != last or not axes <= {last, -1}:
        return None
    return shares.input_value(0), values


class OpenVinoEngine(Engine):
    """A compiled model, with one infer request for each thread that runs it."""

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        super().__init__(artifact.manifest.spec)
        import openvino

        self._core, self._path = openvino.Core(), artifact.path
        self._tensor = openvino.Tensor
        self._batch = resources.batch
        self._local = threading.local()
        try:
            _refuse_another_precision(self._core, artifact)
            self._settings: dict[str, Any] = {
                "INFERENCE_PRECISION_HINT": HINTS[str(artifact.manifest.options["rest"])],
                "INFERENCE_NUM_THREADS": resources.threads,
                "NUM_STREAMS": resources.streams,
            }
            self._compiled = (
                self._start_as_before(artifact.manifest)
                if resources.kept
                else self._compile(self._settings)
            )
        except (RuntimeError, KeyError) as error:
            raise EngineError(
                f"{artifact.path} does not load: {str(error).splitlines()[-1]}",
                hint="make it again with 'raudo export'",
            ) from error

    def _compile(self, settings: dict[str, Any]) -> Any:
        graph = self._core.read_model(str(self._path))
        graph.reshape([self._batch, self.spec.height, self.spec.width, 3])
        return self._core.compile_model(graph, "CPU", settings)

    def _start_as_before(self, manifest: Manifest) -> Any:
        """Import what was compiled before; where nothing is kept, compile it.

        It serves any number of streams and threads, on all CPUs with the same instructions: the
        runtime compares them.
        """
        import openvino

        from raudo.kept import Kept, digest_word

        shape = self._batch, self.spec.height, self.spec.width
        kept = Kept(
            self._path,
            [
                digest_word(manifest.files_sha256),
                openvino.get_version(),
                "x".join(map(str, shape)),
                str(manifest.options["rest"]),
                *self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
            ],
        )
        if (content := kept.read()) is not None:
            with contextlib.suppress(RuntimeError):  # of a CPU that can more than this one
                return self._core.import_model(content, "CPU", self._settings)
        compiled = self._compile(self._settings)
        kept.write(compiled.export_model().getvalue())
        return compiled

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        if missing := self._batch - len(images):  # the last batch of a source may be short
            import numpy as np

            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
            full = self._infer(request, images)
            return _first(full, self._batch - missing)
        return self._infer(request, images)

    def _infer(self, request: Any, images: NDArray[np.uint8]) -> Outputs:
        request.set_input_tensor(0, self._tensor(images, shared_memory=True))
        request.infer(share_outputs=True)  # what it returns otherwise is a copy of all outputs
        boxes, scores, *labels = (
            request.get_output_tensor(i).data for i in range(len(self._compiled.outputs))
        )
        return Outputs(boxes, scores, labels[0] if labels else None)

    def audit(self) -> PrecisionAudit:
        """Count the computing nodes of the runtime's own graph by their precision."""
        from raudo.records import PrecisionAudit

        found: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ops():
            info = node.get_rt_info()
            if _text(info["layerType"]) in COMPUTE:
                precision = _text(info["runtimePrecision"])
                found[PRECISION_NAMES.get(precision, precision)] += 1
        return PrecisionAudit(found=dict(found), providers={"CPU": sum(found.values())})

    def profile(self, images: NDArray[np.uint8]) -> tuple[NodeProfile, ...]:
        """Time each node; see `Engine.profile`."""
        from raudo.records import NodeProfile

        compiled = self._compile(self._settings | TIMED_NODES)
        moving = _moving_bytes(compiled.get_runtime_model())
        request = compiled.create_infer_request()
        request.set_input_tensor(0, self._tensor(images, shared_memory=True))
        times: dict[str, list[float]] = {}
        kinds: dict[str, tuple[str, str]] = {}
        for number in range(PROFILED_RUNS + 1):
            request.infer()
            for node in request.get_profiling_info() if number else ():  # the first warms up
                times.setdefault(node.node_name, []).append(node.real_time.total_seconds() * 1e3)
                kinds[node.node_name] = node.node_type, node.exec_type
        return tuple(
            NodeProfile(
                name=name,
                type=kinds[name][0],
                precision="uint8" if name in moving else _executed_precision(kinds[name][1]),
                milliseconds=min(taken),
            )
            for name, taken in times.items()
            if any(taken)
        )

    def close(self) -> None:
        """Free the compiled model."""
        self._local = threading.local()
        del self._compiled


def _refuse_another_precision(core: Any, artifact: Artifact) -> None:
    """Raise EngineError if this CPU lacks the precision that an engine is to be loaded in.

    The runtime takes BF16 for FP16 then, without a word.
    """
    rest = str(artifact.manifest.options["rest"]).upper()
    if rest not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineError(
            f"{artifact.path} computes in {rest}, and this CPU does not",
            hint="make one for it there with 'raudo export' or 'raudo optimize'",
        )


def _first(outputs: Outputs, count: int) -> Outputs:
    labels = None if outputs.labels is None else outputs.labels[:count]
    return Outputs(outputs.boxes[:count], outputs.scores[:count], labels)


def _moving_bytes(runtime_model: Any) -> set[str]:
    """Return the nodes that pixels go through before anything is computed of them.

    The runtime names their kernels as it names those of INT8.
    """
    found = {parameter.get_friendly_name() for parameter in runtime_model.get_parameters()}
    for node in runtime_model.get_ordered_ops():
        given = {value.get_node().get_friendly_name() for value in node.input_values()[:1]}
        info = node.get_rt_info()
        reads = PRECISION_NAMES.get(_text(info["runtimePrecision"]))
        if given & found and reads == "int8" and _text(info["layerType"]) not in COMPUTE:
            found.add(node.get_friendly_name())
    return found


def _executed_precision(kernel: str) -> str:
    """Read the precision off a kernel's name, `brgconv_avx512_1x1_I8` for instance."""
    ending = kernel.rpartition("_")[2].lower()
    return PRECISION_NAMES.get(ending, ending)


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
