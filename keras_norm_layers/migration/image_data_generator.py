"""The successor of Keras's ``ImageDataGenerator``: the same arguments, the same batches."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
import numpy as np

from keras_norm_layers.migration import parameters as draws
from keras_norm_layers.migration import statistics
from keras_norm_layers.migration.file_iterators import DataFrameIterator, DirectoryIterator
from keras_norm_layers.migration.iterators import NumpyArrayIterator
from keras_norm_layers.migration.layers import generator_layers
from keras_norm_layers.migration.transform import each, in_parallel, transform, transform_batch

NEEDS_FIT = (
    "This ImageDataGenerator specifies `{}`, but it has not been fit on any training data, so this step is left out. "
    "Fit it first by calling `.fit(images)`."
)


class ImageDataGenerator:
    """Batches of augmented, normalized images for ``model.fit``: what Keras's ``ImageDataGenerator`` gave, faster.

    For code that was written for that class: change the import, and it runs on Keras 3, with any backend. ``layers()``
    is the next step: the Keras layers that do the same inside the model. ``docs/migration.md`` shows both.

    Each image is changed in this order: one affine map, channel shift, flips, brightness; ``preprocessing_function``;
    ``rescale``; samplewise, featurewise, ZCA. Random numbers come from NumPy's global generator in the order of the
    original, so ``np.random.seed`` or ``seed`` give the parameters they gave there.

    Args:
        featurewise_center: subtract the mean of each channel over the data set that ``fit`` saw.
        samplewise_center: subtract each image's own mean.
        featurewise_std_normalization: divide by (the standard deviation of each channel over the data set + 1e-6).
        samplewise_std_normalization: divide by (each image's own standard deviation + 1e-6).
        zca_whitening: multiply the flattened image with the ZCA whitening matrix of the data set.
        zca_epsilon: added to the singular values of the data; default 1e-6.
        rotation_range: degrees r, for angles in [-r, r].
        width_shift_range, height_shift_range: a float below 1: a part of the width (height); a float from 1 on:
            pixels; both for [-w, w]. An int n: whole pixels, 0 to n - 1 either way. A list: one of its numbers, either
            way, parts of the side if all are below 1, else pixels. As in Keras 3 the shift of ``height_shift_range``
            moves along the width, and the other along the height (keras#17398).
        brightness_range: None, or (lowest, highest) factor of Pillow's brightness, which works on 8-bit values: give it
            images in 0..255. Values outside are stretched to 0..255 by the image's own extremes and back.
        shear_range: degrees s of the shear angle, in [-s, s].
        zoom_range: a number z for [1 - z, 1 + z], or [lower, upper]: how much of the image is seen, drawn apart for
            height and width. Above 1 zooms out.
        channel_shift_range: s, for one number in [-s, s] that is added to all channels; the sum is cut to the image's
            own least and greatest value.
        fill_mode: what lies outside, as in SciPy: "nearest" (default; aaa|abcd|ddd), "constant" (``cval``), "reflect"
            (dcba|abcd|dcba), "wrap" (the image again, its last pixel on its first), or another mode of SciPy.
        cval: the value for "constant"; default 0.
        horizontal_flip, vertical_flip: flip half of the images.
        rescale: None or 0: nothing; else a factor of all values, after everything random.
        preprocessing_function: None, or a function of one image (H, W, C) that returns one of the same shape; it runs
            after everything random and before ``rescale``.
        data_format: "channels_last" or "channels_first"; None for Keras's setting.
        validation_split: the share of the images, in (0, 1), that ``subset="validation"`` takes; default 0.
        interpolation_order: of the affine map: 1 bilinear (default), 0 nearest, 2 to 5 splines (SciPy's).
        dtype: of the batches; None for Keras's ``floatx``.

    Attributes:
        mean, std: (1, 1, C), or (C, 1, 1) for channels first, after ``fit``; or set your own.
        zca_whitening_matrix: (H * W * C, H * W * C), after ``fit``; or set your own.

    Raises:
        ValueError: for arguments out of bounds.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype="uint8")
    >>> labels = np.arange(8) % 2
    >>> generator = knl.ImageDataGenerator(
    ...     featurewise_center=True, featurewise_std_normalization=True, rotation_range=20, horizontal_flip=True
    ... )
    >>> generator.fit(images)
    >>> x, y = next(generator.flow(images, labels, batch_size=4, seed=1))
    >>> x.shape, x.dtype.name, y.shape
    ((4, 12, 12, 3), 'float32', (4,))
    """

    mean: Any
    std: Any

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Any = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Any = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: Any = None,
    ) -> None:
        self.featurewise_center, self.featurewise_std_normalization = featurewise_center, featurewise_std_normalization
        self.samplewise_center, self.samplewise_std_normalization = samplewise_center, samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = draws.check_range("zca_epsilon", zca_epsilon)
        self.rotation_range = draws.check_range("rotation_range", rotation_range)
        self.width_shift_range = draws.check_shift("width_shift_range", width_shift_range)
        self.height_shift_range = draws.check_shift("height_shift_range", height_shift_range)
        self.brightness_range = draws.check_brightness(brightness_range)
        self.shear_range = draws.check_range("shear_range", shear_range)
        self.zoom_range = draws.check_zoom(zoom_range)
        self.channel_shift_range = draws.check_range("channel_shift_range", channel_shift_range)
        self.fill_mode, self.cval = draws.check_fill_mode(fill_mode), draws.check_range("cval", cval)
        self.horizontal_flip, self.vertical_flip = horizontal_flip, vertical_flip
        self.rescale, self.preprocessing_function = rescale, preprocessing_function
        self.data_format = draws.check_data_format(data_format)
        self._validation_split = draws.check_split(validation_split)
        self.interpolation_order = draws.check_order(interpolation_order)
        self.dtype = keras.config.floatx() if dtype is None else dtype
        first = self.data_format == "channels_first"
        self.channel_axis, self.row_axis, self.col_axis = (1, 2, 3) if first else (3, 1, 2)
        self.mean = self.std = None
        self.images_fit, self.image_shape_fit = 0, None  # how many images `fit` saw, and of which shape
        self._whitening: statistics.Whitening | None = None
        self._settle()

    def _settle(self) -> None:
        """What one argument says about another, with a warning for each."""

        def override(name: str, value: bool, because: str) -> None:
            if bool(getattr(self, name)) is not value:
                setattr(self, name, value)
                warnings.warn(
                    f"This ImageDataGenerator specifies `{because}`, which sets {name}={value}.",
                    UserWarning,
                    stacklevel=4,
                )

        if self.zca_whitening:
            override("featurewise_center", True, "zca_whitening")
            override("featurewise_std_normalization", False, "zca_whitening")
        if self.featurewise_std_normalization:
            override("featurewise_center", True, "featurewise_std_normalization")
        if self.samplewise_std_normalization:
            override("samplewise_center", True, "samplewise_std_normalization")

    @property
    def zca_whitening_matrix(self) -> np.ndarray | None:
        """The whitening matrix, (d, d) for d values an image; None before ``fit``.

        Where ``fit`` saw fewer images than values, it is made when it is asked for; whitening itself never needs it.
        """
        return None if self._whitening is None else self._whitening.matrix()

    @zca_whitening_matrix.setter
    def zca_whitening_matrix(self, matrix: Any) -> None:
        self._whitening = None if matrix is None else statistics.Whitening.of_matrix(np.asarray(matrix))

    # -- statistics ---------------------------------------------------------------------------------------------------

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Learns what featurewise normalization and ZCA whitening need. ``rescale`` is applied before.

        Sums are kept in float64, batch by batch: the data is never copied as a whole, unless it is augmented. With
        fewer images than values an image, ZCA takes memory in proportion to images times values, not to values squared.

        Args:
            x: images (N, H, W, C), or (N, C, H, W) for channels first, integers or floats.
            augment: learn from randomly transformed images.
            rounds: how many transformed versions of each image, if ``augment``.
            seed: None, or a seed for NumPy's global generator.
        """
        x = np.asarray(x)
        if x.ndim != 4:
            raise ValueError(
                f"ImageDataGenerator.fit: `x` must be images of rank 4, (N, H, W, C) or (N, C, H, W). Received: an "
                f"array of shape {x.shape}"
            )
        draws.warn_of_channels("ImageDataGenerator.fit", x.shape, self.channel_axis, self.data_format)
        if seed is not None:
            np.random.seed(seed)
        if augment:
            x = self._augmented(x, rounds)

        def parts() -> Any:
            return statistics.batches(x, self.dtype, None if augment else self.rescale)

        self.images_fit, self.image_shape_fit = len(x), x.shape[1:]
        shape = [1, 1, 1]
        shape[self.channel_axis - 1] = x.shape[self.channel_axis]
        if self.featurewise_center or self.featurewise_std_normalization:
            mean, std = (v.reshape(shape) for v in statistics.channel_moments(parts(), self.channel_axis))
        if self.featurewise_center:
            self.mean = mean.astype(self.dtype)
        if self.featurewise_std_normalization:
            self.std = std.astype(self.dtype)
        if self.zca_whitening:
            middle = mean if self.featurewise_center else np.zeros(shape)
            self._whitening = statistics.whitening(parts(), x.shape, middle, self.zca_epsilon).astype(self.dtype)

    def _augmented(self, x: np.ndarray, rounds: int) -> np.ndarray:
        (images,) = statistics.batches(x, self.dtype, self.rescale, whole=True)
        height, width = x.shape[self.row_axis], x.shape[self.col_axis]
        out = np.empty((rounds * len(x), *x.shape[1:]), self.dtype)
        for start in range(0, len(out), max(1, len(x))):
            drawn = [draws.draw(self, height, width) for _ in range(len(x))]
            out[start : start + len(x)] = transform_batch(images, drawn, self.dtype, **self._settings())
        return out

    def standardize(self, x: Any) -> np.ndarray:
        """One image, or a batch of them, through everything that is not random. Float arrays are changed in place.

        Args:
            x: an image (H, W, C), or a batch (N, H, W, C); channels first as the generator has it.

        Returns:
            ``x``, or a new array where ``preprocessing_function``, ZCA or an integer dtype made one necessary.
        """
        if self.preprocessing_function:
            x = self.preprocessing_function(x)
        x = np.asarray(x)
        if x.dtype.kind != "f" and self._normalizes():
            x = x.astype(self.dtype)
        self._warn_unless_fit()
        batch = x[None] if x.ndim == 3 else x
        self._normalize(batch)
        batch = self._whiten(batch)
        return batch[0] if x.ndim == 3 else batch

    def _normalizes(self) -> bool:
        names = ("rescale", "samplewise_center", "samplewise_std_normalization", "featurewise_center")
        return any(getattr(self, name) for name in (*names, "featurewise_std_normalization", "zca_whitening"))

    def _warn_unless_fit(self) -> None:
        needs = {"featurewise_center": self.mean, "featurewise_std_normalization": self.std}
        for name, value in {**needs, "zca_whitening": self._whitening}.items():
            if getattr(self, name) and value is None:
                warnings.warn(NEEDS_FIT.format(name), UserWarning, stacklevel=3)

    def _normalize(self, batch: np.ndarray) -> None:
        """Rescale, samplewise and featurewise, in place."""
        if self.rescale:
            batch *= self.rescale
        if self.samplewise_center or self.samplewise_std_normalization:
            statistics.normalize_samples(batch, self.samplewise_center, self.samplewise_std_normalization)
        if self.featurewise_center and self.mean is not None:
            rows, mean = statistics.in_rows(batch, self.mean)
            rows -= mean
        if self.featurewise_std_normalization and self.std is not None:
            rows, std = statistics.in_rows(batch, self.std)
            rows /= std + 1e-6

    def _whiten(self, batch: np.ndarray) -> np.ndarray:
        if not self.zca_whitening or self._whitening is None:
            return batch
        return self._whitening.apply(batch.reshape(-1, math.prod(batch.shape[1:]))).reshape(batch.shape)

    # -- transformations ----------------------------------------------------------------------------------------------

    def get_random_transform(self, img_shape: tuple[int, ...], seed: int | None = None) -> dict[str, Any]:
        """Draws the parameters of one transformation.

        Args:
            img_shape: the shape of the image, three sizes.
            seed: None, or a seed for NumPy's global generator.

        Returns:
            A dictionary that ``apply_transform`` takes: "theta" and "shear" in degrees, "tx" (of
            ``height_shift_range``) and "ty" (of ``width_shift_range``) in pixels, "zx" and "zy", "flip_horizontal",
            "flip_vertical", and "channel_shift_intensity" and "brightness", which may be None.
        """
        return draws.draw(self, img_shape[self.row_axis - 1], img_shape[self.col_axis - 1], seed)

    def apply_transform(self, x: Any, transform_parameters: dict[str, Any]) -> np.ndarray:
        """An image transformed by given parameters.

        Args:
            x: an image of rank 3; it is not changed.
            transform_parameters: as ``get_random_transform`` gives them; what is missing changes nothing.

        Returns:
            An image of the same shape: the dtype of ``x``, float32 after a brightness.
        """
        x = np.asarray(x)
        if x.ndim != 3:
            raise ValueError(
                f"ImageDataGenerator.apply_transform: `x` must be one image, of rank 3. Received shape {x.shape}"
            )
        return transform(x, transform_parameters, **self._settings())

    def random_transform(self, x: Any, seed: int | None = None) -> np.ndarray:
        """An image transformed by parameters drawn for it: ``apply_transform`` of ``get_random_transform``."""
        return self.apply_transform(x, self.get_random_transform(np.shape(x), seed))

    def _settings(self) -> dict[str, Any]:
        first = self.data_format == "channels_first"
        mode, order = self.fill_mode, self.interpolation_order
        return {"channels_first": first, "fill_mode": mode, "cval": self.cval, "order": order}

    def _batch(self, images: np.ndarray, drawn: list[dict[str, Any]], dtype: Any, places: Any = None) -> np.ndarray:
        """Images (N, ...), or those at ``places`` alone, transformed and normalized, as the iterators give them."""
        self._warn_unless_fit()
        if not self.preprocessing_function:
            return self._whiten(transform_batch(images, drawn, dtype, places, self._normalize, **self._settings()))
        batch = transform_batch(images, drawn, dtype, places, **self._settings())
        for i, image in enumerate(batch):
            batch[i] = self.preprocessing_function(image)
        in_parallel(lambda numbers: each(self._normalize, batch, numbers), len(batch), batch.size)
        return self._whiten(batch)

    def layers(self, image_shape: Any = None, seed: int | None = None) -> list[keras.layers.Layer]:
        """The Keras layers that do the same inside a model, in the same order, with what ``fit`` learnt.

        For uint8 or float images as ``flow`` takes them. ``docs/migration.md`` says, argument by argument, what is the
        same and what differs: values are not rounded to 8 bits for a brightness, and "wrap" is periodic.

        Args:
            image_shape: (H, W, C), for a ``zca_whitening_matrix`` that was set and not fitted; None for a square.
            seed: of the random layer.

        Returns:
            A list for ``keras.Sequential``: ``Augment``, ``Rescaling``, ``SamplewiseNormalization``,
            ``FeaturewiseNormalization``, ``ZCAWhitening``; of these, those that the arguments ask for.

        Raises:
            ValueError: for what no layer does: a ``preprocessing_function``, lists of shifts, splines; it says what to
                do.

        Example:

        >>> import numpy as np, keras, keras_norm_layers as knl
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype="uint8")
        >>> generator = knl.ImageDataGenerator(rescale=1 / 255, featurewise_center=True, horizontal_flip=True)
        >>> generator.fit(images)
        >>> [type(layer).__name__ for layer in generator.layers()]
        ['Augment', 'Rescaling', 'FeaturewiseNormalization']
        """
        return generator_layers(self, image_shape, seed)

    # -- iterators ----------------------------------------------------------------------------------------------------

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
    ) -> NumpyArrayIterator:
        """Batches of arrays, without end; see ``NumpyArrayIterator`` for the arguments and what a batch is."""
        options: dict[str, Any] = {
            "save_to_dir": save_to_dir,
            "save_prefix": save_prefix,
            "save_format": save_format,
            "seed": seed,
        }
        options |= {"ignore_class_split": ignore_class_split, "subset": subset, "sample_weight": sample_weight}
        options |= {"batch_size": batch_size, "shuffle": shuffle, "dtype": self.dtype}
        return NumpyArrayIterator(x, y, self, data_format=self.data_format, **options)

    def flow_from_directory(
        self,
        directory: Any,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
    ) -> DirectoryIterator:
        """Batches of image files in a folder for each class; see ``DirectoryIterator`` for the arguments."""
        options: dict[str, Any] = {
            "save_to_dir": save_to_dir,
            "save_prefix": save_prefix,
            "save_format": save_format,
            "seed": seed,
        }
        options |= {"target_size": target_size, "color_mode": color_mode, "interpolation": interpolation}
        options |= {"keep_aspect_ratio": keep_aspect_ratio, "subset": subset, "follow_links": follow_links}
        options |= {"classes": classes, "class_mode": class_mode, "batch_size": batch_size, "shuffle": shuffle}
        return DirectoryIterator(directory, self, data_format=self.data_format, dtype=self.dtype, **options)

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: Any = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        **kwargs: Any,
    ) -> DataFrameIterator:
        """Batches of image files named in a data frame; see ``DataFrameIterator`` for the arguments.

        ``class_mode="other"`` (now "raw"), ``has_ext``, ``sort`` and ``drop_duplicates`` are arguments of older
        versions: they warn, and the last three do nothing.
        """
        class_mode = draws.check_old_arguments(class_mode, kwargs)
        options: dict[str, Any] = {
            "save_to_dir": save_to_dir,
            "save_prefix": save_prefix,
            "save_format": save_format,
            "seed": seed,
        }
        options |= {"target_size": target_size, "color_mode": color_mode, "interpolation": interpolation}
        options |= {"classes": classes, "class_mode": class_mode, "batch_size": batch_size, "shuffle": shuffle}
        options |= {"weight_col": weight_col, "validate_filenames": validate_filenames, "subset": subset}
        columns: dict[str, Any] = {"x_col": x_col, "y_col": y_col, "data_format": self.data_format, "dtype": self.dtype}
        return DataFrameIterator(dataframe, directory, self, **columns, **options)
