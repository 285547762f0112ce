"""Worker processes forked from one that is ready: Beam and kernels are loaded once a run, not once a worker and job.

A Python process takes 3 CPU-seconds of imports and of kernels read from disk before it can work. A fork of one that has
them takes 10 ms, and shares their memory. The server is a process of its own, for only a process without threads can
be forked safely, and who calls penstock may have any. It ends when its client closes the pipe or dies, and its forks
with it.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from .. import RunError

LOOK_SECONDS = 0.05  # between two looks at whether a fork has ended
CLOSE_SECONDS = 5.0  # for a server that is to end


class ForkServer:
    """The client's end: asks for forks, and learns how each ended. Shared by threads.

    `module`: its `serve_workers(pipe)` runs in the server, and calls `serve_forks`.
    """

    def __init__(self, module: str) -> None:
        self._pipe, theirs = Pipe()
        self._lock = threading.Lock()
        self._codes: dict[int, int] = {}
        self._forks = 0
        # The server must have no threads, those of a numeric library included.
        environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}
        end = theirs.fileno()
        # A session of its own: Ctrl-C reaches the client alone, which then ends its workers.
        self._process = start(
            module, "serve_workers", str(end), environment=environment, pass_fds=[end], start_new_session=True
        )
        theirs.close()

    def prepare(self, call: Callable[[], object]) -> None:
        """Have the server run `call`, which pickles by name, before its next fork; it must leave no thread behind."""
        with self._lock:
            self._send(("prepare", pickle.dumps(call)))

    def fork(self, *arguments: Any) -> Fork:
        """Fork a process that runs `main(*arguments)` in this process's environment, import path and folder."""
        with self._lock:
            self._forks += 1
            number = self._forks
            path = [entry for entry in sys.path if isinstance(entry, str)]
            self._send(("fork", (number, dict(os.environ), path, os.getcwd(), arguments)))
            while True:
                try:
                    self._take(said := self._pipe.recv())
                except (EOFError, OSError):
                    raise self._gone() from None
                if said[:2] == ("forked", number):
                    return Fork(self, number, said[2])
                if said[:2] == ("refused", number):
                    raise RunError(f"a worker process cannot be forked: {said[2]}; fewer workers need less")

    def code(self, number: int) -> int | None:
        """Give the exit code of a fork; None while it runs. Forks die with their server, by SIGKILL."""
        with self._lock:
            try:
                while self._pipe.poll():
                    self._take(self._pipe.recv())
            except (EOFError, OSError):
                return self._codes.get(number, -signal.SIGKILL)
            return self._codes.get(number)

    def close(self) -> None:
        """End the server and what still runs of its forks."""
        self._pipe.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: tuple[str, Any]) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._gone() from None

    def _take(self, said: tuple[str, int, Any]) -> None:
        what, number, value = said
        if what == "ended":
            self._codes[number] = value

    def _gone(self) -> RunError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        return RunError(
            f"the process that workers are forked from has ended with code {self._process.returncode}; what is "
            "committed stays: run again to go on"
        )


class Fork:
    """A forked process, as `subprocess.Popen` would show it."""

    def __init__(self, server: ForkServer, number: int, pid: int) -> None:
        self._server, self._number, self.pid = server, number, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Give the exit code, −N where signal N killed it; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.code(self._number)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; subprocess.TimeoutExpired after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0.0)
            time.sleep(LOOK_SECONDS / 2)
        return code

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class _Shared:
    """The fork server of this process, while someone needs it."""

    lock = threading.Lock()
    server: ForkServer | None = None
    users = 0
    used = False  # so gRPC has threads here
    lost = False  # gRPC's threads are in the process that this one was forked from


