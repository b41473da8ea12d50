"""Which imports of a pickle are harmless: an exact list, by module and name.

A module prefix would not do: `torch.hub.load`, `torch.storage._load_from_bytes`, `numpy.f2py` or
the modules that a harmless module itself imports (`torch.nn.modules.conv.torch`) run code.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raudo.checkpoints.scan import PickleScan
    from raudo.families.base import Family

_CLASS = re.compile(r"(v\d+)?[A-Z][A-Za-z0-9]+")

_CALLABLE: dict[str, str] = {
    "torch": "Size device",
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
    "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor",
    "torch.nn.parameter": "Parameter",
    "torch.serialization": "_get_layout",
    "torch.torch_version": "TorchVersion",
    "collections": "OrderedDict defaultdict deque Counter",
    "builtins": "set frozenset dict list tuple slice complex bytearray bool int float str",
    "_codecs": "encode",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
}
"""What may be imported and called: it stores values and does nothing else."""

_DATA: dict[str, str] = {
    "torch": "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 "
    "complex128 qint8 quint8 qint32 strided sparse_coo per_tensor_affine per_channel_affine "
    "DoubleStorage FloatStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage "
    "CharStorage ByteStorage BoolStorage ComplexFloatStorage ComplexDoubleStorage QInt8Storage "
    "QUInt8Storage QInt32Storage",
    "torch.storage": "UntypedStorage TypedStorage",
}
"""What may be imported, as a value that other objects refer to."""

_LAYER_MODULES = (
    "activation adaptive batchnorm channelshuffle container conv distance dropout flatten fold "
    "instancenorm linear loss module normalization padding pixelshuffle pooling rnn sparse "
    "transformer upsampling"
)
_LAYERS = (
    "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d "
    "AdaptiveMaxPool3d AlphaDropout AvgPool1d AvgPool2d AvgPool3d BCELoss BCEWithLogitsLoss "
    "BatchNorm1d BatchNorm2d BatchNorm3d Bilinear CELU ChannelShuffle CircularPad2d ConstantPad1d "
    "ConstantPad2d ConstantPad3d Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d "
    "ConvTranspose3d CosineSimilarity CrossEntropyLoss Dropout Dropout1d Dropout2d Dropout3d ELU "
    "Embedding EmbeddingBag FeatureAlphaDropout Flatten Fold GELU GLU GRU GRUCell GroupNorm "
    "Hardshrink Hardsigmoid Hardswish Hardtanh HuberLoss Identity InstanceNorm1d InstanceNorm2d "
    "InstanceNorm3d KLDivLoss L1Loss LPPool2d LSTM LSTMCell LayerNorm LeakyReLU Linear "
    "LocalResponseNorm LogSigmoid LogSoftmax MSELoss MaxPool1d MaxPool2d MaxPool3d MaxUnpool2d "
    "Mish Module ModuleDict ModuleList MultiheadAttention NLLLoss "
    "NonDynamicallyQuantizableLinear PReLU PairwiseDistance ParameterDict ParameterList "
    "PixelShuffle PixelUnshuffle RMSNorm RNN RReLU ReLU ReLU6 ReflectionPad1d ReflectionPad2d "
    "ReplicationPad1d ReplicationPad2d SELU Sequential SiLU Sigmoid SmoothL1Loss Softmax Softmax2d "
    "Softmin Softplus Softshrink Softsign SyncBatchNorm Tanh Tanhshrink Threshold Transformer "
    "TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer "
    "Unflatten Unfold Upsample UpsamplingBilinear2d UpsamplingNearest2d ZeroPad2d"
)


def _listed(table: dict[str, str], module: str, name: str) -> bool:
    return name in table.get(module, "").split()


def _is_layer(module: str, name: str) -> bool:
    folder, _, leaf = module.rpartition(".")
    known = leaf in _LAYER_MODULES.split() and name in _LAYERS.split()
    return known and folder == "torch.nn.modules"


def _is_family_class(module: str, name: str, family: Family | None) -> bool:
    below = family.allowed_imports if family else ()
    inside = any(module == prefix or module.startswith(prefix + ".") for prefix in below)
    # `F` is how torch.nn.functional is known inside of modules that define layers.
    return inside and _CLASS.fullmatch(name) is not None


def _may_call(module: str, name: str, family: Family | None) -> bool:
    if _listed(_CALLABLE, module, name):
        return True
    return family is not None and f"{module}.{name}" in family.allowed_calls


def disallowed(scan: PickleScan, family: Family | None) -> tuple[str, ...]:
    """Return what a pickle imports or does that nobody vouches for, sorted.

    A class of a family or a layer may be restored (its constructor does not run), but not called:
    constructors take text that they evaluate.

    Args:
        scan: What the scan of the pickle found.
        family: The family that recognized the file; None if there is none.
    """
    found = set(scan.oddities)
    for module, name in scan.imports:
        if not (
            _may_call(module, name, family)
            or _listed(_DATA, module, name)
            or _is_layer(module, name)
            or _is_family_class(module, name, family)
        ):
            found.add(f"{module}.{name}")
    for module, name in scan.calls:
        if not _may_call(module, name, family) and f"{module}.{name}" not in found:
            found.add(f"{module}.{name}(...)")
    return tuple(sorted(found))
