from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raudo.checkpoints.imports import disallowed
from raudo.checkpoints.scan import PickleScan, scan_checkpoint, scan_pickle
from raudo.errors import SourceError

MARKER = "RAUDO_TEST_CODE_RAN"


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.putenv, (MARKER, "1")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def scanned(data: bytes) -> PickleScan:
    scan = PickleScan()
    scan_pickle(io.BytesIO(data), scan)
    return scan


def archive(path: Path, data: bytes, root: str = "archive") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{root}/data.pkl", data)
        file.writestr(f"{root}/version", b"3\n")
    return path


MALICIOUS = {
    "global": b"cos\nsystem\n(S'true'\ntR.",
    "python 2 name": b"c__builtin__\neval\n(S'1'\ntR.",
    "stack global": b"\x80\x04" + text("os") + text("system") + b"\x93" + text("true") + b"\x85R.",
    "memoized names": b"\x80\x04"
    + text("system")
    + b"\x94"
    + text("os")
    + b"\x9400h\x01h\x00\x93"
    + text("true")
    + b"\x85R.",
    "names put and got": b"\x80\x02"
    + text("os")
    + b"q\x05"
    + b"0"
    + text("system")
    + b"q\x07"
    + b"0"
    + b"h\x05h\x07\x93"
    + text("true")
    + b"\x85R.",
    "duplicated name": b"\x80\x04" + text("posix") + text("system") + b"2" + b"0\x93" + b")R.",
    "instance": b"(S'true'\nios\nsystem\n.",
    "object": b"\x80\x02(cos\nsystem\n" + text("true") + b"o.",
    "evaluate": b"\x80\x04cbuiltins\neval\n" + text("1") + b"\x85R.",
    "attribute": b"\x80\x02cbuiltins\ngetattr\n" + b"ctorch\nSize\n" + text("x") + b"\x86R.",
    "nested pickle": b"\x80\x03ctorch.storage\n_load_from_bytes\nC\x01\x80\x85R.",
    "hub": b"\x80\x02ctorch.hub\nload\n)R.",
    "load": b"\x80\x02ctorch\nload\n" + text("x") + b"\x85R.",
    "module inside of a module": b"\x80\x02ctorch.nn.modules.conv\ntorch\n.",
    "dotted name": b"\x80\x04" + text("torch.nn.modules.conv") + text("torch.load") + b"\x93)R.",
    "functional": b"\x80\x02ctorch.nn.modules.conv\nF\n.",
    "numpy": b"\x80\x02cnumpy\nload\n" + text("x") + b"\x85R.",
    "compiler": b"\x80\x02cnumpy.f2py\ncompile\n)R.",
    "numpy tests": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n)R.",
    "extended tensor": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n)R.",
    "base class": b"\x80\x02ccopyreg\n_reconstructor\n)R.",
    "constructor": b"\x80\x02ctorch.nn.modules.conv\nConv2d\n)R.",
    "patched class": b"\x80\x02ctorch.nn.modules.conv\nConv2d\n}" + text("a") + b"K\x01sb.",
    "extension 1": b"\x80\x02\x82\x01.",
    "extension 2": b"\x80\x02\x83\x01\x00.",
    "extension 4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "computed name": b"\x80\x04"
    + text("os")
    + b"cbuiltins\nstr\n"
    + text("system")
    + b"\x85R\x93.",
    "call of a result": b"\x80\x02cbuiltins\nset\n)R)R.",
    "real": pickle.dumps({"model": [Bomb()]}, 4),
    "real, protocol 0": pickle.dumps(Bomb(), 0),
}


