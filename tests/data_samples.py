"""Images that say their number in their pixels, and a reader that collects what a feed gives."""

import numpy as np
import PIL.Image

NAMES = ("ape", "bear", "cat")


def image(number, size=(6, 5)):
    """An image whose every pixel says its number."""
    return np.broadcast_to(np.array([number, 255 - number, number * 7 % 256], "uint8"), (*size, 3)).copy()


def class_of(number):
    return number % 3


def write(path, number, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image(number, size)).save(path)


def folder(root, count=20):
    """A folder for each class, with the images 0, ..., count - 1."""
    for number in range(count):
        write(root / NAMES[class_of(number)] / f"{number:03}.png", number)
    return root


def collect(feed, epoch=None):
    """The numbers of the images in the order in which they come; labels must be theirs."""
    batches = list(feed) if epoch is None else [feed.batch(epoch, i) for i in range(len(feed))]
    found = []
    for x, y in batches:
        assert x.dtype == np.uint8
        assert (x == x[:, :1, :1]).all()
        numbers = x[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(x[:, 0, 0, 1], 255 - numbers)
        classes = y if np.ndim(y) == 1 else y.argmax(1)
        np.testing.assert_array_equal(classes, class_of(numbers))
        found += numbers.tolist()
    return found
