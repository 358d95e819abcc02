# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images in memory, in whatever form people have them: what each axis and each value is taken for, and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from monai_memo.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

# Tensors on any device, with or without gradients; arrays; pictures of Pillow; sequences of these.
ImageLike: TypeAlias = "NDArray[np.generic] | Tensor | Image"
Images: TypeAlias = "ImageLike | Iterable[ImageLike]"

COLOURS = (3, 4)  # values at each pixel that may be colours, with or without transparency
SHORTEST = 5  # pixels along an axis of space, where nothing else tells space from channels
BEYOND = 0.1  # of the range: decoders overshoot
UNIT, SIGNED, BYTES, OTHER = "[0, 1]", "[-1, 1]", "0 to 255", "intensities of their own"
FORMS = {
    2: "(H, W), (H, W, C), (N, H, W), (N, C, H, W) or (N, H, W, C) with C of 1, 3 or 4",
    3: "(X, Y, Z), (N, X, Y, Z), (N, 1, X, Y, Z) or (N, X, Y, Z, 1)",
}


@dataclass(frozen=True)
class Taken:
    """Images as they were understood.

    Attributes:
        arrays: each ``(channels, *spatial)``, all of one shape; grey has one channel, colour three.
        values: how their values were understood: ``"[0, 1]"``, ``"[-1, 1]"``, ``"0 to 255"`` or something else.
        sentence: the same in words, for a log or a report; without any name.
    """

    arrays: list[NDArray[Any]]
    values: str
    sentence: str

    def __len__(self) -> int:
        return len(self.arrays)

    def in_unit_range(self) -> NDArray[np.float32]:
        """``(n, channels, *spatial)`` with values in [0, 1] where they were understood; others stay as they are."""
        import numpy as np

        stack = np.stack(self.arrays).astype(np.float32)
        if self.values == BYTES:
            return stack / np.float32(255)
        return (stack + np.float32(1)) / np.float32(2) if self.values == SIGNED else stack


@dataclass(frozen=True)
class _Layout:
    """What the axes of one array are."""

    dims: int
    stacked: bool
    channel: int | None  # axis of the whole array

    @property
    def words(self) -> str:
        space = ["H", "W"] if self.dims == 2 else ["X", "Y", "Z"]
        axes = (["N"] if self.stacked else []) + space
        if self.channel is not None:
            axes.insert(self.channel if self.channel >= 0 else len(axes), "C")
        return f"({', '.join(axes)})"


def take_images(
    images: Images, what: str = "images", dims: int | None = None, count: int | None = None, strict: bool = True
) -> Taken:
    """Understand images in memory.

    A single array holds one image or a stack of them, each item of a sequence one image (or, with an axis more, a
    batch). Colours stand first or last. Where a shape can mean two things it is refused.

    Args:
        images: arrays, tensors, pictures or a sequence of these.
        what: the images are called in messages.
        dims: 2 or 3 where it is known.
        count: number of images where it is known.
        strict: refuse NaN, infinity and bytes beside fractions.

    Raises:
        ConfigurationError: no images, a shape that is none of images or can mean two things, several sizes, numbers of
            another kind, NaN. The message names the shape and what was expected.

    Example:
        >>> import numpy as np
        >>> taken = take_images(np.zeros((10, 1, 64, 48)) - 0.5)
        >>> len(taken), taken.arrays[0].shape, taken.values
        (10, (1, 64, 48), '[-1, 1]')
    """
    items, kind = _items(images, what)
    found: list[NDArray[Any]] = []
    layouts: Counter[str] = Counter()
    for number, item in enumerate(items):
        array = _numbers(item, what, number if kind == "sequence" else None)
        layout = _layout_of(
            array.shape, what, dims, _Expected(kind == "sequence", None if kind == "sequence" else count)
        )
        if layouts and (layout.words.startswith("(N") != next(iter(layouts)).startswith("(N")):
            raise ConfigurationError(
                f"{what}: number {number} has the shape {array.shape} and is {layout.words}, those before it are "
                f"{next(iter(layouts))}: expected are images of one size, or batches of them"
            )
        dims = layout.dims if kind == "sequence" and dims is None else dims
        layouts[layout.words] += 1
        found += _separate(array, layout)
    if count is not None and len(found) != count:
        raise ConfigurationError(f"{what}: {len(found)} images, where {count} were expected")
    if not found:
        raise ConfigurationError(f"{what}: none were given. Expected are arrays of {_forms(dims)}")
    _require_one_shape(found, what)
    if strict:
        _require_one_kind(found, what)
        _require_finite(found, what)
    transparent = len(found[0]) == 4
    if transparent:
        found = [array[:3] for array in found]
    values, told = _values_of(found)
    form = layouts.most_common(1)[0][0]
    length = " x ".join(str(n) for n in found[0].shape[1:])
    unit = "pixels" if found[0].ndim == 3 else "voxels"
    colour = "in colour" if len(found[0]) == 3 else "in grey"
    source = f"from a sequence of {form}" if kind == "sequence" else f"from one array {form}"
    left = ", transparency left out" if transparent else ""
    many = "1 image" if len(found) == 1 else f"{len(found)} images"
    sentence = f"taken for {many} of {length} {unit} {colour}{left}, {source}, values {told}"
    return Taken(found, values, sentence)


