"""The cache's protocol, proven by trying everything: all interleavings of the system calls of two and three processes.

The functions under test are the real ones. They run on a kernel of a few lines (names, inodes, open files, locks), and
an actor is run anew from its start for each of its steps: system calls it has made before are answered as they were,
the next one stops it. So a process is a table from what it was told to what it asks next, and the search over all
orders is a walk over states. A kill closes what the process had open, as the real kernel does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.sharding import leases

NAME = Path("/cache/aa/aa-0-8")
PART = leases._part_path(NAME)
BODY = b"GOOD"
Inode = tuple[str, int]
File = tuple[str, int]


class Pause(BaseException):
    """The next system call of an actor; what it gives is not known yet."""


class ProtocolError(AssertionError):
    """The protocol let something happen that must not."""


@dataclass(frozen=True)
class Kernel:
    """What processes share. files: open files with their inode, lock, and descriptors and maps that hold them open."""

    names: tuple[tuple[str, Inode], ...] = ()
    bodies: tuple[tuple[Inode, bytes], ...] = ()
    files: tuple[tuple[File, tuple[Inode, str, int, int]], ...] = ()
    full: bool = False

    def call(self, actor: str, name: str, *arguments: Any) -> tuple[Kernel, Any]:
        """Run a system call: the kernel after it, and what it gives, an OSError if it fails."""
        names, bodies, files = dict(self.names), dict(self.bodies), dict(self.files)
        try:
            result = getattr(self, f"_{name}")(names, bodies, files, actor, *arguments)
        except OSError as error:
            result = error
        used = {*names.values(), *(file[0] for file in files.values())}
        bodies = {inode: body for inode, body in bodies.items() if inode in used}
        after = replace(self, names=_sorted(names), bodies=_sorted(bodies), files=_sorted(files))
        return after, result

    def killed(self, actor: str) -> Kernel:
        """Close all that a process had open."""
        return replace(self, files=tuple(file for file in self.files if file[0][0] != actor))

    def _open(self, names: Any, bodies: Any, files: Any, actor: str, path: str, create: bool) -> File:
        if path not in names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, path)
            names[path] = _unused(actor, {*bodies})
            bodies[names[path]] = b""
        file = _unused(actor, files)
        files[file] = (names[path], "", 1, 0)
        return file

    def _close(self, names: Any, bodies: Any, files: Any, actor: str, file: File) -> None:
        inode, lock, descriptors, maps = files.pop(file)
        if descriptors + maps > 1:
            files[file] = (inode, lock, descriptors - 1, maps)

    def _unlock(self, names: Any, bodies: Any, files: Any, actor: str, file: File) -> None:
        inode, _, *held = files[file]
        files[file] = (inode, "", *held)

    def _lock(self, names: Any, bodies: Any, files: Any, actor: str, file: File, kind: str) -> None:
        inode, _, *held = files[file]
        others = {lock for other, (its, lock, *_) in files.items() if its == inode and other != file and lock}
        if "EX" in others or (others and kind == "EX"):
            raise BlockingIOError(errno.EAGAIN, "locked")
        files[file] = (inode, kind, *held)

    def _stat(self, names: Any, bodies: Any, files: Any, actor: str, path: str) -> Inode:
        if path not in names:
            raise FileNotFoundError(errno.ENOENT, path)
        found: Inode = names[path]
        return found

    def _fstat(self, names: Any, bodies: Any, files: Any, actor: str, file: File) -> tuple[Inode, int]:
        return files[file][0], len(bodies[files[file][0]])

    def _ftruncate(self, names: Any, bodies: Any, files: Any, actor: str, file: File) -> None:
        self._write(bodies, files, file, b"")

    def _pwrite(self, names: Any, bodies: Any, files: Any, actor: str, file: File, body: bytes, at: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "full")
        piece = body[:2]  # so that a kill may come between
        self._write(bodies, files, file, bodies[files[file][0]][:at] + piece)
        return len(piece)

    def _write(self, bodies: Any, files: Any, file: File, body: bytes) -> None:
        inode = files[file][0]
        if any(its == inode and maps for its, _, _, maps in files.values()):
            raise ProtocolError("somebody looks at bytes that are being written")
        bodies[inode] = body

    def _rename(self, names: Any, bodies: Any, files: Any, actor: str, old: str, new: str) -> None:
        if old not in names:
            raise FileNotFoundError(errno.ENOENT, old)
        names[new] = names.pop(old)

    def _unlink(self, names: Any, bodies: Any, files: Any, actor: str, path: str) -> None:
        if names.pop(path, None) is None:
            raise FileNotFoundError(errno.ENOENT, path)

    def _mmap(self, names: Any, bodies: Any, files: Any, actor: str, file: File) -> bytes:
        inode, lock, descriptors, maps = files[file]
        files[file] = (inode, lock, descriptors, maps + 1)
        found: bytes = bodies[inode]
        return found

    def _unmap(self, names: Any, bodies: Any, files: Any, actor: str) -> None:
        for file in [file for file in files if file[0] == actor]:
            inode, lock, descriptors, _ = files.pop(file)
            if descriptors:
                files[file] = (inode, lock, descriptors, 0)

    def _fetch(self, names: Any, bodies: Any, files: Any, actor: str) -> bytes:
        return BODY


def _unused(actor: str, among: Any) -> tuple[str, int]:
    return next((actor, number) for number in range(99) if (actor, number) not in among)


def _sorted(values: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(sorted(values.items()))


class Calls:
    """The modules that the protocol sees, for one run of an actor: what is known is answered, the next call stops it."""

    O_RDONLY, O_RDWR, O_CREAT = os.O_RDONLY, os.O_RDWR, os.O_CREAT
    LOCK_SH, LOCK_EX, LOCK_NB = 1, 2, 4
    ACCESS_READ = 1

    def __init__(self, history: tuple[Any, ...]) -> None:
        self._answers, self._stopped = iter(history), False
        self.next_call: tuple[Any, ...] = ()

    def do(self, *call: Any) -> Any:
        if self._stopped:
            return None  # on the way out: `finally` closes what the kernel still has open
        try:
            answer = next(self._answers)
        except StopIteration:
            self._stopped, self.next_call = True, call
            raise Pause from None
        if isinstance(answer, OSError):
            raise answer
        return answer

    def open(self, path: Path, flags: int, mode: int = 0) -> Any:
        return self.do("open", str(path), bool(flags & self.O_CREAT))

    def close(self, file: File) -> None:
        self.do("close", file)

    def flock(self, file: File, kind: int) -> None:
        # A lock that changes its kind is not held for a moment: flock(2).
        self.do("unlock", file)
        assert kind & self.LOCK_NB, "nobody waits for a lock"
        self.do("lock", file, "EX" if kind & self.LOCK_EX else "SH")

    def stat(self, path: Path) -> Any:
        return SimpleNamespace(st_ino=self.do("stat", str(path)))

    def fstat(self, file: File) -> Any:
        inode, size = self.do("fstat", file)
        return SimpleNamespace(st_ino=inode, st_size=size)

    def ftruncate(self, file: File, size: int) -> None:
        self.do("ftruncate", file)

    def pwrite(self, file: File, body: memoryview, at: int) -> Any:
        return self.do("pwrite", file, bytes(body), at)

    def rename(self, old: Path, new: Path) -> None:
        self.do("rename", str(old), str(new))

    def unlink(self, path: Path) -> None:
        self.do("unlink", str(path))

    def utime(self, file: File) -> None:
        pass

    def makedirs(self, path: Path, exist_ok: bool) -> None:
        pass

    def mmap(self, file: File, size: int, access: int) -> Any:
        return self.do("mmap", file)

    def monotonic(self) -> float:
        return 0.0  # patience lasts: what ends only because it does would be a deadlock

    def sleep(self, seconds: float) -> None:
        self.do("sleep")


Program = Callable[[Calls], Any]


def reads(calls: Calls) -> None:
    """Obtain the block, look at it, let it go."""
    view = leases.obtain(NAME, lambda: calls.do("fetch"), lambda size: None)
    if bytes(view) != BODY:
        raise ProtocolError(f"a reader saw {bytes(view)!r}")
    calls.do("unmap")


def evicts(calls: Calls) -> None:
    """Remove what nobody uses, parts too."""
    leases.remove_unused(NAME)
    leases.remove_unused(PART)


def drops(calls: Calls) -> None:
    """Forget a block, as one does that found its bytes wrong."""
    leases._unlink(NAME)


class Search:
    """All states that actors can reach together from a kernel, with so many kills of any of them."""

    def __init__(self, kernel: Kernel, programs: list[Program], kills: int, patch: Callable[[Calls], Any]) -> None:
        self._programs = {f"{program.__name__}-{number}": program for number, program in enumerate(programs)}
        self._known: dict[tuple[str, tuple[Any, ...]], tuple[Any, ...]] = {}
        self._patch = patch
        first = (kernel, tuple((actor, ()) for actor in self._programs), kills)
        self.states: dict[Any, list[Any]] = {}
        left = [first]
        while left:
            state = left.pop()
            if state not in self.states:
                self.states[state] = list(self._after(state))
                left += self.states[state]
        self.ends = [state for state, after in self.states.items() if not state[1]]

    def check(self) -> None:
        """From every state all actors can come to their end without a kill: nobody waits for ever."""
        before: dict[Any, list[Any]] = {}
        for state, after in self.states.items():
            for one in after:
                if one[2] == state[2]:
                    before.setdefault(one, []).append(state)
        good, left = set(self.ends), list(self.ends)
        while left:
            for one in before.get(left.pop(), ()):
                if one not in good:
                    good.add(one)
                    left.append(one)
        stuck = [state for state in self.states if state not in good]
        assert not stuck, f"{len(stuck)} of {len(self.states)} states lead nowhere, such as {stuck[0]}"

    def _after(self, state: Any) -> Iterator[Any]:
        kernel, actors, kills = state
        named = dict(kernel.names).get(str(NAME))
        if named is not None and dict(kernel.bodies)[named] not in (BODY, b""):
            raise ProtocolError("half a block stands under the name of a whole one")
        for actor, history in actors:
            others = tuple(one for one in actors if one[0] != actor)
            if kills:
                yield kernel.killed(actor), others, kills - 1
            if not (call := self._next_call(actor, history)):
                yield kernel.killed(actor), others, kills
            elif call[0] == "sleep":
                # Between two rounds nothing is held and nothing remembered.
                yield kernel, tuple(sorted([*others, (actor, ())])), kills
            else:
                after, result = kernel.call(actor, *call)
                yield after, tuple(sorted([*others, (actor, (*history, _hashable(result)))], key=str)), kills

    def _next_call(self, actor: str, history: tuple[Any, ...]) -> tuple[Any, ...]:
        """What an actor does next when its calls so far gave this; () when it is done."""
        key = actor, history
        if key not in self._known:
            calls = Calls(history)
            self._patch(calls)
            try:
                self._programs[actor](calls)
            except Pause:
                pass
            self._known[key] = calls.next_call
        return self._known[key]


_errors: dict[tuple[Any, ...], OSError] = {}


def _hashable(result: Any) -> Any:
    """Equal errors are one, so that equal histories are."""
    return _errors.setdefault((type(result), *result.args), result) if isinstance(result, OSError) else result


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Calls], None]:
    """Let the protocol see the kernel of a run in place of the machine's."""

    def patched(calls: Calls) -> None:
        for module in ("os", "fcntl", "mmap", "time"):
            monkeypatch.setattr(leases, module, calls)

    return patched


