"""Every block of Python in the README and in docs/ runs, in the order of its page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMPARED = sorted((ROOT / "docs" / "coming_from").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| .* \| `([^`\n]+)` \|$", re.MULTILINE)
"""A row of a page of two columns, theirs and ours; ours is code."""
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page, tmp_path, monkeypatch):
    """The blocks of a page share their names, as they do for who reads it from top to bottom."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    names = {"__name__": "__main__"}
    code = [*BLOCK.finditer(text), *(ROW.finditer(text) if page.parent.name == "coming_from" else ())]
    for block in sorted(code, key=lambda block: block.start()):
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(page), "exec"), names)


@pytest.mark.parametrize("page", COMPARED, ids=lambda page: page.stem)
def test_each_row_of_two_columns_runs(page):
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ") and "| --- |" not in line]
    heads = [line for line in rows if line.endswith("| functrain |")]
    assert len(ROW.findall(page.read_text())) == len(rows) - len(heads) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    missing = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not missing


def test_the_names_of_the_lessons_table_exist():
    page = (ROOT / "docs" / "explanation" / "names_of_the_lesson.md").read_text()
    names: dict = {}
    exec(next(BLOCK.finditer(page))[1], names)
    ours = [line.rsplit(" | ", 1)[1] for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    expressions = [name for cell in ours[1:] for name in re.findall("`([^`]+)`", cell)]
    assert len(expressions) > 40
    for expression in expressions:
        eval(expression, names)
