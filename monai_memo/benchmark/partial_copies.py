# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the search for copies in part finds: ``python -m monai_memo.benchmark.partial_copies``.

Regions of training images are put into images of unseen patients; the threshold comes from further unseen patients. The
share of other unseen images above it, and of composites of two unseen patients (whose edges copies in part have as
well), says what the threshold is worth. Results stand in ``docs/benchmark.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from monai_memo.audit.record import software_versions
from monai_memo.benchmark.baselines import Found
from monai_memo.benchmark.classical import classical_baselines
from monai_memo.files import write_json, write_text
from monai_memo.search.gallery import Gallery
from monai_memo.search.parts import PartSearch
from monai_memo.settings.refusals import refusals
from monai_memo.statistics.intervals import proportion_interval

Image = NDArray[np.float32]
Box = tuple[slice, ...]
LEVELS = (0.99, 0.95)
FEATHER = 0.04  # of the length; standard deviation of a soft edge


def _starts(shape: Sequence[int], rng: np.random.Generator, corner: bool) -> list[int]:
    if corner:
        return [int(rng.integers(2)) * (length - length // 2) for length in shape]
    return [int(rng.integers(length - length // 2 + 1)) for length in shape]


def _box(starts: Sequence[int], shape: Sequence[int]) -> Box:
    return tuple(slice(start, start + length // 2) for start, length in zip(starts, shape, strict=True))


def half(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """One half, along a random axis."""
    result, axis = host.copy(), int(rng.integers(host.ndim))
    middle = host.shape[axis] // 2
    side = slice(0, middle) if rng.random() < 0.5 else slice(middle, None)
    place = (*(slice(None),) * axis, side)
    result[place] = part[place]
    return result


def corner(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """A quarter (of a volume: an eighth) in a corner."""
    result, box = host.copy(), _box(_starts(host.shape, rng, True), host.shape)
    result[box] = part[box]
    return result


def anywhere(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """A quarter (an eighth), where it lies, not along the middle lines."""
    result, box = host.copy(), _box(_starts(host.shape, rng, False), host.shape)
    result[box] = part[box]
    return result


def feathered(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """The same, with soft edges."""
    mask = np.zeros_like(host)
    mask[_box(_starts(host.shape, rng, False), host.shape)] = 1
    mask = ndimage.gaussian_filter(mask, FEATHER * host.shape[0])
    return (host * (1 - mask) + part * mask).astype(np.float32)


def gamma(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """A corner with another brightness curve."""
    return corner((part ** np.exp(rng.uniform(-0.5, 0.5))).astype(np.float32), host, rng)


def brightness(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """A corner with other brightness and contrast."""
    return corner(np.clip(part * rng.uniform(0.7, 1.2) + rng.uniform(-0.15, 0.15), 0, 1).astype(np.float32), host, rng)


def mirrored(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """A corner of the mirrored image."""
    return corner(np.flip(part, -1 if part.ndim == 2 else 0), host, rng)


def blurred(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """A corner of the image blurred by 1 % of its length."""
    return corner(ndimage.gaussian_filter(part, 0.01 * part.shape[0]), host, rng)


def moved(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """A quarter (an eighth) from anywhere, put anywhere else."""
    result = host.copy()
    source, place = (_box(_starts(host.shape, rng, False), host.shape) for _ in range(2))
    result[place] = part[source]
    return result


def strip(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """A third, as a strip along a random axis."""
    result, axis = host.copy(), int(rng.integers(host.ndim))
    wide = host.shape[axis] // 3
    start = int(rng.integers(host.shape[axis] - wide + 1))
    place = (*(slice(None),) * axis, slice(start, start + wide))
    result[place] = part[place]
    return result


def exchanged(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """All quarters (eighths) of the training image, none where it was."""
    places = [_box(starts, part.shape) for starts in product(*((0, length - length // 2) for length in part.shape))]
    order = rng.permutation(len(places))
    while (order == np.arange(len(places))).any():
        order = rng.permutation(len(places))
    result = part.copy()
    for place, source in zip(places, order, strict=True):
        result[place] = part[places[source]]
    return result


def box_replaced(part: Image, host: Image, rng: np.random.Generator) -> Image:
    """All but one box over half of the image."""
    lengths = np.round(0.5 ** (1 / host.ndim) * np.array(host.shape)).astype(int)
    starts = [int(rng.integers(n - m + 1)) for n, m in zip(host.shape, lengths, strict=True)]
    result, box = part.copy(), tuple(slice(a, a + m) for a, m in zip(starts, lengths, strict=True))
    result[box] = host[box]
    return result


KINDS: dict[str, Callable[[Image, Image, np.random.Generator], Image]] = {
    function.__name__.replace("_", " "): function
    for function in (
        half, corner, anywhere, feathered, gamma, brightness, mirrored, blurred, moved, strip, exchanged, box_replaced,
    )
}  # fmt: skip
JOINED = ("half", "corner", "anywhere", "moved")  # of two unseen patients, for the composites


def split(
    images: NDArray[np.floating], patients: NDArray[Any], n_train: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Training images with their patients, whole, and one image of each other patient."""
    rng = np.random.default_rng([seed, 41])
    names, codes = np.unique(patients, return_inverse=True)
    rank = rng.permutation(len(names))[codes]
    order = np.argsort(rank, kind="stable")
    ends = np.flatnonzero(np.diff(rank[order])) + 1
    edge = int(ends[np.searchsorted(ends, n_train)])
    first = edge + np.unique(rank[order[edge:]], return_index=True)[1]
    taken = [np.asarray(images[order[rows]], dtype=np.float32) for rows in (slice(0, edge), first)]
    return taken[0], codes[order[:edge]].astype(np.int64), taken[1]


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Shares found, of each kind, and the shares of unseen images that are called."""
    images, patients = np.load(given.images, mmap_mode="r"), np.load(given.patients)
    training, codes, unseen = split(images, patients, given.training, given.seed)
    n = min(given.unseen, len(unseen) // 4)
    heldout, negatives, hosts, pool = (unseen[i * n : (i + 1) * n] for i in range(4))
    search = PartSearch().fit(Gallery(training, codes))
    methods: dict[str, Callable[[NDArray[np.float32]], Found]] = {"parts": lambda q: _found(search, q)}
    if given.baselines:
        methods |= {one.name: one for one in classical_baselines(training)}
    rng = np.random.default_rng([given.seed, 43])
    composites = np.stack([
        KINDS[JOINED[i % len(JOINED)]](pool[i, 0], pool[-1 - i, 0], rng)[None] for i in range(n // 2)
    ])  # fmt: skip
    queries: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {}
    for kind, make in KINDS.items():
        originals = rng.choice(len(training), given.copies, replace=len(training) < given.copies)
        chosen = rng.choice(len(hosts), given.copies, replace=len(hosts) < given.copies)
        made = [make(training[a, 0], hosts[b, 0], rng)[None] for a, b in zip(originals, chosen, strict=True)]
        queries[kind] = np.stack(made).astype(np.float32), originals
    record: dict[str, Any] = {"command": vars(given), "training": len(training), "unseen": n, "methods": {}}
    for name, method in methods.items():
        start = time.process_time()
        null = method(heldout)[0]
        each = 1000 * (time.process_time() - start) / len(heldout)
        taus = np.quantile(null, LEVELS)
        scores = {"unseen images": method(negatives)[0], "composites": method(composites)[0]}
        rows = {kind: {"called": [float((score > tau).mean()) for tau in taus]} for kind, score in scores.items()}
        for kind, (made_queries, originals) in queries.items():
            score, nearest = method(made_queries)
            rows[kind] = {
                "called": [float((score > tau).mean()) for tau in taus],
                "with_the_original": [float(((score > tau) & (nearest == originals)).mean()) for tau in taus],
            }
        record["methods"][name] = {"ms": round(each, 1), "rows": rows}
    return {**record, "software": software_versions()}


def _found(search: PartSearch, queries: NDArray[np.float32]) -> Found:
    found = search.search(queries)
    return found.score, found.training


def table(record: dict[str, Any]) -> str:
    """Markdown: percent called at 1 % (and at 5 %) of the held-out images."""
    names = list(record["methods"])
    lines = ["| kind | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for kind in record["methods"][names[0]]["rows"]:
        cells = []
        for name in names:
            one, five = record["methods"][name]["rows"][kind]["called"]
            cells.append(f"{100 * one:.0f} ({100 * five:.0f})")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    count = record["command"]["copies"]
    half_found = proportion_interval(round(0.9 * count), count)
    note = f"\n90 % of {count} has an interval of {100 * half_found.low:.0f} to {100 * half_found.high:.0f} %.\n"
    return "\n".join(lines) + "\n" + note


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write ``partial_copies.json`` and ``partial_copies.md``."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--images", required=True, help="(n, 1, *spatial) in [0, 1] as .npy")
    parser.add_argument("--patients", required=True, help="(n,) ids as .npy")
    parser.add_argument("--out", required=True, help="folder for partial_copies.json and partial_copies.md")
    parser.add_argument("--training", type=int, default=600, help="training images")
    parser.add_argument("--unseen", type=int, default=400, help="unseen patients of each role")
    parser.add_argument("--copies", type=int, default=50, help="of each kind")
    parser.add_argument("--baselines", action="store_true", help="perceptual hash and SIFT keypoints as well")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with refusals(parser):
        record = measure(given)
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "partial_copies.json", record)
    write_text(out / "partial_copies.md", table(record))
    print(table(record))


if __name__ == "__main__":
    main()