def shape_of(images: object) -> str:
    """The shape of images in memory, for a message."""
    shape = getattr(images, "shape", None)
    if shape is not None:
        return str(tuple(shape))
    if _is_picture(images):
        width, height = images.size  # type: ignore[attr-defined]
        return f"({height}, {width})"
    if isinstance(images, Sequence) and not isinstance(images, str):
        return f"{len(images)} x {shape_of(images[0])}" if len(images) else "(0)"
    return type(images).__name__


def _is_picture(thing: object) -> bool:
    return hasattr(thing, "getbands") and hasattr(thing, "convert")


def _items(images: Any, what: str) -> tuple[list[Any], str]:
    """One array, or the items of a sequence."""
    if isinstance(images, str | bytes) or hasattr(images, "__fspath__"):
        raise ConfigurationError(
            f"{what}: got {images!r}, a text or path. Expected are arrays, tensors or pictures; files are read by "
            "Audit and by Cohort.from_source"
        )
    if hasattr(images, "detach") or hasattr(images, "__array__"):
        return [images], "array"
    if _is_picture(images):
        return [images], "sequence"
    if isinstance(images, dict) or not isinstance(images, Iterable):
        raise ConfigurationError(f"{what}: got {type(images).__name__}. Expected are arrays, tensors or pictures")
    items = list(images)
    if items and isinstance(items[0], int | float | list | tuple):  # numbers written as lists of lists
        return [items], "array"
    return items, "sequence"


