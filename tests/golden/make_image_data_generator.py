"""Makes image_data_generator.npz: what Keras's ImageDataGenerator draws, transforms, learns and feeds.

    KERAS_BACKEND=torch python tests/golden/make_image_data_generator.py

It needs SciPy, Pillow and pandas. With ``make_zca.py`` the only place that imports from Keras's private modules.
"""

import json
import pathlib
import sys
import tempfile
import warnings

import keras
import numpy as np
import pandas
import PIL
import scipy
from keras.src.legacy.preprocessing.image import ImageDataGenerator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from migration_cases import DIRECTORY_CASES, FIT_CASES, FLOW_CASES, FRAME_CASES, frame_of, picture, write_folder

TRANSFORMS = 300
MODES = ("nearest", "constant", "reflect", "wrap")
warnings.simplefilter("ignore")


def transform_case(number: int) -> dict:
    """Arguments, and the image (how large, how many channels, which values), of a random case."""
    rng = np.random.default_rng(1000 + number)

    def one_of(*values):
        return values[rng.integers(len(values))]

    arguments = {
        "rotation_range": one_of(0, 25, 180),
        "width_shift_range": one_of(0.0, 0.3, 2.5, 4, [1, -2, 3], [0.1, 0.4]),
        "height_shift_range": one_of(0.0, 0.3, 2.5, 4, [1, -2, 3], [0.1, 0.4]),
        "shear_range": one_of(0.0, 30.0),
        "zoom_range": one_of(0.0, 0.3, [0.5, 1.7], [1.2, 1.2]),
        "channel_shift_range": one_of(0.0, 0.0, 40.0),
        "brightness_range": one_of(None, None, [0.3, 1.8]),
        "fill_mode": one_of(*MODES),
        "cval": one_of(0.0, 33.3),
        "horizontal_flip": one_of(False, True),
        "vertical_flip": one_of(False, True),
        "interpolation_order": one_of(0, 1, 1, 1, 3),
        "data_format": "channels_last",
    }
    if arguments["brightness_range"] is None:  # with it Keras reads channels-first images as channels last
        arguments["data_format"] = one_of("channels_last", "channels_first")
    height, width = (int(n) for n in rng.integers(1 if number % 10 == 0 else 4, 15, 2))
    image = {"size": [height, width, one_of(1, 3, 4)], "low": one_of(0, 0, -40, -1), "high": one_of(255, 255, 1, 300)}
    image["whole"] = one_of(True, False)
    return {"arguments": arguments, "image": image, "seed": number}


def transforms(arrays: dict) -> None:
    cases, outputs = [], []
    for number in range(TRANSFORMS):
        case = transform_case(number)
        image = picture(number, **case["image"], data_format=case["arguments"]["data_format"])
        generator = ImageDataGenerator(**case["arguments"])
        drawn = generator.get_random_transform(image.shape, seed=case["seed"])
        case["drawn"] = {name: None if value is None else float(value) for name, value in drawn.items()}
        result = generator.apply_transform(image, drawn)
        assert result.dtype == "float32", result.dtype
        cases.append(case)
        outputs.append(result.ravel())
    arrays["transform_cases"], arrays["transform_outputs"] = np.array(json.dumps(cases)), np.concatenate(outputs)


def fits(arrays: dict) -> None:
    for name, case in FIT_CASES.items():
        images = case["images"]()
        generator = ImageDataGenerator(**case["arguments"], dtype=case.get("dtype"))
        generator.fit(images.copy(), **case.get("fit", {}))
        found = {"mean": generator.mean, "std": generator.std, "matrix": generator.zca_whitening_matrix}
        arrays |= {f"fit {name} {key}": np.asarray(value) for key, value in found.items() if value is not None}
        kind = case.get("dtype", "float32")
        arrays[f"fit {name} white"] = np.stack([generator.standardize(image.astype(kind)) for image in images[:4]])


def batches(arrays: dict) -> None:
    def keep(name: str, batch) -> None:
        for i, part in enumerate(batch if isinstance(batch, tuple) else (batch,)):
            for j, piece in enumerate(part if isinstance(part, list) else [part]):
                arrays[f"{name} {i} {j}"] = np.asarray(piece)

    for name, case in FLOW_CASES.items():
        flow = ImageDataGenerator(**case["generator"]).flow(**case["flow"]())
        for step in range(case["steps"]):
            keep(f"flow {name} {step}", next(flow))
        keep(f"flow {name} item", flow[1])
    with tempfile.TemporaryDirectory() as folder:
        write_folder(folder)
        for name, case in DIRECTORY_CASES.items():
            flow = ImageDataGenerator(**case["generator"]).flow_from_directory(folder, **case["flow"])
            arrays[f"directory {name} names"] = np.array(flow.filenames)
            for step in range(2):
                keep(f"directory {name} {step}", next(flow))
        for name, case in FRAME_CASES.items():
            flow = ImageDataGenerator(**case["generator"]).flow_from_dataframe(frame_of(), folder, **case["flow"])
            arrays[f"frame {name} names"] = np.array(flow.filenames)
            for step in range(2):
                keep(f"frame {name} {step}", next(flow))


if __name__ == "__main__":
    arrays: dict = {}
    transforms(arrays)
    fits(arrays)
    batches(arrays)
    libraries = {"keras": keras, "numpy": np, "scipy": scipy, "pillow": PIL, "pandas": pandas}
    arrays["made_by"] = np.array(json.dumps({name: library.__version__ for name, library in libraries.items()}))
    np.savez_compressed(pathlib.Path(__file__).with_name("image_data_generator.npz"), **arrays)
