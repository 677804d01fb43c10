"""A kernel with `sch_netem` where this machine's has none: one command inside User-Mode Linux.

    python -m tests.netem_root.uml [--timeout SECONDS] [--memory MB] COMMAND…

Debian's package `user-mode-linux` is a Linux kernel that runs as a process. `run` boots it in
about three seconds on this machine's own files, loads the modules that netem is about, runs
one command as the guest's root, and returns its output and exit status. Neither the host's
kernel nor its network is touched, and no root is needed on the host.

What to know before using it:

- The guest sees and **writes the host's files**, but for /tmp, /run, /dev/shm, which are its
  own and end with it. Results leave through the output.
- It ends with its command, with `timeout_s`, or with its starter.
- It has one processor, a tick of 10 ms, high-resolution timers and no network but loopback
  and what the command makes. A system call costs some microseconds more than on the host.
- The command gets a small environment of its own; nothing of the caller's comes along.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import re
import secrets
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.shared import REPOSITORY, skip_without

KERNEL: Final = "linux.uml"
MODULES_FOLDER: Final = Path("/usr/lib/uml/modules")
MODULES: Final = (
    *("veth", "tun", "ifb", "dummy", "bridge"),
    *("sch_netem", "sch_ingress", "sch_htb", "sch_fq", "act_mirred", "cls_matchall"),
    *("tcp_bbr", "nf_tables"),
)
MEMORY_MB: Final = 1024
BOOT_TIMEOUT_S: Final = 60.0
"""Three seconds on a quiet machine."""
END_TIMEOUT_S: Final = 5.0
"""For its processes to go once they are killed."""
_CONSOLE_BYTES_MAX: Final = 1 << 20
# Ends the kernel with its starter, however that ends, for `cat` reads from it. The kernel makes
# a session of its own. It may not be killed alone: that would let go of what it traces.
_KERNEL_AND_WATCH: Final = """
    "$@" </dev/null &
    exec >/dev/null
    cat
    kill -s KILL -- "-$!" || kill -s KILL "$!"
"""
_INIT: Final = Path(__file__).with_name("init.sh")
_NEEDED: Final = {
    KERNEL: "user-mode-linux",
    "insmod": "kmod",
    "ip": "iproute2",
    "tc": "iproute2",
    "ethtool": "ethtool",
}


class UmlFailed(AssertionError):
    """The kernel did not boot, did not end in time, or ended without an exit status."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one command did inside: exit status, output (both streams), the kernel's console."""

    returncode: int
    output: str
    console: str


