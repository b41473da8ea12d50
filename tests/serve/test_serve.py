"""`raudo serve` as its users meet it: a real engine, NVIDIA's client, signals, kills and swaps."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import psutil
import pytest

import raudo
from null_engines import null_engine, null_run
from raudo.images import decode
from raudo.serve.grpc import messages
from serving import PATIENCE, ask, free_port, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX: signals"),
]
PICTURES = Path(__file__).parents[2] / "samples" / "coco-mini" / "images" / "val"
PICTURE = PICTURES / "000000000285.jpg"
CROWD = sorted(PICTURES.glob("*.jpg"))[:6]


@pytest.fixture(scope="module")
def engine(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded sample as an ONNX Runtime engine, FP32."""
    folder = tmp_path_factory.mktemp("engine")
    words = ["export", str(samples / "model.pt"), "--to", "onnx", "--output", str(folder)]
    subprocess.run([sys.executable, "-m", "raudo.cli", *words], check=True, capture_output=True)
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def ports(engine: Path) -> Iterator[tuple[str, str]]:
    """Where the sample is served: HTTP and gRPC."""
    with served(engine, "--grpc-port", "0") as address:
        said = (engine.parent / "served.log").read_text()
        until = time.monotonic() + PATIENCE
        while not (found := re.search(r"serving gRPC at (\S+)", said)):
            assert time.monotonic() < until, said
            time.sleep(0.05)
            said = (engine.parent / "served.log").read_text()
        yield address.removeprefix("http://"), found[1]


def post(url: str, body: bytes, kind: str, **headers: str) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": kind, **headers})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)


def test_it_says_nothing_but_its_own_lines(engine: Path, ports: tuple[str, str]) -> None:
    lines = (engine.parent / "served.log").read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.match(r"20\d\d-\d\d-\d\d .* raudo\.", line)] == []


def test_detections_are_those_of_raudo_load(engine: Path, ports: tuple[str, str]) -> None:
    with raudo.load(engine) as detector:
        for picture in CROWD:
            found = post(f"http://{ports[0]}/v1/detect", picture.read_bytes(), "image/jpeg")
            expected = detector.detect(picture)
            got = found["detections"]
            assert [each["label"] for each in got] == expected.labels.tolist()
            boxes = np.array([each["box"] for each in got]).reshape(-1, 4)
            np.testing.assert_allclose(boxes, expected.boxes, atol=0.01)
            scores = [each["score"] for each in got]
            np.testing.assert_allclose(scores, expected.scores, atol=1e-5)


def clients(ports: tuple[str, str]) -> list[tuple[Any, Any]]:
    http = pytest.importorskip("tritonclient.http", reason="NO TRITONCLIENT")
    grpc = pytest.importorskip("tritonclient.grpc", reason="NO TRITONCLIENT")
    return [
        (http, http.InferenceServerClient(ports[0])),
        (grpc, grpc.InferenceServerClient(ports[1])),
    ]


def test_nvidias_client_finds_what_it_expects(ports: tuple[str, str]) -> None:
    for kind, client in clients(ports):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("detector")
        assert client.is_model_ready("detector", "1")
        is_http = kind.__name__.endswith("http")
        more = {} if is_http else {"as_json": True}
        assert client.get_server_metadata(**more)["name"] == "raudo"
        metadata = client.get_model_metadata("detector", **more)
        assert metadata["versions"] == ["1"]
        assert [tensor["name"] for tensor in metadata["inputs"]] == ["images", "encoded"]
        with pytest.raises(kind.InferenceServerException if is_http else Exception, match="nope"):
            client.get_model_metadata("nope")
        client.close()


def test_nvidias_client_gets_the_engines_own_outputs(engine: Path, ports: tuple[str, str]) -> None:
    with raudo.load(engine) as detector:
        batch, _ = detector.prepare([decode(picture) for picture in CROWD[:2]])
        expected = detector.engine.run(batch)
        boxes, scores = expected.boxes.copy(), expected.scores.copy()
    for kind, client in clients(ports):
        tensor = kind.InferInput("images", list(batch.shape), "UINT8")
        tensor.set_data_from_numpy(batch)
        reply = client.infer("detector", [tensor], request_id="mine")
        np.testing.assert_allclose(reply.as_numpy("boxes"), boxes, atol=0.01)
        np.testing.assert_allclose(reply.as_numpy("scores"), scores, atol=1e-5)
        wanted = [kind.InferRequestedOutput("scores")]
        reply = client.infer("detector", [tensor], model_version="1", outputs=wanted)
        np.testing.assert_allclose(reply.as_numpy("scores"), scores, atol=1e-5)
        assert reply.as_numpy("boxes") is None
        client.close()


