"""Images that are stored as JPEG, one per row, as Minari stores them."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlwandb_callbacks.datasets.columns import Rows
from rlwandb_callbacks.datasets.formats.hdf5_chunks import check_row_lengths
from rlwandb_callbacks.datasets.limits import MAX_ROW_BYTES, FileLimits
from rlwandb_callbacks.errors import DatasetError

_SIGNATURE = b"\xff\xd8\xff"


def holds_jpeg(dataset: Any, limits: FileLimits) -> bool:
    """Returns whether the rows of an ``h5py.Dataset`` are JPEG files, of equal or of variable length.

    Raises:
        DatasetError: If a row of variable length exceeds the limits of the file.
    """
    import h5py

    if not dataset.shape or not dataset.shape[0]:
        return False
    variable_length = len(dataset.shape) == 1 and h5py.check_vlen_dtype(dataset.dtype) == np.uint8
    if not variable_length and (len(dataset.shape) != 2 or dataset.dtype != np.uint8):
        return False
    if variable_length:
        check_row_lengths(dataset, limits)
    return bytes(dataset[0][:3]) == _SIGNATURE


class JpegColumn:
    """Images ``[N, H, W]`` or ``[N, H, W, 3]``, ``uint8``, decoded when they are read.

    Args:
        dataset: An ``h5py.Dataset`` of an open file, with one JPEG file per row.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.shape = (dataset.shape[0], *self._image(0).shape)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)

    def read(self, rows: Rows) -> NDArray[np.generic]:
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for index, row in enumerate(rows.tolist()):
            image = self._image(row)
            if image.shape != self.shape[1:]:
                raise DatasetError(
                    f"{self._dataset.name}: image {row} has shape {image.shape} and the first {self.shape[1:]}; "
                    "allowed is one shape for all images."
                )
            out[index] = image
        return out

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self.read(np.arange(low, high, dtype=np.int64))

    def _image(self, row: int) -> NDArray[np.uint8]:
        try:
            with Image.open(io.BytesIO(bytes(self._dataset[row])), formats=("JPEG",)) as image:
                size, pixels = image.size, None
                if 3 * math.prod(size) <= MAX_ROW_BYTES:
                    pixels = np.asarray(image, dtype=np.uint8)
        except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
            raise DatasetError(f"{self._dataset.name}: image {row} cannot be read ({error}).") from None
        if pixels is None:
            raise DatasetError(
                f"{self._dataset.name}: image {row} has {size[0]} × {size[1]} pixels; allowed are images that take at "
                f"most {MAX_ROW_BYTES // 2**20} MiB."
            )
        return pixels
