"""From raw images to a served model: adapt, augment, train, evaluate, export, and answer without this package.

python examples/train_and_serve.py                   # scikit-learn's digits, no network needed
DATASET=cifar10 python examples/train_and_serve.py   # or mnist: downloaded by keras.datasets
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image
from scipy import ndimage

import keras_norm_layers as knl

OUTPUT = Path("demo_output")
EPOCHS = {"digits": 30, "mnist": 3, "cifar10": 10}
FILL = {
    "digits": "constant",
    "mnist": "constant",
    "cifar10": "reflect",
}  # what comes in from outside: black, or a mirror


def load(name):
    """Raw images, uint8 in 0..255 (N, height, width, channels), and their labels (N,)."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()  # 1797 images of 8 x 8 with values 0..16
        return np.rint(digits.images[..., None] * (255 / 16)).astype("uint8"), digits.target
    if name not in EPOCHS:
        raise SystemExit(f"DATASET must be one of {list(EPOCHS)}. Received: {name!r}")
    try:
        (images, labels), _ = getattr(keras.datasets, name).load_data()
    except Exception as error:  # keras.datasets raises several kinds
        raise SystemExit(
            f"DATASET={name} needs a network to download it ({error}). DATASET=digits needs none."
        ) from None
    return images.reshape(len(images), *images.shape[1:3], -1), labels.ravel()


def split(images, labels, seed=0):
    """Training (60 %), validation (15 %) and test (25 %) images with their labels, in a random order."""
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, [int(0.6 * len(order)), int(0.75 * len(order))])
    return [(images[part], labels[part]) for part in parts]


def moved(images, fill, seed=1):
    """Every image rotated by up to 25 degrees and shifted by up to 15 % of its side, by SciPy: a harder test set."""
    random = np.random.default_rng(seed)
    side = images.shape[1]
    result = np.empty_like(images)
    for i, image in enumerate(images.astype("float32")):
        turned = ndimage.rotate(image, random.uniform(-25, 25), reshape=False, order=1, mode=fill)
        shift = (*random.uniform(-0.15 * side, 0.15 * side, 2), 0)
        result[i] = np.clip(np.rint(ndimage.shift(turned, shift, order=1, mode=fill)), 0, 255)
    return result


def build(shape, classes, augmentation):
    """A small CNN that takes raw uint8 images. What it does to them before the first convolution is part of it."""
    return keras.Sequential(
        [
            keras.Input(shape, dtype="uint8"),
            *augmentation,  # the identity outside training
            knl.FeaturewiseNormalization(),  # its statistics are weights: they are saved, loaded and exported
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


def augmentation(name):
    """The random transforms that suit the data, in one pass over the pixels. A mirrored digit is no digit: no flips."""
    return knl.Augment(
        [
            *([knl.RandomFlip("horizontal")] if name == "cifar10" else []),
            knl.RandomRotation(25 / 360, fill_mode=FILL[name]),
            knl.RandomTranslation(0.15, 0.15, fill_mode=FILL[name]),
            knl.RandomZoom(0.1, fill_mode=FILL[name]),
            knl.RandomBrightness(0.1),
        ],
        seed=7,
    )


def train(model, training, validation, epochs):
    """Adapt the normalization on the training images, then fit."""
    start = time.perf_counter()
    knl.adapt(model, training[0], verbose=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(*training, validation_data=validation, epochs=epochs, batch_size=64, verbose=0).history
    accuracy = history["val_accuracy"][-1]
    print(f"  {epochs} epochs in {time.perf_counter() - start:.0f} s, validation accuracy {accuracy:.1%}")
    return model


def picture(augment, images, path, draws=4):
    """The same images before (first row) and after augmentation (one row a draw)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [images, *(keras.ops.convert_to_numpy(augment(images, training=True)) for _ in range(draws))]
    _, axes = plt.subplots(len(rows), len(images), figsize=(len(images), 1.1 * len(rows)))
    for row, (label, batch) in enumerate(zip(["before", *[f"draw {i + 1}" for i in range(draws)]], rows)):
        for axis, image in zip(axes[row], batch):
            axis.imshow(np.clip(image, 0, 255).astype("uint8").squeeze(), cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
        axes[row][0].set_ylabel(label)
    plt.tight_layout()
    plt.savefig(path, dpi=120)
    plt.close()


def serve_elsewhere(saved_model, images):
    """The answers of a second process that cannot import this package, for raw pixels and for PNG files."""
    folder = OUTPUT / "png"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{i:06d}.png")
    np.save(OUTPUT / "pixels.npy", images)
    script = Path(__file__).with_name("serve_without_package.py")
    command = [sys.executable, script, saved_model, OUTPUT / "pixels.npy", folder, OUTPUT / "answers.npz"]
    subprocess.run([str(part) for part in command], check=True)
    with np.load(OUTPUT / "answers.npz") as answers:
        return answers["from_pixels"], answers["from_files"]


def main():
    name = os.environ.get("DATASET", "digits")
    keras.utils.set_random_seed(0)
    OUTPUT.mkdir(exist_ok=True)
    images, labels = load(name)
    training, validation, test = split(images, labels)
    shape, classes = images.shape[1:], int(labels.max()) + 1
    print(
        f"{name}: {len(training[0])} training, {len(validation[0])} validation, {len(test[0])} test images of {shape}\n"
    )

    augment = augmentation(name)
    print("training without augmentation")
    plain = train(build(shape, classes, []), training, validation, EPOCHS[name])
    print("training with augmentation")
    augmented = train(build(shape, classes, [augment]), training, validation, EPOCHS[name])

    print(f"\n{'accuracy on':24}{'the test set':>14}{'shifted and rotated':>22}")
    for label, model in (("without augmentation", plain), ("with augmentation", augmented)):
        scores = [model.evaluate(x, test[1], verbose=0)[1] for x in (test[0], moved(test[0], FILL[name]))]
        print(f"{label:24}{scores[0]:>14.1%}{scores[1]:>22.1%}")

    norm = next(layer for layer in augmented.layers if isinstance(layer, knl.FeaturewiseNormalization))
    truth = training[0].astype("float64")
    print(f"\n{'statistics (training)':24}{'adapted':>30}{'NumPy, float64':>30}")
    for label, adapted, expected in (
        ("mean", norm.mean, truth.mean((0, 1, 2))),
        ("std", norm.std, truth.std((0, 1, 2))),
    ):
        adapted = keras.ops.convert_to_numpy(adapted).ravel()
        print(f"{label:24}{np.array2string(adapted, precision=4):>30}{np.array2string(expected, precision=4):>30}")

    picture(augment, test[0][:8], OUTPUT / "before_after.png")
    print()
    report = knl.export_for_serving(augmented, OUTPUT / "export" / "1", overwrite=True)
    predicted = augmented.predict(test[0], verbose=0)
    print(f"\nserved by a process without this package, {len(test[0])} test images, largest difference from predict")
    for label, served in zip(("raw uint8 pixels", "PNG files"), serve_elsewhere(report.path, test[0])):
        difference = np.abs(served - predicted).max()
        print(f"{label:24}{difference:>14.2g}{'equal' if difference < 1e-4 else 'DIFFERENT':>22}")
        if difference >= 1e-4:
            raise SystemExit("The SavedModel does not answer as the model.")
    print(f"\nbefore and after augmentation: {OUTPUT / 'before_after.png'}")


if __name__ == "__main__":
    main()