def test_nvidias_client_sends_image_files(engine: Path, ports: tuple[str, str]) -> None:
    with raudo.load(engine, confidence=0.4) as detector:
        expected = detector.detect(PICTURE)
    for kind, client in clients(ports):
        tensor = kind.InferInput("encoded", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([PICTURE.read_bytes()], dtype=np.object_))
        reply = client.infer("detector", [tensor], parameters={"confidence": 0.4})
        (rows,) = reply.as_numpy("detections")
        np.testing.assert_allclose(rows[:, :4], expected.boxes, atol=0.01)
        np.testing.assert_allclose(rows[:, 4], expected.scores, atol=1e-5)
        assert rows[:, 5].tolist() == expected.labels.tolist()
        client.close()


def test_tensors_may_be_json(ports: tuple[str, str]) -> None:
    http, client = clients(ports)[0]
    (_, height, width, _) = client.get_model_metadata("detector")["inputs"][0]["shape"]
    tensor = http.InferInput("images", [1, height, width, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, height, width, 3), np.uint8), binary_data=False)
    wanted = [http.InferRequestedOutput("detections", binary_data=False)]
    assert client.infer("detector", [tensor], outputs=wanted).as_numpy("detections").shape[2] == 6
    assert client.get_model_config("detector")["max_batch_size"] >= 1
    (stats,) = client.get_inference_statistics("detector")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] >= 1
    client.close()


def test_nvidias_client_reads_configuration_and_statistics(ports: tuple[str, str]) -> None:
    for kind, client in clients(ports):
        is_http = kind.__name__.endswith("http")
        more = {} if is_http else {"as_json": True}
        tensor = kind.InferInput("encoded", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([PICTURE.read_bytes()], dtype=np.object_))
        client.infer("detector", [tensor])
        config = client.get_model_config("detector", "1", **more)
        config = config if is_http else config["config"]
        types = {each["name"]: each["data_type"] for each in config["input"]}
        assert types == {"images": "TYPE_UINT8", "encoded": "TYPE_STRING"}
        assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 64
        assert json.loads(config["parameters"]["classes"]["string_value"])[0] == "person"
        for asked in ((), ("detector",), ("detector", "1")):
            (told,) = client.get_inference_statistics(*asked, **more)["model_stats"]
            success = told["inference_stats"]["success"]
            assert int(success["count"]) >= 1
            assert int(success["ns"]) > int(told["batch_stats"][0]["compute_infer"]["ns"]) > 0
        client.close()


def test_a_refused_call_says_why_and_which(ports: tuple[str, str]) -> None:
    grpc = pytest.importorskip("grpc", reason="NO GRPC")
    request = messages()["ModelInferRequest"](model_name="detector", id="mine")
    with grpc.insecure_channel(ports[1]) as channel:
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            send(request.SerializeToString(), timeout=PATIENCE)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    told = dict(refused.value.trailing_metadata())
    assert (told["code"], told["request-id"]) == ("bad_request", "mine")


