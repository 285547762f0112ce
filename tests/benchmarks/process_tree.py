"""Run a command under a time limit and say what its whole process tree cost: shared by the benchmarks.

CPU seconds: user and system time of every process of the tree, those that outlived their parent among them (Linux hands
them to this process). `peak_rss_mb`: the largest resident set of any one process. `peak_pss_mb`: the largest sum over
the tree, pages that processes share counted once, looked at twice a second. Output goes to files: a process that
outlives its parent would keep a pipe open, and its reader waiting, for ever.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ADOPT = 36  # prctl's PR_SET_CHILD_SUBREAPER
LOOK_EVERY = 0.5  # seconds


def peak_mb() -> float:
    """Give the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_tree(
    command: list[str], limit: float, environment: dict[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command; give the JSON of its last line of output, and what its process tree cost.

    Ends the tree after `limit` seconds; that, or an exit code, ends the benchmark with the end of its stderr.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start, named = time.perf_counter(), {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=named)
        tree = Tree(process.pid)
        while tree.code is None and time.perf_counter() - start < limit:
            tree.look()
        wall, code = time.perf_counter() - start, tree.code
        tree.end()
        process.returncode = tree.code
        if code != 0:
            why = f"was ended after {limit:.0f} s" if code is None else f"ended with code {code}"
            raise SystemExit(f"{' '.join(command)}\n{why}; the end of its stderr:\n{tail(err)}")
        figures = {"wall_s": round(wall, 2), "cpu_s": round(tree.cpu, 2), "peak_rss_mb": tree.rss_kb // 1024}
        return json.loads(tail(out, 1 << 24).splitlines()[-1]), {**figures, "peak_pss_mb": tree.pss_kb // 1024}


def tail(file: IO[bytes], size: int = 6000) -> str:
    """Read the end of a file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - size))
    return file.read().decode(errors="replace").strip()


class Tree:
    """A process and what it started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self.cpu, self.rss_kb, self.pss_kb = 0.0, 0, 0

    def look(self) -> None:
        """Reap what has ended for half a second, then sum up the memory of what runs."""
        until = time.perf_counter() + LOOK_EVERY
        while self.reap() and self.code is None and time.perf_counter() < until:
            time.sleep(0.01)
        with suppress(OSError):
            self.pss_kb = max(self.pss_kb, sum(map(pss, below(os.getpid()))))

    def reap(self) -> bool:
        """Take the account of every child that has ended; False where none is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            self.cpu += usage.ru_utime + usage.ru_stime
            self.rss_kb = max(self.rss_kb, usage.ru_maxrss)
            if pid == self.pid:
                self.code = os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Kill what is left of the tree and take its account."""
        while self.reap():
            for pid in below(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def below(root: int) -> list[int]:
    """List the processes that descend from one."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, left = [], [root]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def pss(pid: int) -> int:
    """Give a process's share of memory in KiB."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
    return 0


def environment_python(folder: Path, packages: tuple[str, ...]) -> Path:
    """Make a peer's virtual environment unless it stands; give its interpreter."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return python


def load_average() -> list[float]:
    """Give the load of the last 1, 5 and 15 minutes: what else the machine had to do."""
    return [round(value, 2) for value in os.getloadavg()]
