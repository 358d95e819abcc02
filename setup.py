# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What setup.cfg cannot say: bundles and constraints lie at the top of the repository, and go into the package."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.config.setupcfg import read_configuration

ROOT = Path(__file__).resolve().parent


def content() -> ModuleType:
    """The list of what is shipped, without the library around it."""
    spec = importlib.util.spec_from_file_location("content", ROOT / "monai_memo" / "shipped" / "content.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["content"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class WithBundles(build_py):
    """Adds what lies outside of the package. An editable installation finds it in the repository."""

    def _outside(self) -> dict[str, str]:
        shipped = content()
        target = Path(self.build_lib) / "monai_memo" / "shipped"
        found = {target / name: ROOT / name for name in shipped.CONSTRAINTS}
        for bundle in shipped.bundles_in(ROOT / "bundles"):
            found |= {target / "bundles" / bundle.name / file: bundle / file for file in shipped.files_of(bundle)}
        return {str(place): str(source) for place, source in found.items()}

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for place, source in self._outside().items():
                self.mkpath(str(Path(place).parent))
                self.copy_file(source, place, preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        further = [] if self.editable_mode else list(self._outside())
        return [*super().get_outputs(include_bytecode), *further]

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *(str(Path(p).relative_to(ROOT)) for p in self._outside().values())]


def readme() -> str:
    """README with links that work on a package index as well: relative ones lead to the repository."""
    home = read_configuration(ROOT / "setup.cfg")["metadata"]["url"]

    def absolute(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        return f"{mark}[{text}]({home}/{'raw' if mark else 'blob'}/main/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", absolute, (ROOT / "README.md").read_text(encoding="utf-8"))


setup(cmdclass={"build_py": WithBundles}, long_description=readme())
