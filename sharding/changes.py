"""Changes of a plan while it is trained on: what is read otherwise from a position on, what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .. import RequestError
from .arguments import Mixing, caps_asked, mixtures_asked, steps_asked, whole_numbers
from .course import Course
from .plan import State


def changed(
    course: Course,
    state: State,
    at: int | None,
    batch_size: int | None,
    weights: Mixing | None,
    split: str | None,
    pack: str | None,
    generation: int | None,
    caps: Mapping[str, int] | None,
) -> State:
    """Give the state whose plan reads otherwise from `at` on, or from where the state stands; None leaves as it is.

    RequestError: `at` lies behind, or the data do not have what is asked for.
    """
    start, plan = state.position if at is None else at, state.plan
    if start < state.position:
        raise RequestError(
            f"position {start} has been read, the loader stands at {state.position}: change from there on"
        )
    here = plan.segment(start)
    size = here.batch_size if batch_size is None else whole_numbers(batch_size)[0]
    if weights is None and split is None and pack is None and generation is None and caps is None:
        return state if size == here.batch_size else replace(state, plan=plan.resized(start, size))
    then = course.at(start).data
    data = then if generation is None else then.at(generation)
    wanted = replace(
        here,
        batch_size=size,
        generation=data.generation.number,
        pack=here.pack if pack is None else data.generation.pack(pack).pack.name,
        caps=here.caps if caps is None else caps_asked(caps),
        order="",
    )
    kept = weights is None and split is None
    for position, mixed in [(start, here.mixture)] if kept else mixtures_asked(split, weights, start):
        segment = replace(wanted, from_position=position, mixture=mixed)
        plan = plan.continued(segment)
    return replace(state, plan=plan, tokens_sha256=data.generation.tokens_sha256)


def without(state: State, step: int, steps: range | tuple[int, int] | None, documents: Iterable[int]) -> State:
    """Give the state whose plan leaves out steps from `step` on, and documents from where the state stands."""
    plan = state.plan
    if steps is not None:
        first, past = steps_asked(steps)
        if first < step:
            raise RequestError(f"step {first} has been read, the loader stands before step {step}: load an older state")
        plan = plan.skipping(plan.extent(first)[0], plan.extent(past - 1)[1])
    if ids := {*whole_numbers(*documents)}:
        plan = plan.edited(state.position, lambda old: replace(old, without=tuple(sorted({*old.without, *ids}))))
    return replace(state, plan=plan)
