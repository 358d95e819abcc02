# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The house rules: who may import whom, how long a file may be, what must not be in the repository."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "monai_memo"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each room may import from itself, from what everybody may use, and from the rooms named here.
COMMON = (
    "lazy",
    "errors",
    "files",
    "image_arrays",
    "settings",
    "sealing",
    "text",
    "progress",
    "redaction",
    "workspace",
    "shipped",
)
GROUND = ("data", "views", "networks", "losses", "registration", "statistics", "training", "sampling")
SEARCHES = (*GROUND, "detector", "search")
AUDIT = (*SEARCHES, "audit")
METRICS = (*AUDIT, "metrics")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(GROUND, ()),
    "lazy": (),
    "errors": (),
    "files": (),
    "image_arrays": (),
    "settings": (),
    "command_line": ("settings",),
    "sealing": (),
    "text": (),
    "progress": (),
    "redaction": (),
    "workspace": (),
    "shipped": (),
    "detector": ("data", "views", "networks", "losses", "training"),
    "search": ("registration",),
    "audit": SEARCHES,
    "metrics": AUDIT,
    "handlers": METRICS,
    "generators": (*METRICS, "handlers"),
    "benchmark": (*METRICS, "handlers", "generators"),
    "demo": AUDIT,
    "label": AUDIT,
    "duplicates": AUDIT,
    "release": (*AUDIT, "label"),
    "study": (*METRICS, "handlers", "generators", "benchmark"),
    "reliability": (
        *METRICS,
        "handlers",
        "generators",
        "benchmark",
        "duplicates",
        "label",
        "release",
        "study",
        "__main__",
    ),
    "commands": (*AUDIT, "command_line", "benchmark", "demo", "duplicates", "label", "release", "study"),
    "__main__": ("command_line", "commands"),
    "__init__": (*METRICS, "handlers", "generators", "benchmark"),
}
MOST_PARAMETERS = 7
# Functions with more, by name. The list may only become shorter: an entry that is no longer needed fails the test.
TOO_MANY_PARAMETERS = {
    # The bundles' configs name these arguments one by one, as MONAI's own components have them.
    "generators/autoencoder_trainer.py:AutoencoderTrainer.__init__": 10,
    "generators/bundle_model.py:assemble": 11,
    "generators/latent_diffusion.py:LatentDiffusion.__init__": 8,
    "generators/latents.py:encode_latents": 11,
    "generators/latents.py:_encode": 9,
    "generators/monitoring.py:CopyRateHandlers.__init__": 12,
    # Their arguments are the options of a command.
    "generators/subvolumes.py:cut_subvolumes": 9,
    "data/demo_cohorts.py:write_demo_cohorts": 8,
}
TEXT = (".py", ".md", ".json", ".cfg", ".toml", ".yaml", ".txt", ".sh", ".jinja", ".ipynb", ".svg")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upward(path: Path) -> None:
    mine = room(path)
    allowed = {mine, *COMMON, *MAY_IMPORT[mine]}
    if mine in COMMON:
        allowed = {mine, *COMMON[: COMMON.index(mine)]}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("monai_memo.")}
    assert used <= allowed, f"{path.name} in {mine} imports from {sorted(used - allowed)}"


def test_statistics_sees_arrays_only() -> None:
    for path in (PACKAGE / "statistics").glob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"torch", "monai", "ignite", "faiss"}, path.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_licensed(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 500
    assert lines[:2] == ["# Copyright (c) monai_memo contributors", "# SPDX-License-Identifier: Apache-2.0"]
    assert ast.get_docstring(ast.parse("\n".join(lines))), "a file says what it is"


def parameters(path: Path) -> dict[str, int]:
    """Of each function and method written in a file; settings and dataclasses have no ``__init__`` of their own."""
    counted: dict[str, int] = {}

    def walk(node: ast.AST, names: tuple[str, ...], method: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = child.args
                taken = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                taken += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
                bound = method and bool(taken) and taken[0].arg in ("self", "cls")
                counted[".".join((*names, child.name))] = len(taken) - bound
                walk(child, (*names, child.name), False)
            elif isinstance(child, ast.ClassDef):
                walk(child, (*names, child.name), True)
            else:
                walk(child, names, method)

    walk(ast.parse(path.read_text(encoding="utf-8")), (), False)
    return counted


def test_no_function_has_more_than_seven_parameters() -> None:
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}:{name}": number
        for path in FILES
        for name, number in parameters(path).items()
        if number > MOST_PARAMETERS
    }
    new = {name: number for name, number in found.items() if number > TOO_MANY_PARAMETERS.get(name, MOST_PARAMETERS)}
    assert not new, f"group what belongs together, or take options by keyword with a TypedDict: {new}"
    mended = sorted(name for name in TOO_MANY_PARAMETERS if name not in found)
    assert not mended, f"no longer needed in TOO_MANY_PARAMETERS: {mended}"


def test_the_count_sees_methods_nested_functions_and_keywords(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(
        "class A:\n"
        "    def __init__(self, a, b, /, c, *, d, **more): ...\n"
        "    @staticmethod\n"
        "    def s(a, *rest):\n"
        "        if a:\n"
        "            async def inner(x): ...\n"
        "@dataclass\n"
        "class B:\n"
        "    many: int\n"
    )
    assert parameters(file) == {"A.__init__": 5, "A.s": 2, "A.s.inner": 1}


def test_the_core_works_without_torchvision() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import monai_memo\n"
        "for name in monai_memo.__all__: getattr(monai_memo, name)\n"
        "import monai_memo.__main__ as m; [m.load(c.settings) for c in m.COMMANDS.values()]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_import_is_quick_and_unknown_names_are_errors() -> None:
    code = "import sys, monai_memo; assert 'torch' not in sys.modules and 'monai' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    import monai_memo

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = monai_memo.nothing


def test_repository_holds_no_data_and_no_machine_paths() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        assert path.suffix not in (".jpeg", ".jpg", ".gz", ".nii", ".dcm", ".npy"), name
        assert path.suffix != ".png" or name.startswith("docs/figures/"), f"{name}: pictures belong to docs/figures"
        if path.suffix in TEXT and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            for place in ("/tmp/", "/home/", "/root/", "/work/"):
                assert place not in text, f"{name} names {place}"
