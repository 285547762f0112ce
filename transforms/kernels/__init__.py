"""Compiled kernels over Arrow buffers: they see bytes, offsets and integers, and nothing else.

Every kernel is decorated with `kernel`: compiled once, cached on disk, the GIL released.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba

from .cache import KernelCache

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile at first call, keep the machine code on disk, release the GIL.

    Where no folder can be written for it (an install that is read-only, without a home; NUMBA_CACHE_DIR names one),
    every process compiles anew.
    """
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):
        compiled._cache = KernelCache(function)
    return cast(F, compiled)


def inner(function: F) -> F:
    """Compile a function that only the kernels of its own family call: half the work, and kept with them on disk."""
    return cast(
        F, numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    )


def inlined(function: F) -> F:
    """Compile a function into each kernel that calls it, so that of what it gives only what is used is worked out.

    Neither Python nor C can call it: the compiler is spared what they would call.
    """
    options = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(F, numba.njit(nogil=True, error_model="numpy", **options)(function))
