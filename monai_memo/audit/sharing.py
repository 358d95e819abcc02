# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""An audit on several ranks: rank 0 runs it, and calls the others where images are embedded or looked up.

What rank 0 does alone (reading and preprocessing, comparing cohorts, training a detector, calibration, the report) the
others wait for. Where they are called all ranks do the same step, each on its share of the blocks that one process
would work through, so that the record comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.result import AuditResult
from monai_memo.detector.detector import Detector
from monai_memo.errors import DetectorError
from monai_memo.search.copy_search import CopySearch, MakeSearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.matches import Matches
from monai_memo.search.parts import PartMatches, PartSearch
from monai_memo.search.protocols import Search, SearchDescription
from monai_memo.search.runner import Runner
from monai_memo.workspace.team import Team

Pixels = NDArray[np.floating]
DETECTOR = "detector.pt"


def build_search(
    gallery: Gallery, detector: Detector, runner: Runner, batch_size: int, make: MakeSearch = CopySearch.default
) -> CopySearch:
    """The search of an audit, of which all ranks build the same one."""
    return make(detector.network, batch_size).fit(gallery, runner)


def embed_shared(
    detector: Detector, pixels: Pixels, batch_size: int, device: str | torch.device, team: Team, store: Path | None
) -> NDArray[np.float32]:
    """``Detector.embed`` by all ranks together: each has whole batches, and all get everything.

    Args:
        store: each rank keeps its share beside this path.
    """
    batches = -(-len(pixels) // batch_size)
    start, stop = (min(batch_size * (batches * part // team.world), len(pixels)) for part in (team.rank, team.rank + 1))
    own = None if store is None else store.with_suffix(f".{start}-{stop}.npy")
    mine = pixels[start:stop]
    if len(mine):
        found = detector.embed(mine, batch_size, device, progress=False, store=own)
    else:
        found = np.zeros((0, detector.network.embedding_dim), dtype=np.float32)
    return np.concatenate([part["vectors"] for part in team.gather({"vectors": found})])


class Sharing:
    """What rank 0 says to the others.

    Args:
        team: the ranks.
        device: where this one computes.
        batch_size: of the encoder.
        make: the search, see ``Audit``; all ranks have the same one.
    """

    def __init__(self, team: Team, device: str, batch_size: int, make: MakeSearch = CopySearch.default) -> None:
        self.team, self.device, self.batch_size, self.make = team, device, batch_size, make

    def bring(self, detector: Detector) -> None:
        """Give the others the detector."""
        self.team.tell({"do": "detector", "file": str(detector.save(self.team.folder / DETECTOR))})

    def embed(self, detector: Detector, pixels: Pixels, name: str = "", store: Path | None = None) -> NDArray[Any]:
        """Embed images together.

        Args:
            name: under which all ranks keep the embeddings, for ``search``.
        """
        shared = self.team.share(pixels)
        self.team.tell({"do": "embed", "pixels": shared, "name": name, "store": None if store is None else str(store)})
        found = embed_shared(detector, pixels, self.batch_size, self.device, self.team, store)
        self.team.forget(shared)
        return found

    def search(
        self,
        detector: Detector,
        gallery: Gallery,
        runner: Runner,
        names: Sequence[str] = ("training",),
    ) -> Search:
        """Get ready to look images up together, in this gallery and in no earlier one.

        Args:
            gallery: if it is ``knowing`` another one, that was the largest so far.
            names: of the embeddings that those of the gallery are made of.
        """
        self._tell_of(gallery, runner, {"do": "fit", "names": list(names), "knows": gallery.knows})
        return SharedSearch(build_search(gallery, detector, runner, self.batch_size, self.make), self.team)

    def parts(self, gallery: Gallery, runner: Runner) -> SharedPartSearch:
        """Get ready to look regions of images up together."""
        self._tell_of(gallery, runner, {"do": "fit parts"})
        return SharedPartSearch(PartSearch().fit(gallery, runner), self.team)

    def _tell_of(self, gallery: Gallery, runner: Runner, words: dict[str, Any]) -> None:
        """Have the others do something in a gallery, as ``runner`` does it."""
        shared = {"pixels": self.team.share(gallery.pixels), "patients": self.team.share(gallery.patients)}
        self.team.tell({**words, "seed": runner.seed, "folder": _text(runner.folder), **shared})

    def end(self, result: AuditResult) -> None:
        """The result for all ranks, which then leave what they worked on."""
        self.team.tell({"do": "end"})
        self.team.gather({"record": np.frombuffer(result.to_json().encode(), dtype=np.uint8)})
        self.team.close()


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


class SharedPartSearch:
    """A search of regions that all ranks make together when rank 0 is asked for it; see ``search.parts``.

    Args:
        search: of rank 0.
        team: the ranks.
    """

    def __init__(self, search: PartSearch, team: Team) -> None:
        self.plain, self.team = search, team

    def search(self, queries: Pixels, store: str | Path | None = None, name: str = "parts") -> PartMatches:
        """See ``PartSearch.search``."""
        shared = self.team.share(queries)
        self.team.tell({"do": "parts", "store": _text(store), "queries": shared})
        found = self.plain.search(queries, store, name)
        self.team.forget(shared)
        return found


class SharedSearch:
    """A search that all ranks make together when rank 0 is asked for it; see ``search.protocols.Search``.

    Args:
        search: of rank 0.
        team: the ranks.
    """

    def __init__(self, search: CopySearch, team: Team) -> None:
        self.plain, self.team = search, team

    def search(
        self, queries: Pixels, store: str | Path | None = None, patients: NDArray[np.int64] | None = None
    ) -> Matches:
        """See ``CopySearch.search``."""
        return self._together(queries, None, patients, store)

    def score(self, queries: Pixels, candidates: NDArray[np.int64], patients: NDArray[np.int64]) -> Matches:
        """See ``CopySearch.score``."""
        return self._together(queries, candidates, patients, None)

    def describe(self) -> SearchDescription:
        """See ``CopySearch.describe``."""
        return self.plain.describe()

    def _together(
        self,
        queries: Pixels,
        candidates: NDArray[np.int64] | None,
        patients: NDArray[np.int64] | None,
        store: str | Path | None,
    ) -> Matches:
        arrays = {"queries": queries, "candidates": candidates, "patients": patients}
        shared = {name: self.team.share(array) for name, array in arrays.items()}
        self.team.tell({"do": "search", "store": _text(store), **shared})
        found = look_up(self.plain, queries, candidates, patients, store)
        for words in shared.values():
            self.team.forget(words)
        return found


def look_up(
    search: CopySearch,
    queries: Pixels,
    candidates: NDArray[np.int64] | None,
    patients: NDArray[np.int64] | None,
    store: str | Path | None,
) -> Matches:
    """Search, or score given candidates."""
    if candidates is None:
        return search.search(queries, store, patients)
    assert patients is not None
    return search.score(queries, candidates, patients)


class Follower:
    """What the other ranks do: hear, and do it, until rank 0 has the result.

    Args:
        team: the ranks.
        device: where this one computes.
        batch_size: of the encoder.
        make: the search, see ``Audit``.
    """

    def __init__(self, team: Team, device: str, batch_size: int, make: MakeSearch = CopySearch.default) -> None:
        self.team, self.device, self.batch_size, self.make = team, device, batch_size, make
        self._detector: Detector | None = None
        self._search: CopySearch | None = None
        self._parts: PartSearch | None = None
        self._largest: Gallery | None = None
        self._embeddings: dict[str, NDArray[np.float32]] = {}

    @property
    def detector(self) -> Detector:
        """The one that rank 0 brought."""
        if self._detector is None:
            raise DetectorError("rank 0 has brought no detector yet")
        return self._detector

    def run(self) -> AuditResult:
        """Follow rank 0 to the end; every rank has the same result."""
        steps: dict[str, Callable[[dict[str, Any]], None]] = {
            "detector": self._bring, "embed": self._embed, "fit": self._fit, "search": self._look_up,
            "fit parts": self._fit_parts, "parts": self._look_up_parts,
        }  # fmt: skip
        while (words := self.team.hear())["do"] != "end":
            steps[words["do"]](words)
        record = self.team.gather({})[0]["record"].tobytes().decode()
        self._search = self._parts = self._largest = None  # and with them the files that they have mapped
        self.team.close()
        return AuditResult.from_json(record)

    def _bring(self, words: dict[str, Any]) -> None:
        self._detector = Detector.load(words["file"])

    def _embed(self, words: dict[str, Any]) -> None:
        pixels = self.team.take(words["pixels"])
        assert pixels is not None
        store = None if words["store"] is None else Path(words["store"])
        found = embed_shared(self.detector, pixels, self.batch_size, self.device, self.team, store)
        if words["name"]:
            self._embeddings[words["name"]] = found

    def _fit(self, words: dict[str, Any]) -> None:
        gallery, runner = self._gallery(words)
        gallery.embeddings = np.concatenate([self._embeddings[name] for name in words["names"]])
        if words["knows"]:
            assert self._largest is not None
            gallery.knowing(self._largest)
        if self._largest is None or len(gallery) > len(self._largest):
            self._largest = gallery
        self._search = build_search(gallery, self.detector, runner, self.batch_size, self.make)

    def _gallery(self, words: dict[str, Any]) -> tuple[Gallery, Runner]:
        """That rank 0 speaks of, and how to work in it."""
        pixels, patients = self.team.take(words["pixels"]), self.team.take(words["patients"])
        assert pixels is not None and patients is not None
        folder = None if words["folder"] is None else Path(words["folder"])
        runner = Runner(torch.device(self.device), folder=folder, seed=words["seed"], team=self.team)
        return Gallery(pixels, patients), runner

    def _fit_parts(self, words: dict[str, Any]) -> None:
        self._parts = PartSearch().fit(*self._gallery(words))

    def _look_up_parts(self, words: dict[str, Any]) -> None:
        queries = self.team.take(words["queries"])
        assert self._parts is not None and queries is not None
        self._parts.search(queries, words["store"])

    def _look_up(self, words: dict[str, Any]) -> None:
        assert self._search is not None
        queries = self.team.take(words["queries"])
        assert queries is not None
        candidates, patients = self.team.take(words["candidates"]), self.team.take(words["patients"])
        look_up(self._search, queries, candidates, patients, words["store"])
