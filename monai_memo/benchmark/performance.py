# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the search costs: ``python -m monai_memo.benchmark.performance``. Results stand in ``docs/performance.md``.

Parts: ``query`` (time of a query in galleries of several sizes, also paired with an earlier state of this package),
``recall`` (what the coarse stage of large galleries loses), ``peers`` (other methods on the same images), ``sizes``
(copies of large images, searched at several sizes), ``audit`` (whole audits of files by one or several ranks) and
``device`` (many queries on one device, for a graphics card).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.record import software_versions
from monai_memo.benchmark.audit_cost import time_audit, write_cohorts
from monai_memo.benchmark.baselines import Found
from monai_memo.benchmark.classical import classical_baselines
from monai_memo.benchmark.device_cost import time_search
from monai_memo.benchmark.fastdup_peer import Fastdup, processor_time
from monai_memo.benchmark.peers import FlatPixels, PhaseCorrelation
from monai_memo.benchmark.scores import kind_score
from monai_memo.benchmark.sizes import compare_sizes
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import plant_mixture
from monai_memo.detector.recipe import Recipe
from monai_memo.files import write_json
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import ShapeRetriever
from monai_memo.settings.refusals import refusals

Images = NDArray[np.floating]
SMALLEST = 16  # pixels of an axis: in smaller images nobody can be told apart
PARTS = ("query", "recall", "peers", "sizes", "audit", "device")


