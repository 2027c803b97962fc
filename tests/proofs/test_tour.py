"""docs/TOUR.md: its code runs, block after block, prints what the text shows, and draws the figures in docs/tour.

After a change of the tour, `python tests/proofs/test_tour.py` puts the new output and the new figures in place.
"""

import contextlib
import io
import os
import re
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DOCS = Path(__file__).parents[2] / "docs"
TOUR, FOLDER = DOCS / "TOUR.md", DOCS / "tour"
TEXT = TOUR.read_text("utf-8")
# A block of code, and what it prints, indented.
BLOCK = re.compile(r"^```python\n((?:.*\n)*?)```\n(?:\n((?:    .*\n)+))?", re.MULTILINE)
FIGURES = sorted(re.findall(r"!\[.+\]\(tour/(.+)\)", TEXT))


def indent(printed):
    return re.sub("^", "    ", printed, flags=re.MULTILINE).removesuffix("    ")


def run_blocks():
    """For each block of code: the number of its first line, what the text shows, what the code prints."""
    namespace = {}
    for block in BLOCK.finditer(TEXT):
        before, output = TEXT.count("\n", 0, block.start(1)), io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * before + block[1], TOUR.name, "exec"), namespace)  # tracebacks have TOUR.md's lines
        yield before + 1, block[2] or "", indent(output.getvalue())


def fingerprint(name):
    """CRC-32 of the code up to the block that saves this figure"""
    before, save, _ = "".join(block[1] for block in BLOCK.finditer(TEXT)).partition(f'savefig("{name}"')
    assert save, f"no code saves {name}"
    return f"{zlib.crc32(before.encode()):08x}"


def test_the_code_prints_what_the_tour_shows_and_draws_its_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")  # no window
    for line, shown, printed in run_blocks():
        assert printed == shown, f"the code at line {line} of {TOUR.name} prints something else"
    assert sorted(path.name for path in FOLDER.iterdir()) == FIGURES
    for name in FIGURES:
        drawn, committed = Image.open(name), Image.open(FOLDER / name)
        assert drawn.size == committed.size
        assert committed.info["Code"] == fingerprint(name), f"{name} was drawn by other code"
        if drawn.info["Software"] == committed.info["Software"]:  # other versions of matplotlib place things elsewhere
            pixels, expected = (np.asarray(image.convert("L"), float) for image in (drawn, committed))
            assert np.abs(pixels - expected).mean() < 3, f"{name} is not the figure that the code draws"
        assert (FOLDER / name).stat().st_size < 150_000


def test_every_section_begins_with_what_one_sees_and_links_to_its_source_and_test():
    sections = re.findall(r"^## (\d+)\. .+\n\n(.+\n(?:.+\n)+)", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in sections] == [*range(1, 12)]
    for number, beginning in sections:
        links = r"Source: .*\]\(\.\./tinymnist/.+\.py\).*Tests?: .*\]\(\.\./tests/\w+/test_\w+\.py\)"
        assert beginning.startswith("**You will see** ") and re.search(links, beginning, re.DOTALL), number


@pytest.mark.parametrize("link", sorted({*re.findall(r"\]\(([^)#]+)", TEXT)}))
def test_every_link_leads_to_a_file(link):
    assert (DOCS / link).is_file()


@pytest.mark.parametrize("name, path", re.findall(r"`(\w+)` in\s+\[.+?\]\((.+?)\)", TEXT))
def test_every_function_is_where_the_tour_says(name, path):
    assert f"def {name}(" in (DOCS / path).read_text("utf-8")


def test_the_tour_takes_an_hour():
    assert len(TEXT.splitlines()) <= 450
    assert max(len(line) for line in TEXT.splitlines() if "](" not in line) <= 120


def rewrite():
    """Put what the code prints, and the figures that it draws, in place of the old."""
    os.environ["MPLBACKEND"] = "agg"
    os.chdir(tempfile.mkdtemp())
    outputs = iter([printed for _, _, printed in run_blocks()])
    for name in FIGURES:
        figure, info = Image.open(name), PngInfo()
        for key, text in (("Software", figure.info["Software"]), ("Code", fingerprint(name))):
            info.add_text(key, text)
        figure.save(FOLDER / name, pnginfo=info, optimize=True)

    def replace(block):
        printed = next(outputs)
        return f"```python\n{block[1]}```\n" + (f"\n{printed}" if printed else "")

    TOUR.write_text(BLOCK.sub(replace, TEXT), "utf-8")


if __name__ == "__main__":
    rewrite()
