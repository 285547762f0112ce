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
from contextlib import suppress
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

    def _inode(self, names: Any, bodies: Any, files: Any, actor: str, file: File) -> Inode:
        found: Inode = files[file][0]
        return found

    def _size(self, names: Any, bodies: Any, files: Any, actor: str, file: File) -> int:
        return len(bodies[files[file][0]])

    def _ftruncate(self, names: Any, bodies: Any, files: Any, actor: str, file: File) -> None:
        self._write(bodies, files, file, b"")

    def _pwrite(self, names: Any, bodies: Any, files: Any, actor: str, file: File, body: bytes, at: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "full")
        piece, old = body[:2], bodies[files[file][0]]  # in pieces, so that a kill may come between
        self._write(bodies, files, file, old[:at] + piece + old[at + len(piece) :])
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
    """The modules that the protocol sees, for one run of an actor: known calls are answered, the next stops it."""

    O_RDONLY, O_RDWR, O_CREAT = os.O_RDONLY, os.O_RDWR, os.O_CREAT
    LOCK_SH, LOCK_EX, LOCK_NB = 1, 2, 4
    ACCESS_READ = 1

    def __init__(self, history: tuple[Any, ...]) -> None:
        self._answers, self._stopped = iter(history), False
        self._locked: set[File] = set()
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
        self._locked.discard(file)
        self.do("close", file)

    def flock(self, file: File, kind: int) -> None:
        assert kind & self.LOCK_NB, "nobody waits for a lock"
        if file in self._locked:  # a lock that changes its kind is not held for a moment: flock(2)
            self.do("unlock", file)
        self.do("lock", file, "EX" if kind & self.LOCK_EX else "SH")
        self._locked.add(file)

    def stat(self, path: Path) -> Any:
        return SimpleNamespace(st_ino=self.do("stat", str(path)))

    def fstat(self, file: File) -> Any:
        return Status(self, file)

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


class Status:
    """What fstat gives; which file it is never changes, so only the size is a step of its own."""

    def __init__(self, calls: Calls, file: File) -> None:
        self._calls, self._file = calls, file

    @property
    def st_ino(self) -> Any:
        return self._calls.do("inode", self._file)

    @property
    def st_size(self) -> Any:
        return self._calls.do("size", self._file)


Program = Callable[[Calls], Any]
State = tuple[int, tuple[int, ...], int]
# Calls that no other process can see and whose answer none can change.
ALONE = {"fetch", "inode"}


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


def evicts_parts(calls: Calls) -> None:
    """Remove a part that nobody writes."""
    leases.remove_unused(PART)


def drops(calls: Calls) -> None:
    """Forget a block, as one does that found its bytes wrong."""
    leases._unlink(NAME)


class Actor:
    """A process as a table: where it stands is the number of a history, of all that it was told so far."""

    def __init__(self, name: str, program: Program, patch: Callable[[Calls], Any]) -> None:
        self.name, self._program, self._patch = name, program, patch
        self._histories: list[tuple[Any, ...]] = [()]
        self._calls: list[tuple[Any, ...]] = [self._run(())]
        self._after: dict[tuple[int, Any], int] = {}

    def call(self, place: int) -> tuple[Any, ...]:
        """The system call that comes next; () at the end."""
        return self._calls[place]

    def told(self, place: int, result: Any) -> int:
        """Where it stands when that call has given this."""
        if (place, result) not in self._after:
            history = (*self._histories[place], result)
            self._histories.append(history)
            self._calls.append(self._run(history))
            self._after[place, result] = len(self._histories) - 1
        return self._after[place, result]

    def _run(self, history: tuple[Any, ...]) -> tuple[Any, ...]:
        calls = Calls(history)
        self._patch(calls)
        with suppress(Pause):
            self._program(calls)
        return calls.next_call


GONE = -1


