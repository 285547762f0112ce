"""A job server is fetched once and starts, or says in a sentence why not. Java and Maven are scripts here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from penstock import RequestError, RunError
from penstock.pipelines.job_server import FLINK, SPARK, Engine, fetch, reachable, serve


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of `java` and `mvn`; beside it an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("JAVA_HOME", "PENSTOCK_SPARK_JARS", "PENSTOCK_FLINK_JARS"):
        monkeypatch.delenv(name, raising=False)
    write(folder / "java", "echo the port is taken; exit 3")
    return folder


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


MAVEN = """
for word in "$@"; do case $word in
  -DoutputDirectory=*) out=${word#-DoutputDirectory=};;
  *pom.xml) pom=$word;;
esac; done
mkdir -p "$out" && cp "$pom" "$out/found.jar" && echo once >> "$(dirname "$0")/calls"
"""


@pytest.mark.parametrize("engine", [SPARK, FLINK], ids=lambda engine: engine.name)
def test_jars_are_fetched_once(engine: Engine, programs: Path, tmp_path: Path) -> None:
    write(programs / "mvn", MAVEN)
    said: list[str] = []
    for _ in range(2):
        assert fetch(engine, said.append) == tmp_path / "cache" / "penstock" / f"{engine.name}-jars"
    assert (programs / "calls").read_text() == "once\n"
    assert len(said) == 1
    assert list(engine.jars.parent.iterdir()) == [engine.jars]
    pom = (engine.jars / "found.jar").read_text()
    for artifact in engine.artifacts:
        group, name, version = artifact.split(":")
        assert f"<groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>" in pom


def test_own_jars_are_taken_as_they_are(programs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(programs / "mvn", "exit 1")
    (tmp_path / "mine.jar").touch()
    monkeypatch.setenv("PENSTOCK_SPARK_JARS", str(tmp_path))
    assert SPARK.missing() == []
    assert fetch(SPARK) == tmp_path


def test_what_maven_says_is_passed_on_and_nothing_is_left(programs: Path) -> None:
    write(programs / "mvn", "echo '[INFO] trying'; echo '[ERROR] no route to repository'; exit 1")
    with pytest.raises(RunError, match=r"Maven could not fetch the job server of spark: \[ERROR\] no route"):
        fetch(SPARK, lambda _: None)
    assert not any(SPARK.jars.parent.iterdir())


def test_without_java_nothing_is_fetched(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(programs / "mvn", MAVEN)
    (programs / "java").unlink()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(RequestError, match="there is none on the PATH or in JAVA_HOME"):
        fetch(SPARK)
    assert not (programs / "calls").exists()


def test_a_server_that_does_not_start_says_why(programs: Path) -> None:
    write(programs / "mvn", MAVEN)
    began = []
    with pytest.raises(RunError, match="the job server of spark did not start: the port is taken"):  # noqa: SIM117
        with serve(SPARK, "local[1]", lambda _: None) as endpoint:
            began.append(endpoint)
    assert began == []


def test_a_server_whose_port_was_taken_starts_on_another(programs: Path, tmp_path: Path) -> None:
    """The first start ends as Beam's servers do then: in silence, with status 0."""
    write(programs / "mvn", MAVEN)
    listen = (
        "import socket, sys, time; port = next(a for a in sys.argv if a.startswith('--job-port='))[11:]; "
        "held = socket.create_server(('localhost', int(port))); time.sleep(60)"
    )
    tries = tmp_path / "tries"
    again = f'echo "$@" >>{tries}; [ "$(wc -l <{tries})" = 1 ] && exit 0; exec {sys.executable} -c "{listen}" "$@"'
    write(programs / "java", again)
    with serve(SPARK, "local[1]", lambda _: None) as endpoint:
        assert reachable(endpoint)
    assert not reachable(endpoint)
    first, second = tries.read_text().splitlines()
    assert f"--job-port={endpoint.rpartition(':')[2]}" in second
    assert f"--job-port={endpoint.rpartition(':')[2]}" not in first
