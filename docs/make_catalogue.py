"""Draws docs/catalogue.jpg: one photograph through transforms of the package.  python docs/make_catalogue.py"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

HEIGHT, WIDTH, COLUMNS = 96, 128, 7
LAYERS = [
    knl.RandomRot90((0, 2), seed=1),
    knl.RandomRotation(0.1, expand="crop", seed=1),
    knl.RandomRotation(0.1, "constant", expand="fit", seed=1),
    knl.RandomAffine(0.05, 0.1, 0.1, 0.2, 0.2, 0.2, 0.1, seed=1),
    knl.RandomPerspective((1, 1), 0.5, seed=2),
    knl.RandomCrop(60, 80, seed=1),
    knl.RandomResizedCrop(HEIGHT, WIDTH, seed=1),
    knl.RandomElasticTransform((1, 1), (0.6, 0.6), seed=1),
    knl.RandomSaturation((0.8, 0.8)),
    knl.RandomHue((0.3, 0.3), seed=1),
    knl.RandomColorJitter((0, 255), 0.2, 0.3, 0.7, 0.2, seed=1),
    knl.RandomGrayscale(1.0),
    knl.RandomColorDegeneration((0.7, 0.7)),
    knl.RandomInvert((1, 1)),
    knl.RandomPosterization((2, 2)),
    knl.Solarization((0.0, 0.0), (0.5, 0.5)),
    knl.AutoContrast(),
    knl.Equalization(),
    knl.RandomSharpness((1, 1)),
    knl.RandomGaussianBlur((1, 1), (7, 7), (1, 1)),
    knl.RandomErasing((1, 1), seed=1),
    knl.RandomNoise((0.1, 0.1), seed=1),
    knl.RandomChannelShift(0.2, seed=1),
    knl.RandomChannelGain(0.3, seed=1),
    knl.RandomGamma((0.4, 0.5)),
    knl.RandAugment(seed=3),
    knl.AugMix(seed=3),
    knl.CutMix((1, 1), seed=4),
]


def photograph(name: str) -> np.ndarray:
    return np.asarray(Image.fromarray(load_sample_image(name)).resize((WIDTH, HEIGHT)))


def main() -> None:
    pair = np.stack([photograph("flower.jpg"), photograph("china.jpg")])
    cells = [("original", pair[0])]
    cells += [(type(layer).__name__, np.clip(to_numpy(layer(pair))[0], 0, 255).astype("uint8")) for layer in LAYERS]
    rows = -(-len(cells) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + 8), rows * (HEIGHT + 20)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, image) in enumerate(cells):
        x, y = number % COLUMNS * (WIDTH + 8), number // COLUMNS * (HEIGHT + 20)
        draw.text((x + 2, y + 1), name, fill="black")
        sheet.paste(Image.fromarray(image), (x, y + 15))
    sheet.save(Path(__file__).parent / "catalogue.jpg", quality=90)


if __name__ == "__main__":
    main()