def why_not() -> str | None:
    """What is missing here for `run`; None if nothing is."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted({p for tool, p in _NEEDED.items() if shutil.which(tool, path=path) is None})
    if missing:
        return f"a kernel with sch_netem needs: apt-get install {' '.join(missing)}"
    return None if release() else f"there are no modules under {MODULES_FOLDER}"


def need_uml() -> None:
    """The test ends here without User-Mode Linux: skipped, or failed where `uml` is required."""
    if (reason := why_not()) is not None:
        skip_without("uml", reason)


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path = REPOSITORY,
    memory_mb: int = MEMORY_MB,
    on_output: Callable[[str], object] | None = None,
) -> Result:
    """Run one command inside; `on_output` hears its output as it comes.

    Raises:
        UmlFailed: no exit status within `timeout_s` of the command's start; quotes output
            and console.
    """
    mark = f"LOOKOUT-UML-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lookout-uml-")))
        _write_job(folder, mark, argv, env or {}, cwd)
        guest = _Guest(folder, memory_mb, stack)
        return guest.listen(mark, timeout_s, on_output or (lambda _: None))


def run_python(arguments: Sequence[str | Path], **options: object) -> Result:
    """`run` with this interpreter in front."""
    return run([sys.executable, *arguments], **options)  # type: ignore[arg-type]


class _Guest:
    """One running kernel: its serial line, its console, and its certain end."""

    def __init__(self, folder: Path, memory_mb: int, stack: contextlib.ExitStack) -> None:
        self._raw = b""
        self._console = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._popen = subprocess.Popen(
            [
                *("sh", "-c", _KERNEL_AND_WATCH, "sh"),
                *(KERNEL, f"mem={memory_mb}M", "root=/dev/root", "rootfstype=hostfs", "rw"),
                *("quiet", f"uml_dir={folder}/", "con=null", "con0=null,fd:2"),
                *("ssl=null", "ssl0=fd:0,fd:1", f"init={_INIT}", f"LOOKOUT_UML={folder}"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._console,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder)},
        )
        stack.callback(self._end)
        assert self._popen.stdout is not None
        self._serial = self._popen.stdout.fileno()

    def listen(self, mark: str, timeout_s: float, hear: Callable[[str], object]) -> Result:
        """Output between the two marks, and the exit status behind the second."""
        line = mark.encode()
        how = self._until(rb"%s (begin|boot)\n" % line, BOOT_TIMEOUT_S)[1]
        if how[1] == b"boot":
            raise UmlFailed(f"the guest did not boot as it should\n{self._story()}")
        output, end = self._until(rb"%s (\d+)\n" % line, timeout_s, hear, hold=line)
        return Result(int(end[1]), output.decode("utf-8", "replace"), self._console_text())

    def _until(
        self,
        pattern: bytes,
        timeout_s: float,
        hear: Callable[[str], object] = lambda _: None,
        hold: bytes = b"",
    ) -> tuple[bytes, re.Match[bytes]]:
        """What comes before `pattern`, and its match. `hear` gets it as it comes, but for
        an end that may become `hold`."""
        deadline = time.monotonic() + timeout_s
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        heard = 0
        while (found := re.search(pattern, self._raw[heard:])) is None:
            ready = max(heard, _clear_of(self._raw, hold))
            hear(decoder.decode(self._raw[heard:ready]))
            heard = ready
            self._raw += self._read(deadline - time.monotonic(), timeout_s)
        end = heard + found.start()
        hear(decoder.decode(self._raw[heard:end], final=True))
        before, self._raw = self._raw[:end], self._raw[heard + found.end() :]
        return before, found

    def _read(self, left_s: float, timeout_s: float) -> bytes:
        """Some bytes of the serial line."""
        ready, _, _ = select.select([self._serial], [], [], max(0.0, left_s))
        if not ready:
            raise UmlFailed(
                f"the guest ran for {timeout_s} s, and its end is not in sight\n{self._story()}"
            )
        if not (chunk := os.read(self._serial, 1 << 16)):
            raise UmlFailed(f"the guest ended without an exit status\n{self._story()}")
        return chunk

    def _console_text(self) -> str:
        self._console.seek(0)
        return self._console.read(_CONSOLE_BYTES_MAX).decode("utf-8", "replace")

    def _story(self) -> str:
        text = self._raw.decode("utf-8", "replace")
        return f"--- output\n{text[-8000:]}\n--- console\n{self._console_text()[-4000:]}"

    def _end(self) -> None:
        """Close what the watch reads from, and wait until nobody holds the serial line."""
        self._popen.communicate(timeout=END_TIMEOUT_S)


def _clear_of(raw: bytes, hold: bytes) -> int:
    """Where the end of `raw` begins that is `hold`, or may become it."""
    if hold and (start := raw.rfind(hold)) >= 0:
        return start
    longest = (n for n in range(len(hold), 0, -1) if raw.endswith(hold[:n]))
    return len(raw) - next(longest, 0)


def _write_job(
    folder: Path, mark: str, argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path
) -> None:
    """What init.sh reads: the mark, the modules in the order of their needs, the command."""
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", **env}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    command = shlex.join(str(word) for word in argv)
    (folder / "mark").write_text(f"{mark}\n")
    (folder / "keep").write_text("".join(f"{path}\n" for path in _hidden([cwd, Path(sys.prefix)])))
    (folder / "modules").write_text("".join(f"{path}\n" for path in _module_files(MODULES)))
    (folder / "job.sh").write_text(f"cd {shlex.quote(str(cwd))} || exit 126\n{exports}{command}\n")


def _hidden(folders: Sequence[Path]) -> list[Path]:
    """Those that the guest's own /tmp would hide; none within another."""
    below = sorted({path.absolute() for path in folders if Path("/tmp") in path.absolute().parents})
    return [path for path in below if not set(path.parents) & set(below)]


def release() -> Path | None:
    """Folder of the newest kernel's modules."""
    found = sorted(MODULES_FOLDER.glob("*/modules.dep"))
    return found[-1].parent if found else None


def _module_files(names: Sequence[str]) -> list[Path]:
    """Files of these modules, each after those that it needs (`modules.dep`)."""
    folder = release()
    if folder is None:
        raise UmlFailed(f"there are no modules under {MODULES_FOLDER}")
    needs: dict[str, list[str]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        file, _, needed = line.partition(":")
        needs[file] = needed.split()
    files = {Path(file).stem: file for file in needs}
    # modules.dep lists the needs of needs as well, the deepest last.
    order = [f for name in names for f in (*reversed(needs[files[name]]), files[name])]
    return [folder / file for file in dict.fromkeys(order)]


def main() -> int:
    """Run the command of the command line inside, with its output here."""
    parser = argparse.ArgumentParser(prog="python -m tests.netem_root.uml", description=__doc__)
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument(
        "--memory", type=int, default=MEMORY_MB, metavar="MB", help="half of it is the guest's disk"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if (reason := why_not()) is not None:
        parser.exit(1, f"{reason}\n")

    def show(chunk: str) -> None:
        sys.stdout.write(chunk)
        sys.stdout.flush()

    done = run(
        args.command,
        timeout_s=args.timeout,
        cwd=Path.cwd(),
        memory_mb=args.memory,
        on_output=show,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
