"""LitServe with the null engine, for comparison: the same bytes in, the same bytes out.

Its settings come from the command line, and `benchmarks/serve.py` tries several and compares with
the fastest. `raw` takes the body as it is, which LitServe allows but does not document; `form` is
the upload that it documents.
"""

# No `from __future__ import annotations`: LitServe reads the types of `decode_request` at run time.
import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import litserve
import numpy as np
from fastapi import Body, Request, Response
from numpy.typing import NDArray

from raudo.backends.base import Outputs
from raudo.detector import load

if TYPE_CHECKING:
    from starlette.datastructures import FormData


class Detect(litserve.LitAPI):  # type: ignore[misc]
    """Runs an engine of raudo; takes the body as it is."""

    def __init__(self, engine: Path, batch: int) -> None:
        timeout = 0.002 if batch > 1 else 0.0
        super().__init__(max_batch_size=batch, batch_timeout=timeout, api_path="/predict")
        self._file = engine
        self._batch = batch

    def setup(self, device: str) -> None:
        """Open the engine in its worker."""
        del device
        self._engine = load(self._file).engine

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> NDArray[np.uint8]:
        """Read the pixels."""
        return self._pixels(request)

    def _pixels(self, data: bytes) -> NDArray[np.uint8]:
        spec = self._engine.spec
        return np.frombuffer(data, np.uint8).reshape(spec.height, spec.width, 3)

    def batch(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Put images together."""
        return np.stack(inputs)

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """Run the engine."""
        return self._engine.run(images if self._batch > 1 else images[None])

    def unbatch(self, output: Outputs) -> list[bytes]:
        """Take images apart."""
        return [_packed(output, index) for index in range(len(output.boxes))]

    def encode_response(self, output: Outputs | bytes) -> Response:
        """Write the outputs as bytes."""
        content = output if isinstance(output, bytes) else _packed(output, 0)
        return Response(content, media_type="application/octet-stream")


class DetectForm(Detect):
    """The same with an uploaded form."""

    def decode_request(self, request: Request) -> NDArray[np.uint8]:  # type: ignore[override]
        """Read the pixels of the form's file."""
        form: FormData = request  # type: ignore[assignment]
        return self._pixels(form["images"].file.read())  # type: ignore[union-attr]


def _packed(output: Outputs, index: int) -> bytes:
    tensors = (output.boxes, output.scores, output.labels)
    return b"".join(tensor[index].tobytes() for tensor in tensors if tensor is not None)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=["raw", "form"], default="raw")
    parser.add_argument("--servers", type=int, default=1, help="processes that speak HTTP")
    parser.add_argument("--workers", type=int, default=1, help="processes that run the engine")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--fast-queue", action="store_true", help="ZeroMQ between the two")
    options = parser.parse_args()
    api = (DetectForm if options.kind == "form" else Detect)(options.engine, options.batch)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=options.workers,
        fast_queue=options.fast_queue,
    )
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=options.servers,
        generate_client_file=False,
        log_level="error",
    )


if __name__ == "__main__":
    main()
