"""Steps as a recipe names them, by kind or import path; and the fingerprint of what decides their output."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, PlainSerializer, ValidationError, WithJsonSchema

from .. import transforms
from ..transforms import KINDS
from ..transforms.step import Step


def parse_step(value: Any) -> Step:
    """Read one step of a recipe: a kind, `{kind: {field: value}}`, `{"module:Name": {…}}`, or a ready value."""
    if isinstance(value, Mapping) and len(value) == 1:
        name, fields = next(iter(value.items()))
        fields = fields or {}
    elif isinstance(value, str):
        name, fields = value, {}
    elif isinstance(value, Step) and not isinstance(value, type):
        return identified(value)
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
            step = make(**fields)
        except ValidationError:
            raise
        except (Exception, SystemExit) as error:
            raise ValueError(f"the step {name!r} cannot be made: {type(error).__name__}: {error}") from error
        if not isinstance(step, Step):
            raise ValueError(f"{name!r} has no method apply(batch)")
        return identified(step)
    if name not in KINDS:
        raise ValueError(f"there is no step {name!r}; known are {', '.join(KINDS)}, or an import path `module:Name`")
    step = getattr(transforms, KINDS[name])(**fields)
    assert isinstance(step, Step)
    return step


def files_of(kind: Any) -> tuple[str, ...]:
    """Name the fields of a kind of step that name files."""
    files: tuple[str, ...] = getattr(transforms, KINDS[kind]).files if kind in KINDS else ()
    return files


def identified(step: Step) -> Step:
    """Refuse a step whose output could not be told from another's."""
    if not hasattr(step, "fingerprint"):
        step_state(step)
    if not built_in(step):
        source_of(step)
    return step


def built_in(step: Step) -> bool:
    """Whether a step is penstock's own, and not a user's."""
    return type(step).__module__.startswith("penstock.")


def step_kind(step: Step) -> str:
    """Name a step in reasons, columns and the funnel."""
    return str(getattr(step, "kind", type(step).__name__))


def step_fingerprint(step: Step) -> dict[str, Any]:
    """Name everything that decides a step's output; a custom step's module is hashed by its source."""
    own: dict[str, Any] = step.fingerprint() if hasattr(step, "fingerprint") else step_state(step)
    if built_in(step):
        return own
    name, source = f"{type(step).__module__}:{type(step).__qualname__}", hashlib.sha256(source_of(step)).hexdigest()
    return {**own, "name": name, "source": source}


def source_of(step: Step) -> bytes:
    """Give the source of a step's module; of its class alone where the module is a notebook or a prompt."""
    for code in (sys.modules[type(step).__module__], type(step)):
        with suppress(OSError, TypeError):
            return inspect.getsource(code).encode()
    raise ValueError(
        f"the step {type(step).__name__} has no source file, so runs could not tell it from another of its name: put "
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
    state = step_fingerprint(step) if hasattr(step, "fingerprint") else step_state(step)
    return {f"{type(step).__module__}:{type(step).__name__}": state}


StepField = Annotated[
    Any,
    BeforeValidator(parse_step),
    PlainSerializer(dump_step),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1}]}),
]