def test_calls_whose_client_left_or_had_no_time_never_reach_the_engine(tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc", reason="NO GRPC")
    port = free_port()
    engine = null_engine(tmp_path / "e.npz", pauses={"call_ms": 1000})
    request = messages()["ModelInferRequest"](
        model_name="detector", raw_input_contents=[bytes(64 * 64 * 3)]
    )
    request.inputs.add(name="images", datatype="UINT8", shape=[1, 64, 64, 3])
    with (
        served(engine, "--grpc-port", str(port), "--max-batch", "1") as address,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def call(seconds: float = PATIENCE) -> Any:
            return send.future(request.SerializeToString(), timeout=seconds, wait_for_ready=True)

        call().result()
        first = call()
        wait_for(address, r'raudo_batch_images_count{variant="primary"} 2')
        gone, late = call(), call(0.1)
        wait_for(address, r'raudo_queue_depth{variant="primary"} [12]')
        gone.cancel()
        with pytest.raises(grpc.RpcError) as refused:
            late.result()
        assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        first.result()
        call().result()
        wait_for(address, r'code="cancelled",method="infer",variant="primary"} 2')
        wait_for(address, r'raudo_batch_images_count{variant="primary"} 3')


def wait_for(address: str, pattern: str) -> None:
    """Wait until a line of the metrics matches."""
    until = time.monotonic() + PATIENCE
    while True:
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as found:  # noqa: S310
            told = found.read().decode()
        if re.search(pattern, told):
            return
        assert time.monotonic() < until, told
        time.sleep(0.02)


# --- while it starts ------------------------------------------------------------------------------


def test_while_the_engine_loads_it_lives_and_takes_nothing(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "e.npz", pauses={"call_ms": 600_000})  # opening it runs it
    port = free_port()
    command = [sys.executable, "-m", "raudo.cli", "serve", str(engine), "--port", str(port)]
    with psutil.Popen(command, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + PATIENCE
        while answer(port, "/v2/health/live") != 200:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        assert [answer(port, f"/v2/{path}") for path in ("health/ready", "models/detector")] == [
            503,
            503,
        ]
        refused = ask(port)
        assert (refused.status, refused.content["code"]) == (503, "not_ready")
        children = process.children()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert psutil.wait_procs(children, PATIENCE)[1] == []


def answer(port: int, path: str) -> int:
    """The status of an answer; 0 where nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except urllib.error.URLError:
        return 0


# --- under traffic, on an engine that answers at once ---------------------------------------------


class Traffic:
    """Clients that ask until they are told to stop, and remember what failed."""

    def __init__(self, address: str, clients: int = 4) -> None:
        image = cv2.imencode(".png", np.full((80, 80, 3), 90, np.uint8))[1].tobytes()
        self.versions: list[str] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._work: Callable[[], Any] = lambda: post(f"{address}/v1/detect", image, "image/png")
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.versions.append(self._work()["version"])
            except (urllib.error.URLError, ConnectionError) as error:
                self.failures.append(repr(error))

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        self.reach(10)
        return self

    def reach(self, count: int) -> None:
        """Wait for so many more answers."""
        count += len(self.versions)
        until = time.monotonic() + PATIENCE
        while len(self.versions) < count:
            assert time.monotonic() < until, self.failures
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def service_of(source: Path) -> psutil.Process:
    """Return the process that serves something."""
    (found,) = (c for c in psutil.Process().children() if str(source) in c.cmdline())
    return found


def test_killing_the_engine_fails_at_most_one_request(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "e.npz")
    with served(engine) as address, Traffic(address) as traffic:
        for _ in range(2):
            (process,) = service_of(engine).children()
            process.kill()
            process.wait(PATIENCE)
            traffic.reach(20)
        assert len(traffic.failures) <= 2


def test_a_signal_ends_it_after_the_last_answer(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "e.npz")
    with served(engine) as address, Traffic(address) as traffic:
        service = service_of(engine)
        children = service.children()
        service.send_signal(signal.SIGTERM)
        refused = "Connection refused"
        until = time.monotonic() + PATIENCE
        while not traffic.failures and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        assert traffic.failures, "it still answers"
        assert {failure for failure in traffic.failures if refused not in failure} == set()
        assert psutil.wait_procs(children, PATIENCE)[1] == []
        while service.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert "Traceback" not in (tmp_path / "served.log").read_text()


def swap(address: str, body: dict[str, str], token: str = "") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        url = f"{address}/v1/admin/swap"
        return 200, post(url, json.dumps(body).encode(), "application/json", **headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_new_run_takes_over_without_losing_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAUDO_ADMIN_TOKEN", "secret")
    for name in ("monday", "tuesday"):
        null_run(tmp_path / name)
    (tmp_path / "latest").symlink_to("monday")
    (tmp_path / "latest").with_name("empty").mkdir()
    with served(tmp_path / "latest") as address, Traffic(address) as traffic:
        assert swap(address, {"run": "tuesday"})[0] == 401
        assert swap(address, {"run": "tuesday"}, "wrong")[0] == 401
        for body in ({}, {"run": ".."}, {"run": "../x"}, {"path": "tuesday"}):
            assert swap(address, body, "secret")[0] == 400
        assert swap(address, {"run": "sunday"}, "secret")[0] == 404
        assert swap(address, {"run": "empty"}, "secret")[0] == 400
        for turn in range(3):
            name = ("tuesday", "monday")[turn % 2]
            status, loaded = swap(address, {"run": name}, "secret")
            assert (status, loaded["run"], loaded["version"]) == (200, name, str(turn + 2))
            traffic.reach(10)
    assert traffic.failures == []
    assert set(traffic.versions) == {"1", "2", "3", "4"}


def test_it_follows_the_latest_run(tmp_path: Path) -> None:
    for name in ("monday", "tuesday"):
        null_run(tmp_path / name)
    (tmp_path / "latest").symlink_to("monday")
    with served(tmp_path / "latest", "--watch") as address, Traffic(address, 1) as traffic:
        (tmp_path / "latest").unlink()
        (tmp_path / "latest").symlink_to("tuesday")
        until = time.monotonic() + PATIENCE
        while "2" not in traffic.versions:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert traffic.failures == []


def run_raudo(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raudo.cli", "serve", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "no such run folder"),
        (("{engine}", "--port", "{taken}"), "cannot listen on 127.0.0.1"),
        (("{engine}", "--port", "0", "--ab", "baseline=10"), "run folder"),
        (("{engine}", "--name", "../x"), "model"),
        (("{damaged}", "--port", "0"), "damaged.npz"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    import socket

    engine, damaged = (null_engine(tmp_path / name) for name in ("e.npz", "damaged.npz"))
    damaged.write_bytes(b"no engine")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        places = {"engine": engine, "damaged": damaged, "taken": taken.getsockname()[1]}
        ended = run_raudo(*(word.format(**places) for word in words))
    assert ended.returncode == 2, ended.stderr
    error, hint = ended.stderr.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert said in ended.stderr
    assert hint.startswith("hint: ")
    assert "Traceback" not in ended.stderr


def test_nothing_listens_beyond_this_machine_unless_told(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "e.npz")
    with served(engine):
        listening = [
            c for c in service_of(engine).net_connections() if c.status == psutil.CONN_LISTEN
        ]
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
