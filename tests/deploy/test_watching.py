"""Prometheus's files and Grafana's dashboard, against the metrics of a real service."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import yaml

from null_engines import null_run
from serving import served

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
ALERTS = CONFIG.with_name("alerts.yml")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "raudo.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
IMAGE = cv2.imencode(".png", np.full((60, 80, 3), 90, np.uint8))[1].tobytes()
NEEDS_GPU = "raudo_gpu_"
REQUESTS, START_SECONDS = 120, 60


def expressions() -> list[str]:
    """All that the dashboard asks, with Grafana's variables filled in."""
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return [each.replace("$__rate_interval", "30s").replace("$instance", ".*") for each in asked]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def check(promtool: Path, *arguments: str | Path) -> None:
    ended = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_configuration_and_the_rules_are_valid(promtool: Path) -> None:
    check(promtool, "check", "config", CONFIG)


def test_each_alert_rings_when_it_should(promtool: Path) -> None:
    cases = Path(__file__).with_name("alerts.test.yml")
    check(promtool, "test", "rules", cases)
    tested = set(re.findall(r"alertname: (\w+)", cases.read_text(encoding="utf-8")))
    assert tested == {rule["alert"] for rule in alerts()}


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@dataclass(frozen=True)
class Asked:
    """A Prometheus that scrapes a service."""

    address: str

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        asked = urllib.parse.urlencode({"query": expression})
        return list(self.get(f"/api/v1/query?{asked}")["result"])


@pytest.fixture(scope="module")
def asked(prometheus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Prometheus, which has scraped a service that answers, refuses some, and compares."""
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        served(null_run(folder / "run"), "--shadow", "baseline") as service,
        scraping(prometheus, folder, service.removeprefix("http://")) as found,
    ):
        wait_for(found, "up == 1")
        for number in range(REQUESTS):
            assert send(service, IMAGE if number % 10 else b"not an image") in (200, 400, 415)
        wait_for(found, f"sum(raudo_requests_total) == {2 * REQUESTS - REQUESTS // 10}")
        wait_for(found, "min(count_over_time(raudo_requests_total[10m])) >= 3")  # rates need two
        yield found


@contextlib.contextmanager
def scraping(program: Path, folder: Path, target: str) -> Iterator[Asked]:
    """Run Prometheus with the project's configuration, but for whom it scrapes and how often."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with subprocess.Popen(command) as process:
        try:
            yield Asked(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def send(service: str, body: bytes) -> int:
    request = urllib.request.Request(f"{service}/v1/detect", body, {"Content-Type": "image/png"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_for(found: Asked, expression: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if found.query(expression):
                return
        except OSError:
            pass  # it is not up yet
        assert time.monotonic() < deadline, expression
        time.sleep(0.2)


def test_prometheus_counts_what_was_sent(asked: Asked) -> None:
    def total(labels: str) -> float:
        (sample,) = asked.query(f"sum(raudo_requests_total{{{labels}}})")
        return float(sample["value"][1])

    bad = REQUESTS // 10
    assert total('method="detect",code="ok"') == REQUESTS - bad
    assert total('method="detect",code!="ok"') == bad
    assert total('method="shadow",code="ok"') == REQUESTS - bad


@pytest.mark.parametrize("expression", expressions())
def test_every_question_of_the_dashboard_has_an_answer(asked: Asked, expression: str) -> None:
    found = asked.query(expression)
    assert found or NEEDS_GPU in expression


def test_every_metric_of_an_alert_is_there_or_is_known(asked: Asked) -> None:
    served = set(asked.get("/api/v1/label/__name__/values"))
    for rule in alerts():
        for name in re.findall(r"\b(?:raudo_\w+|up)\b", rule["expr"]):
            assert name in served or name.startswith(NEEDS_GPU), rule["alert"]


def test_nothing_rings_at_a_service_that_is_well(asked: Asked) -> None:
    groups = asked.get("/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(alerts())
    assert {rule["health"] for rule in rules} == {"ok"}
    assert {rule["name"] for rule in rules if rule["state"] == "firing"} == set()
