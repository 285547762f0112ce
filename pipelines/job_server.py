"""Job servers of Spark and Flink: Java programs that take a Beam graph from Python and run it on a master.

Beam publishes each as one shaded jar that its own runners fetch; here it is started from the ordinary Maven artifacts
(about 300 MB for Spark, 150 MB for Flink, fetched once), which mirrors hold more often. A job server listens on all
interfaces, whatever host it is told, and does for anyone who connects what its user may do.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .. import RequestError, RunError

BEAM = "2.62.0"  # of the Java side; tried with Python SDK 2.77. Its artifacts are complete on Maven Central
START_SECONDS = 120.0
STARTS = 3  # Beam's servers log why they end to a logger that is not there, and exit with 0: a taken port says nothing

# What Spark 3.5 reaches into on Java 17 (its own launcher, JavaModuleOptions, opens the same).
_OPENED = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic", "sun.nio.ch", "sun.nio.cs", "sun.security.action"),
    "sun.util.calendar",
)

# Runs the server and ends it when told to, or when the client is gone, however the client ended.
_GUARD = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = subprocess.Popen(sys.argv[2:])
try:
    while server.poll() is None and os.getppid() == int(sys.argv[1]):
        time.sleep(0.2)
finally:
    server.kill()
    server.wait()
sys.exit(server.returncode)
"""


@dataclass(frozen=True)
class Engine:
    """A kind of job server: its Maven artifacts (`group:name:version`), its main class, what Java must be told."""

    name: str
    artifacts: tuple[str, ...]
    driver: str
    java: tuple[str, ...] = ()

    @property
    def jars(self) -> Path:
        """The folder of its jars: the user's own, or the cache."""
        own = os.environ.get(f"PENSTOCK_{self.name.upper()}_JARS")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return Path(own) if own else cache / "penstock" / f"{self.name}-jars"

    def missing(self) -> list[str]:
        """Say what a server of this kind lacks on this machine, a sentence each."""
        says = []
        if _java() is None:
            says.append(
                f"runner {self.name} needs Java to start a job server, and there is none on the PATH or in JAVA_HOME: "
                "install a Java runtime (8, 11 or 17), or name a running server with --job-endpoint HOST:PORT"
            )
        if not any(self.jars.glob("*.jar")) and shutil.which("mvn") is None:
            says.append(
                f"runner {self.name} needs the jars of its job server: {self.jars} holds none, and there is no Maven "
                f"(mvn) to fetch them; set PENSTOCK_{self.name.upper()}_JARS to a folder that holds "
                f"{', '.join(self.artifacts)} and what they need"
            )
        return says


SPARK = Engine(
    "spark",
    (
        f"org.apache.beam:beam-runners-spark-3:{BEAM}",
        *(f"org.apache.spark:spark-{part}_2.12:3.5.0" for part in ("core", "sql", "streaming")),
    ),
    "org.apache.beam.runners.spark.SparkJobServerDriver",
    (
        *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
        "-Dspark.ui.enabled=false",
        "-Dspark.driver.host=127.0.0.1",
    ),
)
FLINK = Engine(
    "flink",
    (f"org.apache.beam:beam-runners-flink-1.19:{BEAM}",),
    "org.apache.beam.runners.flink.FlinkJobServerDriver",
)
ENGINES = {engine.name: engine for engine in (SPARK, FLINK)}


def tell(what: str) -> None:
    """Say it on stderr."""
    print(what, file=sys.stderr)


def fetch(engine: Engine, say: Callable[[str], None] = tell) -> Path:
    """Fetch the jars of a server with Maven, once; give their folder."""
    if any(engine.jars.glob("*.jar")):
        return engine.jars
    if missing := engine.missing():
        raise RequestError("; ".join(missing))
    say(f"fetching the job server of {engine.name} into {engine.jars}, once")
    engine.jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=engine.jars.parent) as path:
        Path(path, "pom.xml").write_text(_pom(engine))
        command = ["mvn", "-q", "-B", "-f", f"{path}/pom.xml", "dependency:copy-dependencies"]
        done = subprocess.run(
            [*command, "-DincludeScope=runtime", f"-DoutputDirectory={path}/jars"], capture_output=True, text=True
        )
        if done.returncode:
            raise RunError(f"Maven could not fetch the job server of {engine.name}: {_first_error(done.stdout)}")
        with suppress(FileExistsError, OSError):  # another process has put them there meanwhile
            os.replace(f"{path}/jars", engine.jars)
    return engine.jars


@contextmanager
def serve(engine: Engine, master: str, say: Callable[[str], None] = tell) -> Iterator[str]:
    """Run a job server for `master` as long as the `with` block lasts; give its `host:port`."""
    jars = fetch(engine, say)
    with tempfile.TemporaryDirectory(prefix="penstock-") as path:
        guard, port = _started(engine, jars, master, Path(path))
        try:
            yield f"localhost:{port}"
        finally:
            guard.terminate()
            guard.wait()


def _started(engine: Engine, jars: Path, master: str, path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server on free ports; on others where it ends at once, for a port may be taken before Java binds it."""
    for _ in range(STARTS):
        port, artifacts = _free_ports(2)
        command = [str(_java()), *engine.java, "-cp", f"{jars}/*", engine.driver]
        command += ["--job-host=localhost", f"--job-port={port}", f"--artifact-port={artifacts}", "--expansion-port=0"]
        command += [f"--artifacts-dir={path}/artifacts", f"--{engine.name}-master{'-url' * (engine is SPARK)}={master}"]
        with open(path / "log", "wb") as log:
            guard = subprocess.Popen(
                [sys.executable, "-c", _GUARD, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            if _is_up(engine, guard, port):
                return guard, port
        except BaseException:
            guard.terminate()
            guard.wait()
            raise
    said = (path / "log").read_text(errors="replace").strip().splitlines()
    raise RunError(f"the job server of {engine.name} did not start: {said[0] if said else 'it gave no reason'}")


def reachable(endpoint: str, seconds: float = 5.0) -> bool:
    """Tell whether something listens at `host:port`."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), seconds) as made:
            return bool(made.getsockname() != made.getpeername())  # where nothing listens, a socket may meet itself
    except (OSError, ValueError):
        return False


def _is_up(engine: Engine, guard: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server listens; tell whether it does, or has ended instead."""
    end = time.monotonic() + START_SECONDS
    while not reachable(f"localhost:{port}"):
        if guard.poll() is not None:
            return False
        if time.monotonic() > end:
            raise RunError(f"the job server of {engine.name} is not up after {START_SECONDS:.0f} s")
        time.sleep(0.2)
    return True


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports: list[int] = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


def _pom(engine: Engine) -> str:
    parts = [artifact.split(":") for artifact in engine.artifacts]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in parts
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>penstock</groupId>'
        f"<artifactId>{engine.name}</artifactId><version>1</version><dependencies>{dependencies}</dependencies></project>"
    )


def _first_error(said: str) -> str:
    return next((line.strip() for line in said.splitlines() if "ERROR" in line), "it gave no reason")


if __name__ == "__main__":  # to fetch the jars ahead of a run, as an image of a container does
    for _name in sys.argv[1:] or ENGINES:
        print(fetch(ENGINES[_name]))
