"""The service keeps what its OpenAPI document promises, whatever is sent.

RAUDO_OPENAPI_EXAMPLES=400 makes it several thousand requests, which takes minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("RAUDO_OPENAPI_EXAMPLES", "15"))
GROWTH = 50 << 20

# Guesses would find no model. No schema can tell an image from other bytes, so that a body which
# agrees with its schema may be refused all the same. 504 is the answer to a timeout of nothing.
SETTINGS = """
[parameters]
"path.model" = "detector"
"path.version" = "1"
[checks.positive_data_acceptance]
enabled = false
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""


def test_no_request_breaks_what_the_document_promises(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setenv("RAUDO_ADMIN_TOKEN", "secret")
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run"]
    with serving(tmp_path) as server:
        before = server.memory()
        address = f"http://127.0.0.1:{server.port}/openapi.json"
        options = [f"--max-examples={EXAMPLES}", "--seed=1", "--generation-database=none"]
        ended = subprocess.run(
            [*command, address, *options, "--suppress-health-check=all", "--no-color"],
            cwd=tmp_path,  # where it leaves what it found
            capture_output=True,
            text=True,
            check=False,
        )
        growth = server.memory() - before
    assert ended.returncode == 0, ended.stdout[-6000:]
    (cases,) = re.findall(r"(\d+) generated", ended.stdout)
    record_property("cases", cases)
    assert int(cases) >= 10 * EXAMPLES
    assert growth < GROWTH
