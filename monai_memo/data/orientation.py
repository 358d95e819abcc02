# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How images lie: the 8 orientations of a picture and the 48 of a volume, their names, and turning from one to another.

A picture's orientation is named by what brings it upright, in the words of Pillow (``transpose``, ``rotate_90``
counter-clockwise, ...). A volume's is named by the axis codes of its axes: ``"LPS"`` says that what its files call
right, front and up really is left, back and up, as in a volume of LPS order that was written with ``np.eye(4)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Names as themselves: whoever turns images finds them here.
from monai_memo.data.orientation_names import AS_IS as AS_IS
from monai_memo.data.orientation_names import RAS, VOLUME_NAMES
from monai_memo.data.orientation_names import SYMMETRIES as SYMMETRIES
from monai_memo.data.orientation_names import check_name as check_name
from monai_memo.errors import ConfigurationError


@dataclass(frozen=True)
class Symmetry:
    """A permutation of the axes, then mirror images: one of the 8 of a square or the 48 of a cube.

    Attributes:
        axes: axis ``i`` of the result is axis ``axes[i]`` of the image.
        flips: which axes of the result are then reversed.
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]

    @property
    def dims(self) -> int:
        return len(self.axes)

    @property
    def is_identity(self) -> bool:
        return self.axes == tuple(range(self.dims)) and not any(self.flips)

    @property
    def is_left_right(self) -> bool:
        """The mirror image that every search of copies looks for: last axis in 2D, first axis in 3D."""
        return self == left_right(self.dims)

    def __call__(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn the last axes of an array; leading ones (images, channels) stay. A view of the array."""
        lead = array.ndim - self.dims
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return np.flip(turned, tuple(lead + axis for axis in range(self.dims) if self.flips[axis]))

    def after(self, first: Symmetry) -> Symmetry:
        """``first``, then this one."""
        axes = tuple(first.axes[axis] for axis in self.axes)
        flips = tuple(first.flips[axis] != flip for axis, flip in zip(self.axes, self.flips, strict=True))
        return Symmetry(axes, flips)

    def inverse(self) -> Symmetry:
        axes = tuple(int(axis) for axis in np.argsort(self.axes))
        return Symmetry(axes, tuple(self.flips[axis] for axis in axes))

    def matrix(self) -> NDArray[np.float64]:
        """``(dims, dims)``: coordinates about the centre of an image to those of the turned image."""
        result = np.zeros((self.dims, self.dims))
        for row, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            result[row, axis] = -1 if flip else 1
        return result

    @property
    def is_rotation(self) -> bool:
        """Nothing is mirrored."""
        return bool(np.linalg.det(self.matrix()) > 0)


PICTURES = {
    AS_IS: Symmetry((0, 1), (False, False)),
    "transpose": Symmetry((1, 0), (False, False)),
    "rotate_90": Symmetry((1, 0), (True, False)),
    "rotate_180": Symmetry((0, 1), (True, True)),
    "rotate_270": Symmetry((1, 0), (False, True)),
    "flip_left_right": Symmetry((0, 1), (False, True)),
    "flip_up_down": Symmetry((0, 1), (True, False)),
    "transverse": Symmetry((1, 0), (True, True)),
}
PICTURE_WORDS = {
    AS_IS: "as stored",
    "transpose": "when transposed (rows and columns exchanged)",
    "rotate_90": "when turned by 90 degrees counter-clockwise",
    "rotate_180": "when turned by 180 degrees",
    "rotate_270": "when turned by 90 degrees clockwise",
    "flip_left_right": "when mirrored left to right",
    "flip_up_down": "when mirrored upside down",
    "transverse": "when transposed along the other diagonal",
}


def _volume(codes: str) -> Symmetry:
    """What turns a volume whose axes point to ``codes`` to RAS."""
    places = [next(axis for axis, ends in enumerate(RAS) if code in ends) for code in codes]
    axes = tuple(places.index(axis) for axis in range(3))
    return Symmetry(axes, tuple(codes[axis] != RAS[place][0] for place, axis in enumerate(axes)))


