"""Steps as a recipe names them, by kind or import path: read, written, fingerprinted, and applied under their contract.

A step may hold others (`multilingual`); `inner_steps` finds those that do the work.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, PlainSerializer, ValidationError, WithJsonSchema

from .. import PenstockError, RunError
from . import KINDS, STEPS
from .function_step import FunctionStep, is_over_batches
from .step import Outcome, Step, StepModel


def parse_step(value: Any) -> Step:
    """Read one step: a kind, `{kind: {field: value}}`, `{"module:name": {…}}`, a function of a batch, a ready value."""
    if isinstance(value, Mapping) and len(value) == 1:
        name, fields = next(iter(value.items()))
        fields = fields or {}
    elif isinstance(value, str):
        name, fields = value, {}
    elif isinstance(value, Step) and not isinstance(value, type):
        return identified(value)
    elif is_over_batches(value):
        return identified(FunctionStep(value))
    else:
        raise ValueError(f"a step is a name or one `name: fields` pair, not {value!r}")
    if not isinstance(name, str):
        raise ValueError(f"a step is a name or one `name: fields` pair, not {value!r}")
    if not isinstance(fields, Mapping):
        raise ValueError(f"the fields of {name} are a mapping, not {fields!r}")
    if odd := [field for field in fields if not isinstance(field, str)]:
        raise ValueError(
            f"the fields of {name} have names, not {odd[0]!r}: YAML reads yes, no, on and off as true or "
            "false, put quotes around them"
        )
    return build_step(name, dict(fields))


def build_step(name: str, fields: dict[str, Any]) -> Step:
    """Build a step from its kind or import path and its fields."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            make = getattr(import_module(module), attribute)
        except (Exception, SystemExit) as error:  # it is the user's code
            raise ValueError(
                f"the step {name!r} cannot be imported: {type(error).__name__}: {error}; start from the folder that "
                "holds its module, or name that in PYTHONPATH"
            ) from error
        try:
            step = FunctionStep(make, **fields) if is_over_batches(make) else make(**fields)
        except ValidationError:
            raise
        except (Exception, SystemExit) as error:
            raise ValueError(f"the step {name!r} cannot be made: {type(error).__name__}: {error}") from error
        if not isinstance(step, Step):
            raise ValueError(f"{name!r} has no method apply(batch)")
        return identified(step)
    if name not in KINDS:
        raise ValueError(f"there is no step {name!r}; known are {', '.join(KINDS)}, or an import path `module:Name`")
    return step_class(name)(**fields)


def step_class(kind: str) -> type[StepModel]:
    """Give the class of a kind of step; its module is imported at first use."""
    name = KINDS[kind]
    made: type[StepModel] = getattr(import_module(f".{STEPS[name]}", __package__), name)
    return made