EMPTY = Kernel()
STANDS = Kernel(names=((str(NAME), ("before", 0)),), bodies=((("before", 0), BODY),))
CUT_BY_A_POWER_CUT = Kernel(names=((str(NAME), ("before", 0)),), bodies=((("before", 0), b""),))
LEFT_BY_THE_DEAD = Kernel(names=((str(PART), ("before", 0)),), bodies=((("before", 0), b"BADBAD"),))


@pytest.mark.parametrize(
    ("kernel", "programs", "kills"),
    [
        (EMPTY, [reads, reads], 1),
        (EMPTY, [reads, evicts], 1),
        (EMPTY, [reads, reads, drops], 0),
        (EMPTY, [reads, reads, evicts], 0),
        (STANDS, [reads, evicts, drops], 0),
        (STANDS, [reads, reads, evicts], 0),
        (CUT_BY_A_POWER_CUT, [reads, reads], 1),
        (LEFT_BY_THE_DEAD, [reads, reads], 1),
        (LEFT_BY_THE_DEAD, [reads, evicts], 1),
        (replace(EMPTY, full=True), [reads, reads], 0),
    ],
)
def test_no_order_of_steps_harms_anyone(
    patch: Callable[[Calls], None], kernel: Kernel, programs: list[Program], kills: int
) -> None:
    """No reader sees wrong or partial bytes, nobody waits for ever, no error escapes, and no lock is left."""
    search = Search(kernel, programs, kills, patch)
    assert len(search.states) > 100
    assert search.ends
    search.check()
    for after, _, _ in search.ends:
        assert after.files == ()
        assert set(dict(after.names)) <= {str(NAME), str(PART)}


@pytest.mark.parametrize(
    ("broken", "programs"),
    [
        # The owner of a part does not look whether its name is still that of what it locked.
        ({"_names": lambda path, file: True}, [reads, reads]),
        # A writer that publishes before it has written.
        ({"_part_path": lambda path: path}, [reads, reads]),
    ],
)
def test_the_search_finds_what_is_wrong_with_a_worse_protocol(
    patch: Callable[[Calls], None], monkeypatch: pytest.MonkeyPatch, broken: Any, programs: list[Program]
) -> None:
    for name, function in broken.items():
        monkeypatch.setattr(leases, name, function)
    with pytest.raises((ProtocolError, AssertionError, OSError)):
        Search(EMPTY, programs, 1, patch).check()
