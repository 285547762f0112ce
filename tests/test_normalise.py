"""One way of writing: what is changed, what is left alone, and how it comes back."""

from __future__ import annotations

import doctest
import pickle
import random
import re
import sys
import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest

from penstock import MissingExtraError, RunError
from penstock.transforms import normalise
from penstock.transforms.edits import undo
from penstock.transforms.named import build_step
from penstock.transforms.normalise import Normalise
from penstock.transforms.step import Step

ALL: dict[str, Any] = {"zero_width": True, "trailing_spaces": True}
NONE: dict[str, Any] = {"form": None, "newlines": False, "controls": False, "bom": False}
PIECES = [
    "a", "é", "e\u0301", "漢", "🙂", "👩\u200d👩", "\r\n", "\r", "\n", "\v", "\f", "\x85", "\u2028", "\u2029", "\x00",
    "\x07", "\x1f", "\x7f", "\x80", "\x9f", "\xa0", "\ufeff", "\u200b", "\u200c", "\u2060", "\xad", " ", "\t", "ﬁ",
    "２",    "\u1100\u1161", "\u0308", "Å", "\u212b", "\u0344", "क\u093c", "\u2027", "\u202a", "\ufefe", "\uff21",
    "ſ\u0323\u0307",
]  # fmt: skip


def batch(texts: Any) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(texts, pa.string())})


def changed(text: str, **fields: Any) -> str:
    found: str = Normalise(**fields).apply(batch([text])).batch["text"][0].as_py()
    return found


def oracle(text: str, step: Normalise) -> str:
    """The definition, in the order of the docstring."""
    if step.newlines:
        text = re.sub("\r\n|[\r\v\f\x85\u2028\u2029]", "\n", text)
    if step.controls:
        text = re.sub("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]", "", text)
        text = text if step.newlines else re.sub("[\v\f]", "", text)
    if step.bom:
        text = text.replace("\ufeff", "")
    if step.zero_width:
        text = re.sub("[\u200b\u2060\xad]", "", text)
    if step.form:
        text = unicodedata.normalize(step.form, text)
    return re.sub("[ \t]+(?=\n|$(?![\n]))", "", text) if step.trailing_spaces else text


@pytest.mark.parametrize(
    "fields",
    [{}, ALL, NONE, {**NONE, "controls": True}, {**NONE, "newlines": True}, {**NONE, "bom": True},
     {**NONE, "zero_width": True}, {**NONE, "trailing_spaces": True}, {"form": "NFKC", **ALL}],
)  # fmt: skip
def test_random_texts_become_the_oracles_and_go_back(fields: dict[str, Any]) -> None:
    chance, step = random.Random(4), Normalise(**fields)
    texts = ["".join(chance.choices(PIECES, k=chance.randint(0, 14))) for _ in range(1500)]
    made = step.apply(batch(texts)).batch
    after = made["text"].to_pylist()
    assert after == [oracle(text, step) for text in texts]
    assert [undo(text, edits) for text, edits in zip(after, made["edits"].to_pylist(), strict=True)] == texts
    held = [len(edits or ()) for edits in made["edits"].to_pylist()]
    assert made["normalise.edits"].to_pylist() == held
    assert step.apply(batch(after)).batch["normalise.edits"].to_pylist() == [0] * len(texts)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ""),
        ("\ufeffword", "word"),
        ("a\r\nb\rc\n", "a\nb\nc\n"),
        ("page one\fpage two\vend", "page one\npage two\nend"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("tab\there", "tab\there"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("zero\u200bwidth soft\u00adhyphen", "zero\u200bwidth soft\u00adhyphen"),
        ("e\u0301", "é"),
        ("ﬁ ①", "ﬁ ①"),
        ("trail \n", "trail \n"),
        ("\U0010ffff\ufffe", "\U0010ffff\ufffe"),
    ],
)
def test_named_cases(text: str, left: str) -> None:
    assert changed(text) == left


def test_by_choice() -> None:
    assert changed("zero\u200bwidth soft\u00adhyphen\u2060", zero_width=True) == "zerowidth softhyphen"
    assert changed("ﬁ ① ２", form="NFKC") == "fi 1 2"
    assert changed(" a \t\n\t\nb ", trailing_spaces=True) == " a\n\nb"
    assert changed("e\u0301\r\n\x00", **NONE) == "e\u0301\r\n\x00"


