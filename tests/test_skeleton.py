# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The house rules: who may import whom, how long a file may be, what must not be in the repository."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "monai_memo"
FILES = sorted(PACKAGE.rglob("*.py"))

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


def contracts(file: Path) -> int:
    """Exit status of import-linter."""
    return int(lint_imports(config_filename=str(file), no_cache=True))


def test_nothing_imports_upward() -> None:
    assert contracts(ROOT / "pyproject.toml") == 0, "lint-imports tells which import is at fault"


def test_an_import_through_a_wall_is_found(tmp_path: Path) -> None:
    rules = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    closed = rules.replace('source_modules = ["monai_memo.statistics"]', 'source_modules = ["monai_memo.audit"]')
    (tmp_path / "pyproject.toml").write_text(closed, encoding="utf-8")
    assert closed != rules and contracts(tmp_path / "pyproject.toml") == 1


def silencing(path: Path) -> list[int]:
    """Lines that silence every warning, whatever it says."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            first = node.args[0]
            ignores = isinstance(first, ast.Constant) and first.value == "ignore"
            if ignores and node.func.attr in ("simplefilter", "filterwarnings") and len(node.args) == 1:
                given = {keyword.arg for keyword in node.keywords}
                if not given & {"category", "message", "module"}:
                    found.append(node.lineno)
    return found


def test_warnings_are_not_silenced_wholesale(tmp_path: Path) -> None:
    # A redacted run shows none: any text of a library can name a file or a patient.
    assert [path.name for path in FILES if silencing(path)] == ["redaction.py"]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    for entry in settings["filterwarnings"]:
        _, message, _, module = [*entry.split(":"), "", ""][:4]
        assert message or module, f"{entry} silences a whole category"
    example = tmp_path / "example.py"
    example.write_text('simple.simplefilter("ignore")\nw.filterwarnings("ignore", category=UserWarning)\n')
    assert silencing(example) == [1]


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
