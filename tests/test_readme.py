"""README's story runs as printed, and the names in its table exist."""

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_norm_layers as knl

README = (Path(__file__).parent.parent / "README.md").read_text()
STORY, SUMMARY, TARGETS, SIZES, GENERATOR, FEEDING = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


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


def test_the_summary_is_as_printed(capsys):
    exec(SUMMARY, {"knl": knl})
    printed = README.split("augment.summary()\n```\n\n```\n")[1].split("```")[0]
    words = capsys.readouterr().out.split()
    assert words[2:] == printed.split()[2:]  # without the name, which Keras counts up


def test_the_lines_on_targets_run():
    given = {
        "images": np.zeros((2, 8, 8, 3), "uint8"),
        "masks": np.zeros((2, 8, 8), "uint8"),
        "labels": np.zeros(2, "int32"),
        "boxes": np.ones((2, 3, 4), "float32"),
        "classes": np.ones((2, 3), "int32"),
        "keypoints": np.ones((2, 4, 2), "float32"),
    }
    exec(TARGETS, {"knl": knl, **given})


@pytest.mark.parametrize("lines", [SIZES, GENERATOR], ids=["sizes", "generator"])
def test_the_lines_on_statistics_and_on_the_generator_run(lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (80, 8, 8, 3), dtype=np.uint8), rng.integers(0, 10, 80)
    normalization = knl.FeaturewiseNormalization()
    inside = [knl.RandomFlip(), normalization, keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *inside])
    normalization.adapt(images)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    exec(lines, {"knl": knl, "model": model, "train_images": images, "train_labels": labels})
    assert os.listdir(".") == []  # the checkpoint of what succeeded is gone


def test_the_lines_on_feeding_run(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(20):
        folder = Path("animals", ("cat", "dog")[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        image.fromarray(pixels).save(folder / f"{number}.png")
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    exec(FEEDING, {"knl": knl, "model": model})
    assert "fewer than 1000" in capsys.readouterr().out
    assert len(list(Path("augmented").iterdir())) == 16 * 3


def test_every_public_name_stands_in_the_table_of_layers():
    table = README.split("## Layers")[1].split("\n## ")[0]
    assert set(knl.__all__) <= set(re.findall(r"`(\w+)(?:\([^`]*\))?`", table.split("\n\n")[1]))


def test_files_that_readme_names_exist():
    for path in re.findall(r"\]\(([^)#]+)\)|`((?:examples|notebooks|docs|benchmarks)/[\w./]+)`", README):
        assert (Path(__file__).parent.parent / (path[0] or path[1])).exists(), path
