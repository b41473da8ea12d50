"""Rehearses a Dockerfile where there is no container engine: same steps, clean Debian, no image.

Each stage is an overlay over a root file system that debootstrap makes; its RUN and COPY steps are
carried out in there. Then the last stage is started as its ENTRYPOINT, CMD and USER say: without
root, on a read-only root file system with a scratch `/tmp`, and in a network of its own. The
rehearsal passes if the HEALTHCHECK does, a picture is answered, nothing can be written, and SIGTERM
ends it cleanly.

Needs Linux, root, `debootstrap`, `ip` (iproute2) and the network's package registries:

    python deploy/rehearse.py deploy/cpu.Dockerfile --model runs/latest --image photo.jpg
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

CONTEXT = Path(__file__).resolve().parents[1]
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
START_SECONDS, STOP_SECONDS = 120, 35

ASK = """
import json, urllib.request
asked = urllib.request.Request("http://127.0.0.1:8000/v1/detect", open("/tmp/image", "rb").read())
asked.add_header("Content-Type", "image/jpeg")
print(json.load(urllib.request.urlopen(asked, timeout=20)))
"""


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile: its keyword, and the rest of it on one line."""

    keyword: str
    rest: str


@dataclass(frozen=True)
class Image:
    """What a stage has become: where its files are, and how it is to be started."""

    root: Path
    name: str = ""
    env: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    health: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def parse(text: str) -> list[Step]:
    """Return the instructions of a Dockerfile, continued lines joined, comments left out.

    Raises:
        ValueError: A line is no instruction.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    steps = []
    for line in filter(str.strip, joined.splitlines()):
        keyword, _, rest = line.strip().partition(" ")
        if not rest:
            raise ValueError(f"no instruction: {line}")
        steps.append(Step(keyword.upper(), rest.strip()))
    return steps


class Builder:
    """Carries out a Dockerfile's steps on overlays of a clean root file system."""

    def __init__(self, base: Path, work: Path, binds: list[Path]) -> None:
        self._base, self._work, self._binds = base, work, binds
        self._stages: list[Image] = []

    def build(self, steps: list[Step]) -> Image:
        """Carry out all steps and return the last stage."""
        for step in steps:
            print(f"== {step.keyword} {step.rest}", flush=True)
            if step.keyword == "FROM":
                self._stages.append(self._begin(step.rest))
            else:
                self._stages[-1] = self._do(step, self._stages[-1])
        return self._stages[-1]

    def close(self) -> None:
        """Unmount every stage."""
        for stage in self._stages:
            run(["umount", "--recursive", "--lazy", str(stage.root)])

    def _begin(self, rest: str) -> Image:
        number = len(self._stages)
        folder = self._work / f"stage{number}"
        upper, scratch, root = (folder / name for name in ("upper", "scratch", "root"))
        for made in (upper, scratch, root):
            made.mkdir(parents=True)
        layers = f"lowerdir={self._base},upperdir={upper},workdir={scratch}"
        run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)])
        run(["mount", "-t", "proc", "proc", str(root / "proc")])
        run(["mount", "--rbind", "/dev", str(root / "dev")])
        return Image(root, name=rest.partition(" AS ")[2] or str(number))

    def _do(self, step: Step, image: Image) -> Image:
        keyword, rest = step.keyword, step.rest
        if keyword == "ENV":
            return replace(image, env=image.env | dict(w.split("=", 1) for w in shlex.split(rest)))
        if keyword == "WORKDIR":
            (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            return replace(image, folder=rest)
        if keyword == "USER":
            return replace(image, user=rest)
        if keyword == "HEALTHCHECK":
            return replace(image, health=tuple(json.loads(rest.partition("CMD ")[2])))
        if keyword == "ENTRYPOINT":
            return replace(image, entrypoint=tuple(json.loads(rest)))
        if keyword == "CMD":
            return replace(image, command=tuple(json.loads(rest)))
        if keyword == "COPY":
            self._copy(shlex.split(rest), image)
        elif keyword == "RUN":
            self._run(rest, image)
        elif keyword != "EXPOSE":
            raise ValueError(f"cannot rehearse {keyword}")
        return image

    def _copy(self, words: list[str], image: Image) -> None:
        origin, from_stage = CONTEXT, words[0].startswith("--from=")
        if from_stage:
            name = words.pop(0).partition("=")[2]
            origin = next(stage.root for stage in self._stages if stage.name == name)
        *sources, target = words
        into = image.root / os.path.normpath(f"{image.folder}/{target}").lstrip("/")
        if target.startswith("/"):
            into = image.root / target.strip("/")
        for source in sources:
            if not from_stage and source not in kept_files():
                raise ValueError(f".dockerignore leaves out {source}")
            path = origin / source.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(path, into)

    def _run(self, command: str, image: Image) -> None:
        """Run a command in a stage; the machine's own pip settings are only lent to it."""
        lent = [Path("/etc/resolv.conf"), *self._binds]
        for path in lent:
            bind(path, image.root / path.relative_to("/"))
        settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", **settings, **image.env}
        script = f"cd {shlex.quote(image.folder)} && {command}"
        run(["chroot", str(image.root), "/bin/sh", "-c", script], env=env)
        for path in lent:
            run(["umount", str(image.root / path.relative_to("/"))])


def kept_files() -> set[str]:
    """Return what .dockerignore, which ignores all else, lets into the context."""
    lines = (CONTEXT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return {line[1:] for line in lines if line.startswith("!")}


def bind(path: Path, inside: Path) -> None:
    """Show a file or folder of this machine inside a root file system, read-only."""
    if path.is_dir():
        inside.mkdir(parents=True, exist_ok=True)
    else:
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.touch()
    run(["mount", "--bind", str(path), str(inside)])
    run(["mount", "-o", "remount,bind,ro", str(inside)])


def run(command: list[str], **options: object) -> None:
    """Run a command that has to succeed."""
    subprocess.run(command, check=True, **options)  # type: ignore[call-overload]


class Container:
    """The last stage, started as it says."""

    def __init__(self, image: Image, model: Path, picture: Path) -> None:
        self._image = image
        bind(model.resolve(), image.root / "model")
        run(["mount", "-t", "tmpfs", "-o", "mode=1777,size=256m", "tmpfs", f"{image.root}/tmp"])
        shutil.copy(picture, image.root / "tmp" / "image")
        run(["mount", "-o", "remount,ro", str(image.root)])
        inside = shlex.join(self._inside([*image.entrypoint, *image.command]))
        self._process = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", f"ip link set lo up && exec {inside}"]
        )

    def _inside(self, command: list[str]) -> list[str]:
        image = self._image
        group = image.user.partition(":")[2]
        identity = [f"--userspec={image.user}", f"--groups={group}"]
        only = ["env", "-i", *(f"{name}={value}" for name, value in image.env.items())]
        return ["chroot", *identity, str(image.root), *only, *command]

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside the service, as `docker exec` does."""
        enter = ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", "--"]
        return subprocess.run(
            [*enter, *self._inside(list(command))],
            capture_output=True,
            text=True,
            check=False,
        )

    def wait_until_healthy(self) -> float:
        """Return the seconds until the health check passes.

        Raises:
            RuntimeError: It ends first, or it takes too long.
        """
        start = time.monotonic()
        while time.monotonic() - start < START_SECONDS:
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with {self._process.returncode}")
            if self.execute(*self._image.health).returncode == 0:
                return time.monotonic() - start
            time.sleep(0.5)
        raise RuntimeError(f"not healthy after {START_SECONDS} s")

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()


def check(image: Image, model: Path, picture: Path) -> dict[str, bool]:
    """Start an image and return what holds of it."""
    container = Container(image, model, picture)
    try:
        return observe(container)
    finally:
        container.kill()


def observe(container: Container) -> dict[str, bool]:
    """Return what holds of a container that was started, and stop it."""
    healthy = container.wait_until_healthy()
    answer = container.execute("python3", "-c", ASK)
    print(f"healthy after {healthy:.1f} s; {answer.stdout[:300]}{answer.stderr[-600:]}", flush=True)
    who = container.execute("id", "-u").stdout.strip()
    writes = [container.execute("touch", f"{d}/x").returncode for d in ("", "/srv", "/model")]
    return {
        "answers a picture": answer.returncode == 0 and "detections" in answer.stdout,
        "is not root": who not in {"", "0"},
        "can write nothing but /tmp": all(writes)
        and container.execute("touch", "/tmp/x").returncode == 0,
        "ends cleanly on SIGTERM": container.stop() == 0,
    }


def main() -> None:
    """Rehearse a Dockerfile and say what holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="run folder or folder of engines")
    parser.add_argument("--image", type=Path, required=True, help="a picture to ask about")
    parser.add_argument("--base", type=Path, help="a root file system to use, or to make once")
    parser.add_argument("--suite", default="bookworm", help="Debian's release of the base image")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument(
        "--bind",
        type=Path,
        action="append",
        default=[],
        help="lent to RUN steps, for pip's settings",
    )
    options = parser.parse_args()
    if "REHEARSING" not in os.environ:  # every mount ends with this process
        os.environ["REHEARSING"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])  # noqa: S606
    with tempfile.TemporaryDirectory(dir=options.base and options.base.parent) as folder:
        work = Path(folder)
        base = options.base or work / "base"
        if not base.is_dir():
            wanted = [f"--include={BASE_PACKAGES}", options.suite, str(base), options.mirror]
            run(["debootstrap", "--variant=minbase", *wanted])
        steps = parse(options.dockerfile.read_text(encoding="utf-8"))
        builder = Builder(base, work, options.bind)
        try:
            held = check(builder.build(steps), options.model, options.image)
        finally:
            builder.close()
    for what, holds in held.items():
        print(f"{'ok' if holds else 'FAILED'}: {what}")
    sys.exit(0 if all(held.values()) else 1)


if __name__ == "__main__":
    main()
