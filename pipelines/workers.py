"""Python worker processes on this machine: started here, watched, and gone when their client is.

Beam's own way leaves holes: a worker that is killed leaves the job waiting for ever, a client that is killed leaves its
workers running, and a worker pool starts whatever `python` the PATH names. `WorkerHandle` serves Beam's local runner,
`WorkerPool` (Beam's worker-pool protocol) a job server on this machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.transforms.environments import Environment, python_sdk_capabilities
from apache_beam.utils import thread_pool_executor

from .failures import Desk, marked
from .fork_server import Fork, fork_server, serve_forks, start

URN = "penstock:environment:worker_process:v1"
GRACE_SECONDS = 5.0  # for a worker that is to stop; what is cut short is done again on resume

Worker = subprocess.Popen[bytes] | Fork


def launch(control: str, worker_id: str, desk: Desk) -> Worker:
    """Start a worker process: this Python, this process's import path, working for the address `control`.

    Its scratch files lie at the job's desk, which goes with the job, however the worker ends.
    """
    if (server := fork_server()) is not None:
        return server.fork(control, worker_id, desk.path)
    words = control, worker_id, desk.path, str(os.getpid())
    # A session of its own: Ctrl-C reaches the client alone, which then ends its workers.
    return start(__name__, "serve", *words, start_new_session=True)


def serve_workers(pipe: str) -> None:
    """Fork workers (this runs in the fork server)."""
    from apache_beam.runners.worker import sdk_worker  # noqa: F401

    serve_forks(pipe, partial(serve, parent=str(os.getpid())))


def serve(control: str, worker_id: str, scratch: str, parent: str) -> None:
    """Work until the client has nothing more to do, or `parent` is gone (this runs in the worker process)."""
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    tempfile.tempdir = scratch
    ignore_broken_connections()
    threading.Thread(target=_die_with, args=(int(parent),), daemon=True).start()
    with suppress(grpc.RpcError):  # the connection is closed; who closed it knows why
        SdkHarness(control, worker_id=worker_id).run()


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def ignore_broken_connections() -> None:
    """Keep Beam's reader threads from printing a traceback for a connection whose end is reported elsewhere."""
    hook = threading.excepthook

    def unless_broken(thread: threading.ExceptHookArgs) -> None:
        if not isinstance(thread.exc_value, grpc.RpcError):
            hook(thread)

    threading.excepthook = unless_broken


def stop(process: Worker, grace: float = GRACE_SECONDS) -> int:
    """Wait `grace` seconds for a process to end, then kill it; give the code it ended with, 0 where it was killed."""
    try:
        return process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return 0


@Environment.register_urn(URN, bytes)
class WorkerEnvironment(Environment):  # type: ignore[misc]
    """Tells Beam's local runner to start a `WorkerHandle` for each worker."""

    def __init__(self, desk: str) -> None:
        super().__init__(python_sdk_capabilities())
        self.desk = desk

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        """Name the environment in Beam's graph."""
        return URN, self.desk.encode()

    @staticmethod
    def from_runner_api_parameter(payload: bytes, *_: Any) -> WorkerEnvironment:
        """Read the environment from Beam's graph."""
        return WorkerEnvironment(payload.decode())


@WorkerHandler.register_environment(URN, bytes)
class WorkerHandle(GrpcWorkerHandler):  # type: ignore[misc]
    """A worker process of Beam's local runner. When it dies, what the runner still asks of it is answered: an error."""

    def __init__(self, desk: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self.desk = Desk(desk.decode())
        self.closed = threading.Event()

    def start_worker(self) -> None:
        """Start the process and watch it."""
        self.process = launch(self.control_address, self.worker_id, self.desk)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.closed.wait(0.1):
            if (code := self.process.poll()) is not None:
                self.desk.bury(self.process.pid, code)
                self._answer()
            elif self.desk.deserted():
                self.process.kill()

    def _answer(self) -> None:
        """Answer every open question with the failure. The runner waits for these without a limit of time."""
        line = self.desk.failure() or marked(KeyboardInterrupt("interrupted"))
        for asked in list(self.control_conn._futures_by_id):
            future = self.control_conn._futures_by_id.pop(asked, None)
            if future is not None:
                future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=asked, error=line))

    def close(self) -> None:
        """End the process: by Beam's word where its work is done, else after the task it is at, or at once."""
        self.closed.set()
        if self.control_conn._futures_by_id:
            stop(self.process, GRACE_SECONDS if self.desk.failure() and not self.desk.deserted() else 0)
            self._answer()
        super().close()

    def stop_worker(self) -> None:
        """Wait for the process to end."""
        stop(self.process)


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):  # type: ignore[misc]
    """Starts worker processes for a job server on this machine, for as long as the `with` block lasts."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.closed = threading.Event()
        self.processes: dict[str, Worker] = {}
        self.server = grpc.server(thread_pool_executor.shared_unbounded_instance())
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(self, self.server)
        # Not localhost: where a port is free for IPv6 alone, IPv4's belongs to another server, which runners would ask.
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    def StartWorker(self, request: Any, context: Any) -> Any:
        """Start the worker that the job server asks for."""
        self.processes[request.worker_id] = launch(request.control_endpoint.url, request.worker_id, self.desk)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:
        """End a worker that the job server is done with."""
        if (process := self.processes.pop(request.worker_id, None)) is not None:
            self._end(process, GRACE_SECONDS)
        return beam_fn_api_pb2.StopWorkerResponse()

    def _end(self, process: Worker, grace: float) -> None:
        if code := stop(process, grace):
            self.desk.bury(process.pid, code)

    def _watch(self) -> None:
        while not self.closed.wait(0.1):
            for process in list(self.processes.values()):
                if code := process.poll():
                    self.desk.bury(process.pid, code)

    def __enter__(self) -> WorkerPool:
        threading.Thread(target=self._watch, daemon=True).start()
        self.server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closed.set()
        self.server.stop(0).wait()
        for process in self.processes.values():
            self._end(process, 0.5 if any(error) else GRACE_SECONDS)
