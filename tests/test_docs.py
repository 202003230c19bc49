"""The documentation: its excerpts of the source, its links, and the site that is made of it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])


def strip_lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


def test_excerpts_stand_in_the_source():
    source = strip_lines((ROOT / "began_cli" / "gan" / "losses.py").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
    excerpts = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(excerpts) >= 7
    for excerpt in excerpts:
        assert strip_lines(excerpt).strip() in source, excerpt


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if target.startswith(("http", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [
                re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings
            ]
            assert anchor in anchors, target


def test_the_layout_names_files_that_exist():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(began_cli/\w+)/` \| (.*) \|$", page, re.MULTILINE)
    folders = {folder: re.findall(r"`(\w+\.py)`", text) for folder, text in rows}
    assert folders["began_cli/gan"] == ["losses.py", "update.py"]
    for folder, names in folders.items():
        for name in names:
            assert (ROOT / folder / name).exists(), f"{folder}/{name}"


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|img|link)[^>]*>", html):
            assert "http" not in tag or 'rel="canonical"' in tag, (page.name, tag)
    shutil.rmtree(tmp_path)