@contextmanager
def forking(module: str) -> Iterator[None]:
    """Have `fork_server()` give one in this block; blocks share it. Not beyond Linux, where forks are not safe."""
    if sys.platform != "linux":
        yield
        return
    if _Shared.lost:
        raise RunError(
            "this process was forked from one that had run worker processes, and gRPC, which speaks to them, does not "
            'outlive a fork: start it with multiprocessing.get_context("spawn"), or run with workers=1'
        )
    with _Shared.lock:
        _Shared.server, _Shared.used = _Shared.server or ForkServer(module), True
        _Shared.users += 1
    try:
        yield
    finally:
        server = None
        with _Shared.lock:
            _Shared.users -= 1
            if not _Shared.users:
                server, _Shared.server = _Shared.server, None
        if server is not None:
            server.close()


def _forget() -> None:
    """Begin without a server in a process that the client forked: the pipe is its parent's."""
    _Shared.lock, _Shared.server, _Shared.users = threading.Lock(), None, 0
    _Shared.lost = _Shared.used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def fork_server() -> ForkServer | None:
    """Give this process's fork server, where there is one."""
    return _Shared.server


def start(
    module: str, function: str, *words: str, environment: Mapping[str, str] = os.environ, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a process of this Python and import path that calls a module's function with these words."""
    command = [sys.executable, "-c", boot(module, function), *words]
    environment = {**environment, "PYTHONPATH": import_path()}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, **options)


def boot(module: str, function: str) -> str:
    """Write the source of a process that calls a module's function with the words of its command line."""
    # Beam logs to the root logger while it is imported: a handler that keeps nothing comes first.
    quiet = "import logging; logging.getLogger().addHandler(logging.NullHandler())"
    # `-c` looks for modules in the current folder first, where a checkout or a script may lie: the client did not.
    own = "import sys; sys.path[:] = filter(None, sys.path)"
    return f"{own}; {quiet}; from {module} import {function}; {function}(*sys.argv[1:])"


def import_path() -> str:
    """Give this process's import path, as `PYTHONPATH` hands it to a process started here."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path if isinstance(entry, str))


class _ClientGone(Exception):
    """The client has closed the pipe, or died."""


def serve_forks(descriptor: str, main: Callable[..., None]) -> None:
    """Fork what the client asks for, and tell it how each ended, until it is gone (this runs in the server)."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it, and hands that down, is told of no end
    pipe, client = Connection(int(descriptor)), os.getppid()
    running: dict[int, int] = {}
    try:
        while os.getppid() == client:
            if (asked := _asked(pipe)) is not None:
                what, value = asked
                if what == "prepare":
                    pickle.loads(value)()
                    gc.collect()
                    gc.freeze()  # else the first collection in a fork writes to, and so copies, every page
                else:
                    _tell(pipe, _fork(pipe, main, value, running))
            for pid, code in _ended(running):
                _tell(pipe, ("ended", running.pop(pid), code))
    except _ClientGone:
        pass
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _asked(pipe: Connection) -> tuple[str, Any] | None:
    """Wait a moment for what the client asks; None where it asks nothing."""
    try:
        asked: tuple[str, Any] | None = pipe.recv() if pipe.poll(LOOK_SECONDS) else None
    except (EOFError, OSError):
        raise _ClientGone from None
    return asked


def _tell(pipe: Connection, said: tuple[str, int, Any]) -> None:
    try:
        pipe.send(said)
    except OSError:
        raise _ClientGone from None


def _fork(pipe: Connection, main: Callable[..., None], asked: Any, running: dict[int, int]) -> tuple[str, int, Any]:
    """Fork one process; give what the client is told."""
    number, environment, path, folder, arguments = asked
    try:
        pid = os.fork()
    except OSError as error:
        return "refused", number, error.strerror
    if pid == 0:
        pipe.close()
        _be_a_fork(main, environment, path, folder, arguments)
    running[pid] = number
    return "forked", number, pid


def _ended(running: dict[int, int]) -> list[tuple[int, int]]:
    """Reap the forks that have ended: their ids and exit codes."""
    ended = []
    for pid in running:
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if reaped:
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def _be_a_fork(
    main: Callable[..., None], environment: dict[str, str], path: list[str], folder: str, arguments: tuple[Any, ...]
) -> None:
    """Run `main` in the place and with the environment of the client, and end without the server's clean-up."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        os.chdir(folder)
        main(*arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