def read_images(source: str, dims: int, size: int, n: int) -> Images:
    """``(n, 1, *spatial)`` images in [0, 1]: of an ``.npy`` file, or phantoms."""
    if source != "phantoms":
        try:
            images: Images = np.load(source, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise SystemExit(f"--images {source} is no .npy file that can be read: {error}") from error
        if not isinstance(images, np.ndarray):
            raise SystemExit(f"--images {source} must be one array (.npy), not several")
        if images.ndim != dims + 2 or set(images.shape[2:]) != {size}:
            raise SystemExit(f"--images {source} must be (n, 1, {', '.join([str(size)] * dims)}), got {images.shape}")
        return images[:n]
    phantom = chest_phantom if dims == 2 else knee_phantom
    return np.stack([phantom(i, (size,) * dims) for i in range(n)])


def filled(images: Images, n: int, seed: int = 0) -> NDArray[np.float16]:
    """As many images as are asked for: what is there, then blends of two patients, altered as copies are planted."""
    result = np.empty((n, *images.shape[1:]), dtype=np.float16)
    result[: len(images)] = images[:n]
    rng = np.random.default_rng(seed)
    for start in range(len(images), n, len(images)):
        count = min(len(images), n - start)
        first, second = (np.asarray(images[np.sort(rng.permutation(len(images))[:count])]) for _ in range(2))
        share = rng.uniform(0.35, 0.65, (count, *(1,) * (images.ndim - 1))).astype(np.float32)
        blend = (share * first + (1 - share) * second[rng.permutation(count)]).astype(np.float32)
        result[start : start + count] = plant_mixture(blend, seed=int(rng.integers(2**30)))[0]
    return result


def untrained_search(dims: int, size: int) -> CopySearch:
    """The search of an audit, not fitted yet, with an untrained network: it costs what a trained one costs."""
    torch.manual_seed(0)
    return CopySearch.default(Recipe.named("default", dims, (size,) * dims).build_network().eval())


def default_search(gallery: Images, dims: int, size: int, runner: Runner) -> CopySearch:
    """See ``untrained_search``; fitted."""
    return untrained_search(dims, size).fit(Gallery(gallery), runner)


def time_queries(given: argparse.Namespace) -> list[dict[str, Any]]:
    """CPU milliseconds a query on one core, for each size of the gallery; alternating with an earlier state."""
    rows = []
    for n in given.gallery:
        folder = (Path(given.out) / "query").resolve()  # the workers run elsewhere
        folder.mkdir(parents=True, exist_ok=True)
        images = read_images(given.images, given.dims, given.size, given.real + given.queries)
        np.save(folder / "gallery.npy", filled(images[: given.real], n))
        np.save(folder / "queries.npy", np.asarray(images[given.real : given.real + given.queries], dtype=np.float32))
        states = {"now": Path(__file__).resolve().parents[2]}
        states |= {"before": Path(given.before).resolve()} if given.before else {}
        workers = {name: _worker(state, folder, given) for name, state in states.items()}
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(given.rounds):
            for name, worker in workers.items():
                times[name].append(_ask(worker))
        for worker in workers.values():
            worker.kill()
        row: dict[str, Any] = {"gallery": n} | {
            f"ms_{name}": round(median(values), 2) for name, values in times.items()
        }
        if given.before:
            row["ratio"] = round(median(b / a for a, b in zip(times["before"], times["now"], strict=True)), 3)
        rows.append(row)
        print(row, flush=True)
    return rows


def _worker(state: Path, folder: Path, given: argparse.Namespace) -> subprocess.Popen[str]:
    """A process of one state of the package; ``performance_worker`` knows how the search was called before."""
    code = (Path(__file__).with_name("performance_worker.py")).read_text(encoding="utf-8")
    command = [sys.executable, "-c", code, str(folder), str(given.dims), str(given.size)]
    environment = {**os.environ, "PYTHONPATH": str(state), "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=state, env=environment
    )
    if _line(worker) != "ready":
        raise SystemExit(f"the search of {state} did not start: see above")
    return worker


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def _ask(worker: subprocess.Popen[str]) -> float:
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    return float(_line(worker))


def measure_recall(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Of planted copies whose original is among the candidates of the exact search: how many the coarse one keeps."""
    rows = []
    for n in given.gallery:
        images = read_images(given.images, given.dims, given.size, given.real)
        gallery = filled(images, n)
        chosen = np.sort(np.random.default_rng(1).choice(n, given.queries, replace=False))
        copies, _ = plant_mixture(np.asarray(gallery[chosen], dtype=np.float32), seed=2)
        held: dict[str, NDArray[np.bool_]] = {}
        for name, exact_up_to in (("exact", n), ("coarse", 0)):
            retriever, runner = ShapeRetriever(exact_up_to=exact_up_to), Runner()
            with torch.inference_mode():
                retriever.fit(Gallery(gallery), runner)
                blocks = [retriever(torch.from_numpy(copies[rows_]), runner) for rows_ in runner.blocks(len(copies))]
            held[name] = (torch.cat(blocks).numpy() == chosen[:, None]).any(axis=1)
        both = int((held["exact"] & held["coarse"]).sum())
        rows.append({
            "gallery": n, "copies": len(copies), "exact": int(held["exact"].sum()), "coarse": int(held["coarse"].sum()),
            "kept": both,
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def compare_peers(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Planted copies against unseen images, by this search and by methods that are older, on the same images."""
    n = given.gallery[0]
    images = read_images(given.images, given.dims, given.size, n + given.queries)
    gallery, unseen = np.asarray(images[:n], dtype=np.float32), np.asarray(images[n:], dtype=np.float32)
    chosen = np.sort(np.random.default_rng(1).choice(n, min(n, len(unseen)), replace=False))
    copies, _ = plant_mixture(gallery[chosen], seed=2)
    search = default_search(gallery, given.dims, given.size, Runner())

    def found(queries: Images) -> Found:
        matches = search.search(queries)
        return matches.similarity[:, 0], matches.candidates[:, 0]

    methods: list[tuple[str, Callable[[Images], Found]]] = [("this search", found)]
    methods += [(one.name, one) for one in (FlatPixels(gallery), PhaseCorrelation(gallery))]
    methods += [(one.name, one) for one in classical_baselines(gallery)]
    if given.fastdup:
        methods.append((Fastdup.name, Fastdup(gallery, given.fastdup, Path(given.out) / "fastdup")))
    rows = []
    for name, method in methods:
        start = processor_time()
        similarity, nearest = method(copies)
        negatives, _ = method(unseen)
        seconds = processor_time() - start
        score = kind_score(name, similarity, negatives, nearest == chosen)
        tpr = score.tpr["0.01"]
        rows.append({
            "method": name, "ms": round(1000 * seconds / (len(copies) + len(unseen)), 2),
            "tpr": None if tpr is None else [round(x, 3) for x in (tpr.value, tpr.low, tpr.high)],
            "nearest": round(score.retrieval.value, 3),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def measure_sizes(given: argparse.Namespace) -> list[dict[str, Any]]:
    """See ``sizes.compare_sizes``; ``real`` training images, ``queries`` unseen ones."""
    images = read_images(given.images, given.dims, given.size, given.real + given.queries)
    return compare_sizes(images[: given.real], images[given.real :], given.sizes, given.per_level)


def time_audits(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Whole audits: half of the ``queries`` unseen images are held out, the others (a tenth copies) are samples."""
    rows = []
    for n in given.gallery:
        folder = Path(given.out) / f"cohorts-{n}"
        if not (folder / "complete").exists():
            images = read_images(given.images, given.dims, given.size, given.real + given.queries)
            write_cohorts(filled(images[: given.real], n), images[given.real :], folder)
            (folder / "complete").touch()
        cohorts = {name: folder / name for name in ("train", "heldout", "synthetic")}
        options = ["--size", str(given.size), "--detector", given.detector]
        options += [f"--{option}" for option in given.options]
        for ranks in given.ranks:
            rows.append({"gallery": n, **time_audit(cohorts, folder, options, ranks)})
            print(rows[-1], flush=True)
    return rows


def time_device(given: argparse.Namespace) -> list[dict[str, Any]]:
    """See ``device_cost.time_search``; where there are not images enough, gallery and queries are filled up."""
    device, rows = torch.device(given.device), []
    for n in given.gallery:
        images = read_images(
            given.images, given.dims, given.size, given.real if given.images == "phantoms" else n + given.queries
        )
        enough = given.images != "phantoms" and len(images) >= n + given.queries
        gallery = images[:n] if enough else filled(images[: given.real], n)
        queries = images[n : n + given.queries] if enough else filled(images[: given.real], given.queries, seed=1)
        rows.append(time_search(untrained_search(given.dims, given.size), gallery, queries, device))
        print(rows[-1], flush=True)
    return rows


def check_arguments(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End with a message where an argument makes no sense, before anything is written or measured."""
    least = {"gallery": 2, "real": 2, "queries": 1, "rounds": 1, "sizes": SMALLEST, "size": SMALLEST, "per_level": 1,
             "ranks": 1}  # fmt: skip
    for name, low in least.items():
        values = getattr(given, name)
        for value in values if isinstance(values, list) else [values]:
            if value < low:
                parser.error(f"--{name} must be {low} or more, got {value}")
    smallest = min(given.gallery)
    if given.part == "recall" and given.queries > smallest:
        parser.error(f"--queries {given.queries} copies cannot be chosen among --gallery {smallest} images")
    if given.part == "sizes" and (max(given.sizes) > given.size or given.per_level > given.real):
        parser.error("--sizes must not exceed --size, nor --per_level --real")
    if given.part == "audit" and (given.detector is None or given.dims != 2):
        parser.error("--part audit needs --detector, and takes 2D images")
    if given.part == "audit" and not Path(given.detector).is_file():
        parser.error(f"--detector {given.detector} is no file")
    if given.part == "query" and given.before is not None and not (Path(given.before) / "monai_memo").is_dir():
        parser.error(f"--before {given.before} is no checkout of this package: it has no folder monai_memo")
    if Path(given.out).exists() and not Path(given.out).is_dir():
        parser.error(f"--out {given.out} is no folder")
    if given.images != "phantoms" and not Path(given.images).is_file():
        parser.error(f"--images {given.images} is no file")
    try:
        torch.empty(1, device=given.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {given.device} cannot be used: {str(error).splitlines()[0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen part and write ``performance_<part>.json``."""
    parser = argparse.ArgumentParser("python -m monai_memo.benchmark.performance", description="Cost of the search.")
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--out", required=True, help="folder for inputs and results")
    parser.add_argument("--images", default="phantoms", help="(n, 1, *spatial) in [0, 1] as .npy; by default phantoms")
    parser.add_argument("--dims", type=int, choices=(2, 3), default=2)
    parser.add_argument("--size", type=int, default=64, help="pixels or voxels of each axis")
    parser.add_argument("--gallery", type=int, nargs="+", default=[1300, 13000], help="training images")
    parser.add_argument("--real", type=int, default=1300, help="images that larger galleries are filled up from")
    parser.add_argument("--queries", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="to search at, of images of --size")
    parser.add_argument("--per_level", type=int, default=8, help="copies of each kind and strength, for --part sizes")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1], help="of whole audits; a core each")
    parser.add_argument("--detector", help="of whole audits, 2D")
    parser.add_argument("--options", nargs="*", default=[], help="further ones of whole audits: name=value")
    parser.add_argument("--fastdup", help="Python of an environment with fastdup, for --part peers")
    parser.add_argument("--before", help="checkout of an earlier state, timed in turns")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    check_arguments(parser, given)
    if given.part != "device":
        torch.set_num_threads(1)
    parts: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
        "query": time_queries, "recall": measure_recall, "peers": compare_peers, "sizes": measure_sizes,
        "audit": time_audits, "device": time_device,
    }  # fmt: skip
    with refusals(parser):
        rows = parts[given.part](given)
    record = {"arguments": vars(given), "rows": rows, "software": software_versions(), "machine": platform.machine()}
    path = write_json(Path(given.out) / f"performance_{given.part}.json", record)
    print(json.dumps(rows), path, sep="\n")


if __name__ == "__main__":
    main()