VOLUMES = {codes: _volume(codes) for codes in VOLUME_NAMES}
NAMED = {2: PICTURES, 3: VOLUMES}


@lru_cache(maxsize=2)
def symmetries(dims: int) -> tuple[Symmetry, ...]:
    """All 8 or 48, the identity first."""
    return tuple(sorted(NAMED[dims].values(), key=lambda one: (not one.is_identity, one.axes, one.flips)))


def mirrors(dims: int) -> tuple[Symmetry, ...]:
    """Reflections along any of the axes, 4 or 8, the identity first."""
    return tuple(one for one in symmetries(dims) if one.axes == tuple(range(dims)))


def searched(name: str, dims: int) -> tuple[Symmetry, ...]:
    """The symmetries of the option ``symmetries``, the identity first.

    Raises:
        ConfigurationError: an unknown name.
    """
    chosen = str(name).lower()
    if chosen not in SYMMETRIES:
        raise ConfigurationError(f"symmetries must be one of {', '.join(SYMMETRIES)}, got {name!r}")
    return {"none": symmetries(dims)[:1], "mirror": mirrors(dims), "all": symmetries(dims)}[chosen]


def left_right(dims: int) -> Symmetry:
    """Left and right exchanged: last axis in 2D, first axis in 3D."""
    return Symmetry(tuple(range(dims)), (False, True) if dims == 2 else (True, False, False))


def name_of(symmetry: Symmetry) -> str:
    """The name of an orientation that this symmetry puts right."""
    return next(name for name, one in NAMED[symmetry.dims].items() if one == symmetry)


def words_for(symmetry: Symmetry) -> str:
    """After "the images fit better": in words."""
    name = name_of(symmetry)
    if symmetry.dims == 2:
        return PICTURE_WORDS[name]
    if symmetry.is_identity:
        return "as stored"
    return f"when their axes, read as R, A and S, are taken to point to {name[0]}, {name[1]} and {name[2]}"


def orientation(name: str, dims: int) -> Symmetry:
    """What puts images of this orientation right.

    Raises:
        ConfigurationError: not a name of an orientation, or one of the other dimension.
    """
    known = check_name(name)
    if known in NAMED[dims]:
        return NAMED[dims][known]
    if known == AS_IS:
        return symmetries(dims)[0]
    allowed = ", ".join(PICTURES) if dims == 2 else "as_is or three axis codes such as LPS or PIR"
    raise ConfigurationError(f"orientation of {dims}D images must be {allowed}, got {name!r}")


def turn(array: NDArray[np.generic], name: str, dims: int | None = None) -> NDArray[np.generic]:
    """Put images of an orientation right.

    Args:
        array: ``(channels, *spatial)``; with ``dims`` also ``(n, channels, *spatial)``.
        name: see the module; upper or lower case.
        dims: 2 or 3; by default all axes but the first.

    Raises:
        ConfigurationError: not a name of an orientation, or one of the other dimension.

    Example:
        >>> turn(np.array([[[1, 2], [3, 4]]]), "rotate_90")[0].tolist()
        [[2, 4], [1, 3]]
        >>> turn(np.arange(2).reshape(1, 2, 1, 1), "LPS").ravel().tolist()
        [1, 0]
    """
    return orientation(name, dims or array.ndim - 1)(array)


def turn_back(array: NDArray[np.generic], name: str, dims: int | None = None) -> NDArray[np.generic]:
    """Inverse of ``turn``: lay upright images as those of this orientation lie."""
    return orientation(name, dims or array.ndim - 1).inverse()(array)


def really(affine: NDArray[np.float64] | None, name: str) -> NDArray[np.float64]:
    """The affine of a volume whose file says RAS where its axes really point elsewhere.

    Args:
        affine: ``(4, 4)`` as the file has it; None where it has none.
        name: axis codes.

    Returns:
        ``(4, 4)`` to the true RAS. Voxel sizes stay with their axes.
    """
    correction = np.eye(4)
    correction[:3, :3] = orientation(name, 3).matrix()
    whole: NDArray[np.float64] = correction @ (np.eye(4) if affine is None else affine)
    return whole