def files_named(steps: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Find, in steps as a recipe writes them, the fields that name files: each step's fields, and which of them.

    What is no step is passed over; to read the recipe refuses it.
    """
    for step in steps if isinstance(steps, (list, tuple)) else ():
        for kind, fields in step.items() if isinstance(step, Mapping) else ():
            if kind not in KINDS:
                continue
            made = step_class(kind)
            yield fields, made.files
            for name in made.nested if isinstance(fields, Mapping) else ():
                held = fields.get(name)
                for inner in held.values() if isinstance(held, Mapping) else (held,):
                    yield from files_named(inner)


def identified(step: Step) -> Step:
    """Refuse a step whose output could not be told from another's."""
    if not hasattr(step, "fingerprint"):
        step_state(step)
    if not built_in(step):
        source_of(step)
    return step


def origin(step: Step) -> Any:
    """Give what a step's source is: its class, or the function that it calls."""
    return step.function if isinstance(step, FunctionStep) else type(step)


def built_in(step: Step) -> bool:
    """Whether a step is penstock's own, and not a user's."""
    return str(origin(step).__module__).startswith("penstock.")


def inner_steps(steps: Iterable[Step]) -> Iterator[Step]:
    """Give the steps that do the work: those that a step holds, in its place."""
    for step in steps:
        held = getattr(step, "held_steps", None)
        if held is None:
            yield step
        else:
            yield from inner_steps(held())


def shape(step: Step) -> Any:
    """Give what decides a step's kernels and columns: of penstock's own, all but its numbers and lists."""
    if not isinstance(step, StepModel) or not built_in(step) or hasattr(step, "held_steps"):
        return json.dumps(step_fingerprint(step), sort_keys=True)
    choices = {name: getattr(step, name) for name in type(step).model_fields}
    return type(step), *(
        (name, value if value is None or isinstance(value, (str, bool)) else type(value).__name__)
        for name, value in choices.items()
    )


def distinct(steps: Iterable[Step]) -> list[Step]:
    """Leave out steps of a shape that has been met."""
    met: dict[Any, Step] = {}
    for step in steps:
        met.setdefault(shape(step), step)
    return list(met.values())


def step_kind(step: Step) -> str:
    """Name a step in reasons, columns and the funnel."""
    return str(getattr(step, "kind", type(step).__name__))


def step_fingerprint(step: Step) -> dict[str, Any]:
    """Name everything that decides a step's output; a custom step's module is hashed by its source."""
    own: dict[str, Any] = step.fingerprint() if hasattr(step, "fingerprint") else step_state(step)
    if built_in(step):
        return own
    return {**own, "name": import_path(step), "source": hashlib.sha256(source_of(step)).hexdigest()}


def import_path(step: Step) -> str:
    """Name a step of the user's own: `module:Name`."""
    return f"{origin(step).__module__}:{origin(step).__qualname__}"


def source_of(step: Step) -> bytes:
    """Give the source of a step's module; of its class or function alone where the module is a notebook or a prompt."""
    held: list[Any] = [sys.modules.get(origin(step).__module__), origin(step)]
    for code in held:
        with suppress(OSError, TypeError):
            return inspect.getsource(code).encode()
    raise ValueError(
        f"the step {origin(step).__name__} has no source file, so runs could not tell it from another of its name: put "
        "it into a module"
    )


def step_state(step: Step) -> dict[str, Any]:
    """Give a step's fields as JSON values; a step that holds other things says itself what decides its output."""
    if isinstance(step, BaseModel):
        return step.model_dump(mode="json", exclude={"kind"})
    state = dict(getattr(step, "__dict__", {}))
    try:
        json.dumps(state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the step {type(step).__name__} holds what is no JSON value ({error}), so runs could not tell one such "
            "step from another: give it a method fingerprint() -> dict that names what decides its output"
        ) from error
    return state


def dump_step(step: Step) -> Any:
    """Write a step as a recipe names it."""
    if built_in(step):
        return {step_kind(step): step_state(step)}
    if isinstance(step, FunctionStep):
        return {import_path(step): dict(step.fields)}
    state = step_fingerprint(step) if hasattr(step, "fingerprint") else step_state(step)
    return {f"{type(step).__module__}:{type(step).__name__}": state}


def apply_step(step: Step, batch: pa.RecordBatch) -> Outcome:
    """Apply a step and hold it to its contract: as many rows as came in, a reason a row."""
    try:
        outcome = step.apply(batch)
    except PenstockError:
        raise
    except Exception as error:
        rows = "a batch" if len(batch) else "an empty batch"
        if len(batch) and {"source", "path"} <= set(batch.schema.names):
            rows = f"{batch.column('source')[0]}/{batch.column('path')[0]}"
        raise RunError(f"step {step_kind(step)} failed on {rows}: {type(error).__name__}: {error}") from error
    if not isinstance(outcome, Outcome):
        raise RunError(
            f"step {step_kind(step)} gave a {type(outcome).__name__}; apply(batch) gives Outcome(batch, reasons), with "
            "a reason for each row that goes and null for the others"
        )
    if len(outcome.batch) != len(batch) or len(outcome.reasons) != len(batch):
        raise RunError(
            f"step {step_kind(step)} got {len(batch)} rows and gave {len(outcome.batch)} rows and "
            f"{len(outcome.reasons)} reasons; "
            "a step gives as many as it got, and null as the reason of rows it keeps"
        )
    return outcome


StepField = Annotated[
    Any,
    BeforeValidator(parse_step),
    PlainSerializer(dump_step),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1}]}),
]