def _numbers(item: Any, what: str, number: int | None) -> NDArray[Any]:
    """The values of one array, tensor or picture."""
    import numpy as np

    name = what if number is None else f"{what}, number {number}"
    if _is_picture(item):
        grey = {"1": "L", "LA": "L", "La": "L"}
        known = ("L", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
        item = item.convert(grey[item.mode]) if item.mode in grey else item
        item = item if item.mode in known else item.convert("RGB")
    if hasattr(item, "detach"):
        item = item.detach().cpu()
        if str(item.dtype).startswith(("torch.bfloat16", "torch.float8")):  # NumPy has no such numbers
            item = item.float()
        item = item.resolve_conj().resolve_neg().numpy() if not item.is_sparse else item.to_dense().numpy()
    try:
        array = np.asarray(item)
    except ValueError as error:
        raise ConfigurationError(
            f"{name}: the lists are of several lengths, where images of one size are expected"
        ) from error
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ConfigurationError(
            f"{name}: holds {array.dtype} in the shape {array.shape}, where real numbers are expected"
        )
    return array


@dataclass(frozen=True)
class _Expected:
    """What is known of an array beside its shape: whether it is one item of several, and how many images it holds."""

    item: bool
    count: int | None


def _layout_of(shape: tuple[int, ...], what: str, dims: int | None, expected: _Expected) -> _Layout:
    """What the axes are.

    Raises:
        ConfigurationError: none of images, or two things at once.
    """
    possible = [
        layout
        for stacked in (False, True)
        for space in ((2, 3) if dims is None else (dims,))
        for layout in _possible(shape, stacked, space, SHORTEST if dims is None or space == 2 else 2)
    ]
    stacked, single = [x for x in possible if x.stacked], [x for x in possible if not x.stacked]
    if expected.count is not None:
        stacked = [x for x in stacked if shape[0] == expected.count]
        single = single if expected.count == 1 else []
        chosen = [*stacked, *single]
    elif expected.item:
        chosen = [*single, *stacked]
    else:
        colour_first = [x for x in single if x.channel == 0 and shape[0] > 1]
        if colour_first and stacked:
            n, rest = shape[0], ", ".join(str(length) for length in shape[1:])
            raise ConfigurationError(
                f"{what}: the shape {shape} may be {n} grey images or one image in colour: give ({n}, 1, {rest}) or "
                f"(1, {n}, {rest})"
            )
        chosen = [*stacked, *single]
    if not chosen:
        number = "" if expected.count is None else f" for {expected.count} images"
        raise ConfigurationError(f"{what}: got the shape {shape}{number}, where {_forms(dims)} is expected")
    return chosen[0]


def _possible(shape: tuple[int, ...], stacked: bool, dims: int, shortest: int) -> list[_Layout]:
    """The layouts that a shape fits, with so many axes of space."""
    start = int(stacked)
    rest = shape[start:]
    found = []
    if len(rest) == dims and min(rest) >= shortest:
        found.append(_Layout(dims, stacked, None))
    if len(rest) == dims + 1:
        values = (1, *COLOURS) if dims == 2 else (1,)
        for axis, space in ((start, rest[1:]), (-1, rest[:-1])):
            if rest[0 if axis == start else -1] in values and min(space) >= shortest:
                found.append(_Layout(dims, stacked, axis))
    return found


def _forms(dims: int | None) -> str:
    return FORMS[dims] if dims is not None else f"{FORMS[2]}, or in 3D {FORMS[3]}"


def _separate(array: NDArray[Any], layout: _Layout) -> list[NDArray[Any]]:
    """Each image as ``(channels, *spatial)``."""
    import numpy as np

    start = int(layout.stacked)
    whole = np.expand_dims(array, start) if layout.channel is None else np.moveaxis(array, layout.channel, start)
    return list(whole) if layout.stacked else [whole]


def _require_one_shape(arrays: Sequence[NDArray[Any]], what: str) -> None:
    shapes = Counter(array.shape for array in arrays)
    if len(shapes) > 1:
        first = {shape: next(i for i, array in enumerate(arrays) if array.shape == shape) for shape in shapes}
        told = "; ".join(
            f"{shape} ({number}, for example number {first[shape]})" for shape, number in shapes.most_common(3)
        )
        raise ConfigurationError(
            f"{what}: have {len(shapes)} shapes (channels first): {told}. Images in memory are expected in one size "
            "and with as many channels each: resize them, or save them as files, which are brought to one size when "
            "they are read"
        )


def _require_one_kind(arrays: Sequence[NDArray[Any]], what: str) -> None:
    kinds = {str(array.dtype) for array in arrays}
    if len(kinds) > 1 and "uint8" in kinds:
        raise ConfigurationError(
            f"{what}: some hold bytes (uint8) and some {', '.join(sorted(kinds - {'uint8'}))}, so that their "
            "values cannot be compared: expected are numbers of one kind"
        )


def _require_finite(arrays: Sequence[NDArray[Any]], what: str) -> None:
    import numpy as np

    bad = [number for number, array in enumerate(arrays) if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if bad:
        raise ConfigurationError(
            f"{what}: {len(bad)} of {len(arrays)} hold NaN or infinity, for example number {bad[0]} of the shape "
            f"{arrays[bad[0]].shape}, where finite numbers are expected"
        )


def _values_of(arrays: Sequence[NDArray[Any]]) -> tuple[str, str]:
    """How values are understood, and in words."""
    import numpy as np

    dtype = arrays[0].dtype
    with np.errstate(invalid="ignore"):
        ends = [
            (float(np.nanmin(a)), float(np.nanmax(a)))
            for a in arrays
            if not (a.dtype.kind == "f" and np.isnan(a).all())
        ]
    if not ends:
        return OTHER, f"that are no numbers ({dtype})"
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if dtype == np.uint8 and high > 1:
        return BYTES, f"{BYTES} ({dtype})"
    if low >= -BEYOND and high <= 1 + BEYOND:
        return UNIT, f"in {UNIT} ({dtype})"
    if low >= -1 - BEYOND and high <= 1 + BEYOND:
        return SIGNED, f"in {SIGNED} ({dtype})"
    return OTHER, f"from {low:g} to {high:g} ({dtype}), scaled image by image"