@pytest.mark.parametrize("data", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_refuses_what_could_run_code(data: bytes, tmp_path: Path) -> None:
    assert disallowed(scanned(data), None)
    assert disallowed(scan_checkpoint(archive(tmp_path / "model.pt", data)), None)
    plain = tmp_path / "plain.pt"
    plain.write_bytes(data)
    assert disallowed(scan_checkpoint(plain), None)


def test_names_what_it_refuses() -> None:
    assert disallowed(scanned(MALICIOUS["stack global"]), None) == ("os.system",)
    assert disallowed(scanned(MALICIOUS["memoized names"]), None) == ("os.system",)
    assert disallowed(scanned(MALICIOUS["names put and got"]), None) == ("os.system",)
    assert disallowed(scanned(MALICIOUS["constructor"]), None) == (
        "torch.nn.modules.conv.Conv2d(...)",
    )


def test_scans_every_pickle_of_a_legacy_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "legacy.pt"
    saved = {"model": {"w": torch.ones(3)}}
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    assert disallowed(scan_checkpoint(path), None) == ()
    assert "model" in scan_checkpoint(path).strings
    torch.save({"model": Bomb()}, path, _use_new_zipfile_serialization=False)
    assert disallowed(scan_checkpoint(path), None) == (f"{os.putenv.__module__}.putenv",)


def test_accepts_values_that_training_keeps(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    np = pytest.importorskip("numpy")
    path = tmp_path / "model.pt"
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.SiLU())
    content = {
        "model": layers,
        "half": torch.ones(2).half(),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "best": np.float64(0.5),
        "array": np.arange(3),
        "order": OrderedDict(a=1),
        "some": {1, 2},
        "layers": layers.state_dict(),
    }
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert disallowed(scan_checkpoint(path), None) == ()


def broken_archives(tmp_path: Path) -> dict[str, Path]:
    data = pickle.dumps({"a": 1}, 2)
    made = {
        name: tmp_path / f"{name.replace(' ', '_')}.pt"
        for name in (
            "no pickle",
            "two pickles",
            "other root",
            "torchscript",
            "bomb",
            "trailing bytes",
            "leading pickle",
            "comment",
            "encrypted",
            "same name",
            "cut off",
        )
    }
    with zipfile.ZipFile(made["no pickle"], "w") as file:
        file.writestr("a/readme.txt", "hello")
    with zipfile.ZipFile(archive(made["two pickles"], data), "a") as file:
        file.writestr("archive/other.pkl", data)
    with zipfile.ZipFile(made["other root"], "w") as file:
        file.writestr("first/version", "3")
        file.writestr("archive/data.pkl", data)
    with zipfile.ZipFile(archive(made["torchscript"], data), "a") as file:
        file.writestr("archive/constants.pkl", data)
        file.writestr("archive/code/__torch__.py", "")
    with zipfile.ZipFile(archive(made["bomb"], data), "a") as file:
        file.writestr("archive/data/0", bytes(10_000_000), zipfile.ZIP_DEFLATED)
    whole = archive(tmp_path / "whole.pt", data).read_bytes()
    made["trailing bytes"].write_bytes(whole + b"more")
    # A second archive at the end, behind the first: two readers could see two different ones.
    made["leading pickle"].write_bytes(whole + whole)
    with zipfile.ZipFile(archive(made["comment"], data), "a") as file:
        file.comment = b"PK\x05\x06"
    flags = bytearray(whole)
    flags[whole.index(b"PK\x01\x02") + 8] |= 1
    made["encrypted"].write_bytes(bytes(flags))
    with zipfile.ZipFile(archive(made["same name"], data), "a") as file:
        file.writestr("archive/DATA.PKL", data)
    made["cut off"].write_bytes(whole[: len(whole) // 2])
    return made


def test_refuses_archives_that_are_no_plain_checkpoint(tmp_path: Path) -> None:
    for name, path in broken_archives(tmp_path).items():
        with pytest.raises(SourceError) as caught:
            scan_checkpoint(path)
        assert str(path) in caught.value.message, name
        assert caught.value.hint, name


def test_tells_torchscript(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="TorchScript"):
        scan_checkpoint(broken_archives(tmp_path)["torchscript"])


def test_refuses_tar(tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "old"), "tar", tmp_path))
    with pytest.raises(SourceError, match="tar archive"):
        scan_checkpoint(path)


@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/data/0"])
def test_one_damaged_byte_is_noticed(tmp_path: Path, member: str) -> None:
    path = archive(tmp_path / "damaged.pt", pickle.dumps("x" * 400, 2))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/0", bytes(400))
        info = file.getinfo(member)
    scan_checkpoint(path)
    whole = path.read_bytes()
    start = info.header_offset + 30 + len(member)
    for spot in range(start, start + info.file_size):
        path.write_bytes(whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :])
        with pytest.raises(SourceError, match="damaged or cut off"):
            scan_checkpoint(path)


@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/data/0"])
def test_a_deflated_member_that_cannot_be_inflated_is_damaged(tmp_path: Path, member: str) -> None:
    path = tmp_path / "damaged.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickle.dumps("x" * 400, 2))
        file.writestr("archive/data/0", bytes(400))
        start = file.getinfo(member).header_offset + 30 + len(member)
    scan_checkpoint(path)
    whole = path.read_bytes()
    no_block = b"\x07"  # of the reserved type (RFC 1951, section 3.2.3)
    path.write_bytes(whole[:start] + no_block + whole[start + 1 :])
    with pytest.raises(SourceError, match="damaged or cut off"):
        scan_checkpoint(path)


def test_compression_that_pytorch_does_not_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("archive/data.pkl", pickle.dumps("x", 2))
    with pytest.raises(SourceError, match="compression that PyTorch does not read"):
        scan_checkpoint(path)


def test_a_checkpoint_without_checksums_is_no_damaged_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "unchecked.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.ones(9)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(SourceError, match="without checksums") as caught:
        scan_checkpoint(path)
    assert "damaged" not in caught.value.message


@pytest.mark.parametrize("opcode", [b"\x8d", b"\x8e"], ids=["BINUNICODE8", "BINBYTES8"])
def test_a_text_of_exabytes_is_refused(opcode: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "huge.pt", b"\x80\x04" + opcode + (1 << 62).to_bytes(8, "little"))
    with pytest.raises(SourceError, match="damaged or cut off"):
        scan_checkpoint(path)


@given(st.binary(max_size=400))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_raise_nothing_but_source_error(tmp_path: Path, data: bytes) -> None:
    for path in (tmp_path / "plain.pt", archive(tmp_path / "zip.pt", data)):
        if path.name == "plain.pt":
            path.write_bytes(data)
        with contextlib.suppress(SourceError):
            scan_checkpoint(path)


@pytest.fixture(scope="module")
def real(samples: Path) -> bytes:
    return (samples / "model.pt").read_bytes()


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_checkpoints_raise_nothing_but_source_error(
    tmp_path: Path, real: bytes, data: st.DataObject
) -> None:
    changed = bytearray(real[: data.draw(st.sampled_from([len(real), len(real) // 2, 5000]))])
    for _ in range(data.draw(st.integers(0, 8))):
        # The pickle lies at the start, the directory at the end.
        spot = data.draw(st.integers(0, 110_000) | st.integers(len(changed) - 60_000, len(changed)))
        changed[spot % len(changed)] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutated.pt"
    path.write_bytes(changed)
    with contextlib.suppress(SourceError):
        scan_checkpoint(path)


def test_nothing_ran() -> None:
    assert MARKER not in os.environ