class Search:
    """All states that processes can reach together from a kernel, with so many kills of any of them.

    A state is a kernel, where each process stands, and the kills that are left.
    """

    def __init__(self, kernel: Kernel, programs: list[Program], kills: int, patch: Callable[[Calls], Any]) -> None:
        self._actors = [Actor(f"p{number}", program, patch) for number, program in enumerate(programs)]
        self._kernels, self._numbers = [kernel], {kernel: 0}
        self._effects: dict[tuple[int, str, tuple[Any, ...]], tuple[int, Any]] = {}
        left = [(0, (0,) * len(programs), kills)]
        self.states: dict[State, list[State]] = {}
        while left:
            state = left.pop()
            if state not in self.states:
                self.states[state] = list(self._after(*state))
                left += self.states[state]
        self.ends = [self._kernels[state[0]] for state in self.states if self._ended(state)]

    def check(self) -> None:
        """From every state all can come to their end without a kill: nobody waits for ever."""
        before: dict[State, list[State]] = {}
        for state, after in self.states.items():
            for one in after:
                if one[2] == state[2]:
                    before.setdefault(one, []).append(state)
        good = {state for state in self.states if self._ended(state)}
        left = list(good)
        while left:
            for one in before.get(left.pop(), ()):
                if one not in good:
                    good.add(one)
                    left.append(one)
        assert len(good) == len(self.states), f"{len(self.states) - len(good)} of {len(self.states)} lead nowhere"

    def _ended(self, state: State) -> bool:
        return all(place == GONE for place in state[1])

    def _after(self, kernel: int, places: tuple[int, ...], kills: int) -> Iterator[State]:
        for number, (actor, place) in enumerate(zip(self._actors, places, strict=True)):
            if place == GONE:
                continue
            call = actor.call(place)
            if kills or not call:
                gone = self._number(self._kernels[kernel].killed(actor.name))
                left = (*places[:number], GONE, *places[number + 1 :])
                if kills:
                    yield gone, left, kills - 1
                if not call:
                    yield gone, left, kills
                    continue
            after, to = kernel, 0  # between two rounds of waiting nothing is held and nothing remembered
            if call[0] != "sleep":
                after, result = self._effect(kernel, actor.name, call)
                to = actor.told(place, result)
                while (alone := actor.call(to)) and alone[
                    0
                ] in ALONE:  # nobody else can see it, nor changes what it gives
                    after, result = self._effect(after, actor.name, alone)
                    to = actor.told(to, result)
            yield after, (*places[:number], to, *places[number + 1 :]), kills

    def _effect(self, kernel: int, actor: str, call: tuple[Any, ...]) -> tuple[int, Any]:
        if (kernel, actor, call) not in self._effects:
            after, result = self._kernels[kernel].call(actor, *call)
            named = dict(after.names).get(str(NAME))
            if named is not None and dict(after.bodies)[named] not in (BODY, b""):
                raise ProtocolError("half a block stands under the name of a whole one")
            self._effects[kernel, actor, call] = self._number(after), _hashable(result)
        return self._effects[kernel, actor, call]

    def _number(self, kernel: Kernel) -> int:
        number = self._numbers.setdefault(kernel, len(self._kernels))
        if number == len(self._kernels):
            self._kernels.append(kernel)
        return number


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
        (EMPTY, [reads, reads, evicts_parts], 0),
        (STANDS, [reads, evicts, drops], 0),
        (CUT_BY_A_POWER_CUT, [reads, reads], 0),
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
    for kernel in search.ends:
        assert kernel.files == ()
        assert set(dict(kernel.names)) <= {str(NAME), str(PART)}


def no_lock_alone(calls: Calls, file: File, kind: int) -> None:
    calls.do("lock", file, "SH")


@pytest.mark.parametrize(
    ("kernel", "where", "name", "worse", "told"),
    [
        (EMPTY, leases, "_part_path", lambda path: path, "lead nowhere"),
        (LEFT_BY_THE_DEAD, Calls, "ftruncate", lambda *_: None, "half a block"),
        (EMPTY, Calls, "flock", no_lock_alone, "half a block|somebody looks"),
    ],
    ids=["no part", "not emptied before", "written by two"],
)
def test_the_search_finds_what_is_wrong_with_a_worse_protocol(
    patch: Callable[[Calls], None],
    monkeypatch: pytest.MonkeyPatch,
    kernel: Kernel,
    where: Any,
    name: str,
    worse: Any,
    told: str,
) -> None:
    monkeypatch.setattr(where, name, worse)
    with pytest.raises(AssertionError, match=told):
        Search(kernel, [reads, reads], 0, patch).check()
