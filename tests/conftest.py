"""What tests share: where the larger real data lies, and a small corpus to run pipelines on."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from small_run import recipe_over

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

# The same examples every time, however slow the machine: what fails here fails everywhere. HYPOTHESIS_PROFILE=random
# looks for new ones.
PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **PATIENT)
settings.register_profile("random", **PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the repository; a user's clone has none."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the larger real data (../shared/data) is not here")
    return SHARED / "data"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three JSON-lines files of 240 documents with exact and near-duplicates; the words come from a fixed seed."""
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(7)
    words = [
        f"{a}{b}"
        for a in ("al", "be", "cor", "den", "el", "fa", "gro", "hin")
        for b in ("da", "ver", "mon", "tis", "kal", "rup", "sen")
    ]
    texts = [" ".join(chance.choices(words, k=chance.randint(60, 400))) for _ in range(200)]
    texts += [texts[i] for i in range(20)] + [texts[i] + " with another ending" for i in range(20, 40)]
    for number in range(3):
        with (folder / f"part-{number}.jsonl").open("w", encoding="utf-8") as file:
            for row in range(number, len(texts), 3):
                record = {
                    "key": f"k{row}",
                    "text": texts[row],
                    "url": f"https://example.org/{row}",
                    "topic": f"t{row % 2}",
                }
                file.write(json.dumps(record) + "\n")
    return folder


@pytest.fixture
def small_recipe(corpus: Path) -> dict[str, Any]:
    """The small recipe over the corpus."""
    return recipe_over(corpus)
