"""The page: its tables and plots, that it stands alone, and what it does in a browser."""

import base64
import io
import json
import re
import shutil
import statistics
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from sweep import CNN, GAMMAS, OTHER, SEEDS, read_table, run_of, write_scores

from began_cli.comparison import page, tables
from began_cli.comparison.records import FAILED, FINISHED, Column, Run, Score


def make_run(name, gamma=0.5, seed=1, state=FINISHED, fid=None, k_t=()):
    run = Run(Path(name), name, {"loss.gamma": gamma, "seed": seed, "steps": 4}, state=state)
    run.status, run.step = f"{state} at step 4", 4
    run.curves = {"train/k_t": list(k_t)} if k_t else {}
    run.scores = {Column("fid", CNN, 10, "", ""): Score(fid, 0.25)} if fid else {}
    return run


def render(*runs, warnings=(), title="runs", samples="Images."):
    compared = tables.sort_runs(list(runs))
    return page.render(title, compared, tables.group_runs(compared)[0], [*warnings], samples)


# --- tables ---------------------------------------------------------------------------------------


def test_scores_are_means_over_seeds_with_the_deviation_and_what_they_depend_on():
    fid = {(0.3, 1): 10.125, (0.3, 2): 13.5, (0.5, 1): 7.0, (0.5, 2): 7.75}
    curve = [(2, 0.5), (4, 0.25)]
    text = render(*(make_run(f"{g}-{s}", g, s, fid=v, k_t=curve) for (g, s), v in fid.items()))
    over, head, low, high, real = read_table(text, "Scores over seeds")
    assert [cell[0] for cell in over] == ["", f"[{CNN}] N=10", "last logged"]
    assert [cell[0] for cell in head] == ["settings", "seeds", "fid", "k_t"]
    for row, gamma in ((low, 0.3), (high, 0.5)):
        values = [fid[gamma, seed] for seed in (1, 2)]
        assert row[0][0] == f"gamma={gamma}"
        assert row[1][0] == "2"
        assert float(row[2][1]) == statistics.fmean(values)
        assert row[2][0] == f"{statistics.fmean(values):.4g} ± {statistics.stdev(values):.2g}"
        assert row[3] == ("0.25 ± 0", "0.25")
    assert low[2][0] == "11.81 ± 2.4"  # by hand: 3.375 / sqrt(2) = 2.386
    assert [cell[0] for cell in real] == ["real against real", "", "0.25", ""]


def test_a_mean_over_fewer_seeds_than_the_others_says_over_how_many():
    text = render(make_run("a", seed=1, fid=1.5), make_run("b", seed=2), make_run("c", 0.7))
    _, _, low, high, _ = read_table(text, "Scores over seeds")
    assert [low[1][0], low[2][0], high[2][0]] == ["2", "1.5 (n=1)", "–"]


def test_runs_that_did_not_finish_count_in_no_mean():
    text = render(make_run("a", seed=1, fid=1.5, state=FAILED), make_run("b", seed=2, fid=2.5))
    _, _, row, _ = read_table(text, "Scores over seeds")
    assert [cell[0] for cell in row] == ["all runs", "1 of 2", "2.5"]


def test_every_run_has_a_row_and_shared_settings_stand_at_the_end():
    text = render(make_run("x/a", 0.7), make_run("x/b", 0.3, state=FAILED, k_t=[(4, 1e-9)]))
    _, head, *rows = read_table(text, "Every run")
    names = ["run", "status", "loss.gamma", "seed", "k_t", "folder"]
    assert [cell[0] for cell in head] == names
    assert [[cell[0] for cell in row] for row in rows] == [
        ["1", "✗ failed at step 4", "0.3", "1", "1e-09", "x/b"],
        ["2", "✓ finished at step 4", "0.7", "1", "–", "x/a"],
    ]
    assert [cell[1] for cell in rows[0]] == ["1", "failed", "0.3", "1", "1e-09", None]
    assert "<p>2 runs: 1 finished, 1 failed. They differ in loss.gamma.</p>" in text
    details = text.split("<details>")[1]
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', details) == [("steps", "4")]


def test_one_run_differs_from_no_other():
    assert "<p>1 run: 1 finished.</p>" in render(make_run("a"))
    twins = render(make_run("a"), make_run("b"))
    assert "<p>2 runs: 2 finished. They differ in no setting.</p>" in twins


def test_only_what_is_logged_is_drawn():
    assert "<h2>Curves</h2>" not in render(make_run("a"))
    text = render(*(make_run(str(seed), seed=seed, k_t=[(1, 2.0), (2, 3.0)]) for seed in range(4)))
    part = text.split("<h2>Curves</h2>")[1].split("<h2>")[0]
    assert part.count('class="plot"') == 1
    assert part.count("<li>") == 4
    assert 'aria-label="k_t over steps, 4 runs; the last values are under Runs"' in part