def test_an_edit_is_no_longer_than_what_changes() -> None:
    text = "漢字" * 500 + " cafe\u0301 " + "漢字" * 500
    (one,) = Normalise().apply(batch([text])).batch["edits"][0].as_py()
    assert (one["step"], one["removed"], one["inserted"]) == ("normalise/form", "e\u0301", "é")
    assert one["start"] == 1004


def test_nulls_slices_types_and_an_empty_batch() -> None:
    texts = ["a\r", None, "e\u0301", "x" * (1 << 20), "\r\n" * 1000]
    for kind in (pa.string(), pa.large_string()):
        column = pa.record_batch({"text": pa.array(["cut\r", *texts], kind)})
        made = Normalise().apply(column.slice(1)).batch
        assert made["text"].type == kind
        assert made["text"].to_pylist() == ["a\n", None, "é", texts[3], "\n" * 1000]
        assert Normalise().apply(column).batch.slice(1).equals(made)
        assert Normalise().apply(column.slice(0, 0)).batch.schema == made.schema
    assert "edits" not in Normalise(record_edits=False).apply(batch(["a\r"])).batch.schema.names


def test_bytes_that_are_no_utf8_are_left() -> None:
    broken = [b"\xe2\x80", b"e\xcc\x81", b"\xcc", b"\xff\xcc\x81\r", b"\xef\xbb", b"\xc2"]
    offsets = np.cumsum([0, *map(len, broken)], dtype=np.int32)
    column = pa.StringArray.from_buffers(len(broken), pa.py_buffer(offsets), pa.py_buffer(b"".join(broken)))
    made = Normalise(**ALL).apply(pa.record_batch({"text": column})).batch["text"].cast(pa.binary()).to_pylist()
    assert made == [b"\xe2\x80", "é".encode(), b"\xcc", b"\xff\xcc\x81\n", b"\xef\xbb", b"\xc2"]


def test_another_unicode_is_refused() -> None:
    step = Normalise(unicode="9.9.9")
    with pytest.raises(RunError, match=r"knows Unicode .*, and normalise was set up under 9\.9\.9"):
        step.apply(batch([]))
    assert Normalise(unicode="9.9.9", form=None).apply(batch(["a\r"])).batch["text"].to_pylist() == ["a\n"]
    assert Normalise().fingerprint()["unicode"] == unicodedata.unidata_version
    assert "unicode" not in Normalise(form=None).fingerprint()
    assert step.fingerprint() != Normalise().fingerprint()


def test_a_wrong_decoding_is_undone_with_ftfy() -> None:
    ftfy = pytest.importorskip("ftfy")
    text = "schÃ¶n und gut\nCafÃ© â€” dâ€™accord\nÃ bien\nplain"
    made = Normalise(mojibake=True).apply(batch([text, "plain", "é"])).batch
    assert made["text"].to_pylist() == ["schön und gut\nCafé — d’accord\nà bien\nplain", "plain", "é"]
    assert undo(made["text"][0].as_py(), made["edits"][0].as_py()) == text
    assert Normalise(mojibake=True).fingerprint()["ftfy"] == ftfy.__version__


def test_without_ftfy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'penstock\[ftfy\]'"):
        Normalise(mojibake=True).fingerprint()
    with pytest.raises(MissingExtraError, match=r"pip install 'penstock\[ftfy\]'"):
        Normalise(mojibake=True).apply(batch(["é"]))


def test_travels_and_is_equal_by_value() -> None:
    step = Normalise(form="NFKC", zero_width=True)
    assert pickle.loads(pickle.dumps(step)) == step
    assert Normalise.model_validate_json(step.model_dump_json()) == step
    assert build_step("normalise", {"form": "NFKC", "zero_width": True}) == step
    assert isinstance(step, Step)
    with pytest.raises(pydantic.ValidationError, match="form"):
        Normalise.model_validate({"form": "NFD"})


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(normalise).failed == 0
    assert doctest.testmod(normalise).attempted >= 3
