"""Strict settings from YAML, the command line and Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raudo.config import OptimizeSettings, default_gates, dump_settings, read_settings
from raudo.errors import UsageError


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "settings.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_every_field_tells_what_it_is() -> None:
    silent = [
        name
        for name, field in OptimizeSettings.model_fields.items()
        if not field.description and name not in {"gates", "seed"}
    ]
    assert silent == []


def test_the_gates_are_those_of_the_issue() -> None:
    gates = read_settings(None, model="m.pt").gates
    assert (gates["production_cpu"].speedup, gates["production_gpu"].speedup) == (1.5, 2.5)
    assert gates["production_cpu"].map50_loss_percent == 1.0
    assert gates["production_gpu"].map50_loss_percent == 2.0
    assert gates["production_cpu"].similarity_percent == 98.0
    assert "development" not in gates


def test_a_file_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, "model: ñ.pt\nsize: [480, 640]\nsplits: [val, test]\nseed: 3\n")
    found = read_settings(file)
    assert found.model == Path("ñ.pt")
    assert (found.size, found.splits, found.seed) == ((480, 640), ("val", "test"), 3)


def test_the_command_line_wins_where_it_says_something(tmp_path: Path) -> None:
    file = write(tmp_path, "model: a.pt\nseed: 3\nbootstrap: 200\n")
    found = read_settings(file, model=Path("b.pt"), seed=None, trust_checkpoint=True)
    assert (found.model, found.seed, found.bootstrap) == (Path("b.pt"), 3, 200)
    assert found.trust_checkpoint


def test_gates_are_merged_bound_by_bound(tmp_path: Path) -> None:
    file = write(tmp_path, "model: m.pt\ngates: {production_cpu: {speedup: 3}}\n")
    found = read_settings(file, gate_assignments=["production_cpu.similarity_percent=90"])
    cpu = found.gates["production_cpu"]
    assert (cpu.speedup, cpu.similarity_percent, cpu.map50_loss_percent) == (3.0, 90.0, 1.0)
    assert found.gates["edge"] == default_gates()["edge"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: m.pt\nmodle: x\n", "modle"),
        ("model: m.pt\nseed: soon\n", "seed"),
        ("model: m.pt\nbootstrap: 3\n", "bootstrap"),
        ("model: m.pt\ntiming_budget: -1\n", "timing_budget"),
        ("model: m.pt\ntiming_budget: .nan\n", "timing_budget"),
        ("model: m.pt\nsize: [1, 2, 3]\n", "size"),
        ("model: m.pt\ntargets: [moon]\n", "targets"),
        ("model: m.pt\ngates: {moon: {speedup: 1, map50_loss_percent: 1}}\n", "moon"),
        ("model: m.pt\ngates: {production_cpu: {sped: 1}}\n", "sped"),
        ("model: m.pt\ngates: {production_cpu: fast}\n", "production_cpu"),
        ("model: m.pt\ngates: fast\n", "gates"),
        ("seed: 1\n", "model"),
        ("- model\n", "holds no settings"),
        ("", "holds no settings"),
        ("model: [", "cannot read the settings"),
        (b"\xff\xfe\x00", "cannot read the settings"),
        ("model: !!python/object/apply:os.getcwd []\n", "cannot read the settings"),
    ],
)
def test_wrong_settings_are_named_in_one_line(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        read_settings(write(tmp_path, text))
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint


@pytest.mark.parametrize("text", ["speedup=2", "production_cpu.speedup", "=2", "a.b=", ".b=2"])
def test_wrong_gate_assignments(text: str) -> None:
    with pytest.raises(UsageError):
        read_settings(None, model="m.pt", gate_assignments=[text])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the settings in"):
        read_settings(tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="cannot read the settings in"):
        read_settings(tmp_path)


def test_settings_survive_their_file_and_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = read_settings(
        None, model="m ñ.pt", data="d", size=(64, 96), gate_assignments=["edge.speedup=2"]
    )
    file = write(tmp_path, dump_settings(given))
    monkeypatch.chdir("/")
    found = read_settings(file)
    assert found.model == tmp_path / "m ñ.pt"
    assert found.data == tmp_path / "d"
    same = {"model", "data", "output"}
    assert found.model_dump(exclude=same) == given.model_dump(exclude=same)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(OptimizeSettings.model_fields)), VALUES))
def test_any_values_are_settings_or_a_usage_error(values: dict[str, Any]) -> None:
    try:
        found = read_settings(None, **{"model": "m.pt", **yaml.safe_load(yaml.safe_dump(values))})
    except UsageError as error:
        assert error.hint  # noqa: PT017
    else:
        assert isinstance(found, OptimizeSettings)


@pytest.mark.parametrize("name", ["latest", "../outside", "a/b", "", ".hidden"])
def test_a_run_has_a_plain_name_of_its_own(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        read_settings(None, model="model.pt", name=name)
