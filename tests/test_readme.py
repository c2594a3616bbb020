"""README's story runs as printed, and the names in its table exist."""

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_norm_layers as knl

README = (Path(__file__).parent.parent / "README.md").read_text()
STORY = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the same lines; run once, the export is slow elsewhere"
)
def test_the_story_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    given = {
        f"{name}_{what}": make
        for name in ("train", "test")
        for what, make in (
            ("images", rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)),
            ("labels", rng.integers(0, 10, 40)),
        )
    }
    exec(STORY, given)
    mean = keras.ops.convert_to_numpy(given["model"].layers[1].mean)
    np.testing.assert_allclose(mean.ravel(), given["train_images"].mean((0, 1, 2)), rtol=1e-6)
    assert os.path.exists("export/1/saved_model.pb")


def test_every_public_name_stands_in_the_table_of_layers():
    table = README.split("## Layers")[1].split("\n## ")[0]
    assert set(knl.__all__) == set(re.findall(r"`(\w+)(?:\([^`]*\))?`", table.split("\n\n")[1])) & set(knl.__all__)


def test_files_that_readme_names_exist():
    for path in re.findall(r"\]\(([^)#]+)\)|`((?:examples|notebooks|docs|benchmarks)/[\w./]+)`", README):
        assert (Path(__file__).parent.parent / (path[0] or path[1])).exists(), path
