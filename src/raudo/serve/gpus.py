"""NVIDIA GPUs: how busy they are, read when Prometheus asks, and who gets which."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

VISIBLE = "CUDA_VISIBLE_DEVICES"

logger = logging.getLogger(__name__)


class GpuCollector:
    """Reads the driver's management library (NVML); yields nothing where there is none."""

    def __init__(self) -> None:
        self._nvml = open_nvml()

    def collect(self) -> Iterable[Metric]:
        """Yield utilization, 0 to 1, and memory in bytes, of each GPU."""
        if self._nvml is None:
            return
        from prometheus_client.metrics_core import GaugeMetricFamily

        nvml, labels = self._nvml, ["gpu", "name"]
        busy = GaugeMetricFamily(
            "raudo_gpu_utilization_ratio", "Share of time that kernels ran.", labels=labels
        )
        used = GaugeMetricFamily("raudo_gpu_memory_used_bytes", "Memory in use.", labels=labels)
        total = GaugeMetricFamily("raudo_gpu_memory_total_bytes", "Memory there is.", labels=labels)
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            identity = [str(index), nvml.nvmlDeviceGetName(handle)]
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            used.add_metric(identity, memory.used)
            total.add_metric(identity, memory.total)
            try:
                rates = nvml.nvmlDeviceGetUtilizationRates(handle)
            except nvml.NVMLError_NotSupported:  # a GPU that is shared in parts tells none
                continue
            busy.add_metric(identity, rates.gpu / 100)
        yield from (busy, used, total)


def usable() -> tuple[str, ...]:
    """Return the GPUs that CUDA may use here, each as CUDA_VISIBLE_DEVICES names it."""
    chosen = os.environ.get(VISIBLE)
    if chosen is not None:
        return tuple(each.strip() for each in chosen.split(",") if each.strip())
    nvml = open_nvml()
    return tuple(map(str, range(nvml.nvmlDeviceGetCount()))) if nvml else ()


def only(gpu: str) -> dict[str, str]:
    """Return the environment of a process that shall see one GPU; numbers are those of NVML."""
    return {VISIBLE: gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def open_nvml() -> Any:
    """Return NVML, started; None, and a line in the log, where there is no GPU to read."""
    try:
        import pynvml
    except ImportError:
        logger.info("no GPU metrics: nvidia-ml-py is not installed")
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.info("no GPU metrics: %s", error)
        return None
    return pynvml