def test_precision_and_recall_are_a_point_a_run(began, sweep):
    assert began("compare", f"runs={sweep}")[0] == 0
    assert "Fidelity" not in (sweep / "compare.html").read_text()
    for gamma in GAMMAS:
        for seed in SEEDS:
            write_scores(run_of(sweep, gamma, seed), precision=0.1 * seed, recall=gamma)
    write_scores(run_of(sweep, 0.5, 2), extractor=OTHER, precision=0.1, recall=0.2)
    assert began("compare", f"runs={sweep}")[0] == 0
    part = (sweep / "compare.html").read_text().split("<h2>Fidelity")[1].split("<h2>")[0]
    ours, others = part.split('class="plot"')[1:]
    numbers = [re.findall(r"<text[^>]*>([1-4]|real)</text>", each) for each in (ours, others)]
    assert numbers == [["1", "2", "3", "4", "real"], ["4", "real"]]
    assert "precision" not in ours.split("<svg")[0].lower().replace("precision over recall", "")


def test_sheets_of_a_seed_stand_in_a_row():
    png = io.BytesIO()
    Image.new("L", (6, 4), 7).save(png, format="PNG")
    compared = [make_run(f"{gamma}-{seed}", gamma, seed) for gamma in GAMMAS for seed in SEEDS]
    for run in compared:
        run.sheet, run.sheet_size, run.step = png.getvalue(), (6, 4), 12_345
    part = render(*compared).split("<h2>Samples</h2>")[1].split("<h2>")[0]
    assert re.findall(r"<h3>(.*?)</h3>", part) == ["seed 1", "seed 2"]
    captions = re.findall(r"<figcaption><b>(.*?)</b><br>(.*?)</figcaption>", part)
    assert captions == [
        *(("gamma=0.3", "run 1, step 12,345"), ("gamma=0.5", "run 3, step 12,345")),
        *(("gamma=0.3", "run 2, step 12,345"), ("gamma=0.5", "run 4, step 12,345")),
    ]
    assert 'alt="Samples of run 3: gamma=0.5, seed=1, step 12,345"' in part
    assert part.count('width="6" height="4"') == 4
    data = set(re.findall(r'src="data:image/png;base64,([^"]*)"', part))
    assert [base64.b64decode(text) for text in data] == [png.getvalue()]


# --- one file -------------------------------------------------------------------------------------


class Parser(HTMLParser):
    """Collects what a page requests, its ids and references, and pictures without a name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.requests, self.ids, self.references, self.nameless = [], [], [], []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        have = dict(attrs)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                kind = self.references if value.startswith("#") else self.requests
                kind.append(value.lstrip("#"))
            self.references += re.findall(r"url\(#(.*?)\)", value or "")
            assert "url(" not in re.sub(r"url\(#.*?\)", "", value or "")
        self.ids += [have["id"]] if "id" in have else []
        if (tag == "img" and not have.get("alt")) or (
            have.get("role") == "img" and not have.get("aria-label")
        ):
            self.nameless.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "link", "img", "br"):
            assert self.open.pop() == tag


def test_the_page_requests_nothing_and_is_well_formed(began, sweep):
    for gamma in GAMMAS:
        write_scores(run_of(sweep, gamma, 1), precision=0.5, recall=gamma)
    assert began("compare", f"runs={sweep}")[0] == 0
    text = (sweep / "compare.html").read_text()
    parsed = Parser(text)
    assert parsed.open == []
    assert {each.partition(",")[0] for each in parsed.requests} == {
        *("data:", "data:image/png;base64")
    }
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in re.search(r"<style>.*?</style>", text, re.DOTALL)[0]
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert parsed.references
    assert set(parsed.references) <= set(parsed.ids)
    assert parsed.nameless == []
    assert text.startswith("<!DOCTYPE html>\n")


def test_every_text_is_escaped():
    name, escaped = "<script>alert('&\")", "&lt;script&gt;alert(&#39;&amp;&#34;)"
    run = make_run(name, k_t=[(1, 2.0)])
    run.settings |= {"loss.name": name, "seed": name}
    run.status = name
    for score in ("precision", "recall"):
        run.scores[Column(score, name, 10, "", "")] = Score(0.5, 0.5)
    run.sheet = b"x"
    text = render(run, make_run("b"), warnings=[name], title=name, samples=name)
    assert text.count("<script>") == 1
    assert "<script>alert" not in text
    assert text.count(escaped) > 10
    assert Parser(text).open == []


def test_the_same_runs_give_the_same_bytes():
    def once():
        return render(make_run("a", k_t=[(1, 2.0)]), make_run("b", 0.7, fid=3.0))

    assert once() == once()


# --- in a browser ---------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WATCH = "<script>window.wrong = []; onerror = m => { wrong.push(m); };</script>"
LOOK = """<script>onload = () => {
  const column = [...document.querySelectorAll("thead")].pop().rows[1];
  const body = column.closest("table").tBodies[0];
  const names = () => [...body.rows].map(row => row.cells[0].textContent).join("");
  const button = [...column.cells].find(c => c.textContent.startsWith("seed")).firstChild;
  const seen = [names()];
  button.click(); seen.push(names()); button.click(); seen.push(names());
  const shown = [...document.images].filter(image => image.naturalWidth > 0).length;
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.body.textContent = JSON.stringify({seen, shown, wide, wrong});
};</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser(began, sweep, tmp_path, width):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser here")
    assert began("compare", f"runs={sweep}")[0] == 0
    text = (sweep / "compare.html").read_text().replace("<head>", f"<head>{WATCH}")
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{LOOK}</body>"))
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    line += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    line += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},800"]
    done = subprocess.run(
        [*line, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    found = json.loads(unescape(re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)[1]))
    assert found == {"seen": ["1234", "1324", "2413"], "shown": 4, "wide": False, "wrong": []}
