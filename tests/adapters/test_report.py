"""The HTML report: what lies in the file, and what a browser draws of it."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import CHROME, Browser, open_browser
from matplotlib.image import imread

from probemb_adapters.report import (
    Chart,
    Line,
    Row,
    Section,
    Table,
    fit_chart,
    loss_chart,
    precision_recall_charts,
    write_report,
)
from probemb_adapters.report.overlays import ImageResult
from probemb_adapters.report.pictures import ShapeResult
from probemb_lib import GaussianEmbedding, Instances, ThresholdFit
from probemb_lib.metrics import PartNetAP

HOSTILE = '</script><script>throw "escaped"</script><b>&"\'%{x}'


def instances(label: torch.Tensor, classes: list[int], mean: torch.Tensor) -> Instances:
    count = len(classes)
    seed = torch.tensor([int((label == k).nonzero()[0]) for k in range(count)], dtype=torch.int64)
    zero = torch.zeros(count, dtype=torch.int64)
    gaussians = GaussianEmbedding(mean[seed], torch.zeros(count, 1))
    score = 1 - 0.1 * torch.arange(count)
    return Instances(label, torch.tensor(classes), score, seed, zero, gaussians, torch.zeros_like(label))


def make_shape(name: str = "shape", points: int = 900, dim: int = 3, *, truth: bool = True) -> ShapeResult:
    """Three true blobs; the first is found, the second is found with the wrong class, the third half: 1 right."""
    generator = torch.Generator().manual_seed(points)
    true = torch.arange(points) % 3
    pos = torch.rand(points, 3, generator=generator) + 1.5 * true[:, None] * torch.tensor([1.0, 0.4, 0.0])
    label = torch.where((true == 2) & (torch.arange(points) % 2 == 0), -1, true)
    mean = torch.cat([pos] * 2, 1)[:, :dim]
    log_std = torch.rand(points, dim, generator=generator) - 3
    found = instances(label, [1, 2, 1], mean)
    classes = torch.tensor([1, 1, 1])
    return ShapeResult(
        name, pos, true if truth else None, found, log_std, mean, truth_classes=classes if truth else None
    )


def make_image(name: str = "image", *, right: bool = True, truth: bool = True) -> ImageResult:
    """Two true squares, of which the first may be found."""
    label = np.zeros((32, 32), np.int64)
    label[4:12, 4:12], label[20:28, 20:28] = 1, 2
    found = np.where(label == 1, 1, 0) if right else np.roll(label, 8)
    unsure = np.linspace(0.2, 0.6, 32 * 32).reshape(32, 32)
    return ImageResult(name, label * 20.0, label if truth else None, found, unsure)


def make_metric() -> PartNetAP:
    metric = PartNetAP(2, iou_thresholds=(0.5, 0.75))
    shape = make_shape()
    metric.update_labels(
        shape.found.label, shape.found.semantic - 1, shape.found.score, shape.truth, shape.truth_classes - 1
    )
    return metric


class Page(HTMLParser):
    """Text outside scripts, tags, and the JSON of each script by its id."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.data, self.scripts = "", [], {}, 0
        self._inside: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id") or tag + str(len(self.tags))
            self.data[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self.text += data
        else:
            self.data[self._inside] += data


def array(spec: dict[str, str]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(spec["bdata"]), np.dtype("<" + spec["dtype"]))


def columns(spec: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array(spec["low"]) + np.array(spec["scale"]) * array(spec["values"]).reshape(-1, len(spec["low"]))


def payload(path: Path, key: str = "shape-0-0") -> dict[str, Any]:
    return json.loads(Page(path).data[key])


def test_payload_holds_the_numbers_of_the_shape(tmp_path: Path) -> None:
    shape = make_shape()
    data = payload(
        write_report(tmp_path / "r.html", "t", [Section("s", shapes=[shape], classes=["none", "leg", "top"])])
    )
    x, y, z = shape.pos.T
    np.testing.assert_allclose(columns(data["input"]), torch.stack([x, -z, y], 1), atol=1e-4)  # z up
    np.testing.assert_allclose(columns(data["sigma"]), shape.log_std, atol=1e-4)
    np.testing.assert_allclose(array(data["unsure"]) / 255, shape.uncertainty(), atol=1 / 255)
    np.testing.assert_allclose(columns(data["mean"])[:-3], torch.stack([x, -z, y], 1), atol=1e-4)
    np.testing.assert_array_equal(array(data["truth"]["label"]), shape.truth)
    np.testing.assert_array_equal(array(data["found"]["label"]), shape.found.label)
    found, true = data["found"]["instances"], data["truth"]["instances"]
    assert [f["match"] for f in found] == [0, -1, -1]
    assert [t["match"] for t in true] == [0, -1, -1]
    assert [f["best"] for f in found] == [[0, 1.0], [1, 1.0], [2, 0.5]]
    assert [f["class"] for f in found] == ["leg", "top", "leg"]
    assert [f["points"] for f in found] == [300, 300, 150]
    assert (data["right"], data["true"], data["false"]) == (1, 3, 2)
    assert found[0]["color"] == true[0]["color"] == true[0]["own"]
    red = [tuple(bytes.fromhex(f["color"][1:])) for f in found[1:]]
    assert all(r > 150 and max(g, b) < 0.65 * r for r, g, b in red)
    dark = [tuple(bytes.fromhex(t["color"][1:])) for t in true[1:]]
    assert all(max(color) < 100 for color in dark)
    assert data["sigma"]["axes"] == ["σx", "σy", "σz"]


def test_without_truth_nothing_is_judged(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", "t", [Section("s", shapes=[make_shape(truth=False)])])
    data, page = payload(path), Page(path)
    assert data["truth"] is data["true"] is data["false"] is None
    assert "match" not in data["found"]["instances"][0]
    assert "truth" not in [a.get("data-kind") for _, a in page.tags if a.get("data-kind")]
    assert "Red" not in page.text
    assert "false" not in page.text


def test_dimensions_colours_and_up(tmp_path: Path) -> None:
    flat = make_shape(dim=2)._replace(rgb=torch.full((900, 3), 0.5), up="z", log_std=torch.zeros(900, 1))
    six = make_shape(dim=6)._replace(rgb=torch.full((900, 3), 200, dtype=torch.uint8))
    path = write_report(tmp_path / "r.html", "t", [Section("s", shapes=[flat, six, make_shape()._replace(mean=None)])])
    data, more, none = (payload(path, f"shape-0-{i}") for i in range(3))
    assert (data["mean"]["dim"], len(data["mean"]["low"]), data["sigma"]["axes"]) == (2, 2, ["σ"])
    assert set(array(data["rgb"])) == {128}
    np.testing.assert_allclose(columns(data["input"]), flat.pos, atol=1e-4)
    assert (more["mean"]["dim"], len(more["mean"]["low"])) == (6, 3)
    assert more["sigma"]["axes"] == [f"σ{a}" for a in range(1, 7)]
    assert set(array(more["rgb"])) == {200}
    assert none["mean"] is None


def test_subsampling_keeps_points_of_each_instance(tmp_path: Path) -> None:
    shape = make_shape(points=30_000)
    label = torch.zeros(30_000, dtype=torch.int64)
    label[7] = 1  # a single point among 30,000
    shape = shape._replace(found=instances(label, [1, 1], shape.mean), truth=label, truth_classes=None)
    path = write_report(tmp_path / "r.html", "t", [Section("s", shapes=[shape])], max_points=500)
    data = payload(path)
    assert (data["drawn"], data["points"]) == (500, 30_000)
    assert [f["points"] for f in data["found"]["instances"]] == [29_999, 1]
    drawn = array(data["found"]["label"])
    assert len(drawn) == 500
    assert set(drawn) == {0, 1}
    x, y, z = shape.pos[7]
    np.testing.assert_allclose(columns(data["input"])[drawn == 1], [[x, -z, y]], atol=1e-3)


def test_more_instances_than_sixteen_bits(tmp_path: Path) -> None:
    count = 40_000
    shape = ShapeResult("many", torch.rand(count, 3), None, instances_of_one_point(count), torch.zeros(count, 1))
    data = payload(write_report(tmp_path / "r.html", "t", [Section("s", shapes=[shape])], max_points=count))
    np.testing.assert_array_equal(array(data["found"]["label"]), np.arange(count))


def instances_of_one_point(count: int) -> Instances:
    rows, zero = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    return Instances(
        rows, zero, torch.ones(count), rows, zero, GaussianEmbedding(torch.zeros(count, 3), torch.zeros(count, 1)), zero
    )


def test_names_stay_text(tmp_path: Path) -> None:
    section = Section(
        HOSTILE,
        HOSTILE,
        [make_shape(HOSTILE)],
        [Table(HOSTILE, [HOSTILE], [Row(HOSTILE, [HOSTILE], True)], HOSTILE, HOSTILE)],
        [Chart(HOSTILE, HOSTILE, HOSTILE, [Line(HOSTILE, [0, 1], [0, float("nan")])], HOSTILE, (0.5, HOSTILE))],
        [HOSTILE] * 3,
        HOSTILE,
        HOSTILE,
    )
    settings = {HOSTILE: {HOSTILE: HOSTILE}}
    path = write_report(tmp_path / "r.html", HOSTILE, [section], text=HOSTILE, settings=settings)
    page = Page(path)
    assert payload(path)["name"] == HOSTILE
    assert sum(tag == "script" for tag, _ in page.tags) == 4  # shape, chart, plotly, page.js
    assert page.text.count(HOSTILE) >= 12


def test_tables_and_settings(tmp_path: Path) -> None:
    table = Table("mAP", ["IoU 0.5", "n"], [Row("ours", [12.345, 7]), Row("theirs", [None, float("nan")], quoted=True)])
    text = "One.\n\nTwo."
    path = write_report(
        tmp_path / "r.html", "t", [Section("s", text, tables=[table])], settings={"a": 1, "b": {"c": 2}}
    )
    html, page = path.read_text(encoding="utf-8"), Page(path)
    assert '<tr><th scope="row">ours</th><td>12.3</td><td>7</td></tr>' in html
    assert '<tr class="quoted"><th scope="row">theirs *</th><td>–</td><td>–</td></tr>' in html
    assert "<p>One.</p><p>Two.</p>" in html
    assert "<th>a</th><td>1</td>" in html
    assert "<th>b c</th><td>2</td>" in html
    assert f"<th>versions torch</th><td>{torch.__version__}</td>" in html
    assert "How to read" not in page.text  # there is no picture
    assert not [a for _, a in page.tags if {"src", "href"} & a.keys()]  # nothing is fetched


def test_equal_input_gives_equal_files_and_leaves_no_other(tmp_path: Path) -> None:
    first = write_report(tmp_path / "a.html", "t", [Section("s", shapes=[make_shape()])], max_points=100)
    second = write_report(str(tmp_path / "b.html"), "t", [Section("s", shapes=[make_shape()])], max_points=100)
    assert first.read_bytes() == second.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"a.html", "b.html"}


def test_many_shapes_stay_below_six_megabytes(tmp_path: Path) -> None:
    shapes = [make_shape(points=10_000, dim=dim)._replace(rgb=torch.zeros(10_000, 3)) for dim in (3, 6)] * 15
    sections = [Section("s", shapes=shapes), Section("of few", shapes=shapes[:1])]
    path = write_report(tmp_path / "r.html", "t", sections)
    assert path.stat().st_size < 6e6
    assert payload(path, "shape-0-29")["drawn"] == 100_000 // 31
    assert payload(write_report(path, "t", sections[1:]))["drawn"] == 8_000


def test_small_shapes_are_drawn_whole(tmp_path: Path) -> None:
    shapes = [make_shape(points=900)] * 20 + [make_shape(points=60_000)] * 20
    path = write_report(tmp_path / "r.html", "t", [Section("s", shapes=shapes)])
    assert payload(path)["drawn"] == 900
    assert payload(path, "shape-0-39")["drawn"] == (100_000 - 20 * 900) // 20


def test_images_lie_in_the_page(tmp_path: Path) -> None:
    """One row an image, that of the median open; pixels as they were drawn."""
    images = [make_image("none", right=False), make_image(HOSTILE), make_image("as much")]
    path = write_report(tmp_path / "r.html", "t", [Section("s", images=images, noun="cell", item="image")])
    page = Page(path)
    rows = [a for _, a in page.tags if a.get("class") == "row"]
    assert [("hidden" in a, a["id"]) for a in rows] == [(True, "image-0-0"), (False, "image-0-1"), (True, "image-0-2")]
    assert "3 images: 2 of 6 cells found, 2 false detections" in page.text
    assert "1 of 2 found" in page.text
    assert "1 missed" in page.text
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 3 * 4
    assert pictures[7]["alt"] == f"Uncertainty: {HOSTILE}"
    image = imread(io.BytesIO(base64.b64decode(pictures[6]["src"].removeprefix("data:image/webp;base64,"))), "webp")
    assert image.shape == (32, 32, 3)
    assert np.ptp(image[6:10, 6:10].astype(int), axis=2).min() > 40  # the found one has a colour
    assert np.ptp(image[22:26, 22:26].astype(int), axis=2).max() < 40  # what is not found has none


def test_the_command_is_told(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", "t", [Section("s", command="python <script>")])
    assert "<code>python &lt;script&gt;</code>" in path.read_text(encoding="utf-8")


def test_the_page_opens_on_the_median_shape(tmp_path: Path) -> None:
    """By right, false and missed instances; the first where nothing is judged."""
    half = make_shape()  # 1 right, 2 false, 2 missed
    none = half._replace(truth=torch.full((900,), -1), truth_classes=torch.zeros(0, dtype=torch.int64))
    all_right = half._replace(truth=half.found.label, truth_classes=half.found.semantic)

    def opened(shapes: list[ShapeResult]) -> list[str | None]:
        tags = Page(write_report(tmp_path / "r.html", "t", [Section("s", shapes=shapes)])).tags
        return [a["data-shape"] for _, a in tags if a.get("aria-pressed") == "true"]

    assert opened([all_right, half, none]) == opened([none, half, all_right]) == ["shape-0-1"]
    assert opened([all_right, none, half]) == ["shape-0-2"]
    assert opened([make_shape(truth=False), all_right, half]) == ["shape-0-2"]  # of two the lesser
    assert opened([make_shape(truth=False)] * 3) == ["shape-0-0"]


def test_precision_recall_charts() -> None:
    metric = make_metric()
    charts = precision_recall_charts({"one": metric, "two": metric}, ["leg", "top"])
    assert [c.title.split()[-1] for c in charts] == ["0.5", "0.75"]
    assert [line.name for line in charts[0].lines] == ["one: leg", "two: leg"]  # no top in the ground truth
    precision, recall = metric.curve(0, 0.5)
    np.testing.assert_array_equal(charts[0].lines[0].x, recall)
    np.testing.assert_array_equal(charts[0].lines[0].y, precision)
    assert [line.name for line in precision_recall_charts({"one": metric}, ["leg", "top"])[0].lines] == ["leg"]
    single = PartNetAP(1, iou_thresholds=(0.5,))
    zero = torch.zeros(1, dtype=torch.int64)
    single.update_labels(zero, zero, torch.ones(1), zero, zero)
    assert [line.name for line in precision_recall_charts({"one": single}, ["part"])[0].lines] == ["one"]


def test_charts_of_a_run() -> None:
    fit = fit_chart(ThresholdFit(0.3, 0.7, (0.1, 0.3), (0.5, 0.7)))
    assert fit.mark == (0.3, "τ = 0.3")
    assert (list(fit.lines[0].x), list(fit.lines[0].y)) == ([0.1, 0.3], [0.5, 0.7])
    assert list(loss_chart([3.0, 2.0]).lines[0].x) == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": torch.zeros(900, 2)}, r"pos \(N, 3\)"),
        ({"pos": torch.full((900, 3), torch.nan)}, "pos is not finite"),
        ({"truth": torch.zeros(5, dtype=torch.int64)}, r"truth \(900,\)"),
        ({"log_std": torch.zeros(4, 3)}, r"log_std \(900, D\)"),
        ({"mean": torch.full((900, 3), torch.inf)}, "mean is not finite"),
        ({"rgb": torch.zeros(900, 4)}, r"rgb \(900, 3\)"),
        ({"truth_classes": torch.tensor([1, 9, 1])}, "class 9 has no name"),
    ],
)
def test_wrong_shapes(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    section = Section("s", shapes=[make_shape()._replace(**change)], classes=["none", "leg", "top"])
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "r.html", "t", [section])
    assert not list(tmp_path.iterdir())


def test_wrong_arguments(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    with pytest.raises(ValueError, match="at least one section"):
        write_report(path, "t", [])
    with pytest.raises(ValueError, match="max_points"):
        write_report(path, "t", [Section("s")], max_points=0)
    with pytest.raises(ValueError, match="2 values, one a column, got 1"):
        write_report(path, "t", [Section("s", tables=[Table("mAP", ["a", "b"], [Row("ours", [1])])])])
    with pytest.raises(ValueError, match="as many x as y"):
        write_report(path, "t", [Section("s", charts=[Chart("c", "x", "y", [Line("l", [1], [1, 2])])])])
    with pytest.raises(ValueError, match="at least one evaluator"):
        precision_recall_charts({}, [])
    with pytest.raises(ValueError, match="expected thresholds"):
        precision_recall_charts({"one": make_metric()}, ["leg"])


# --- in a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A report of two sections, open in a browser."""
    if CHROME is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail("REQUIRE_BROWSER=1, but neither chromium nor google-chrome is on the PATH")
        pytest.skip("neither chromium nor google-chrome is on the PATH")
    folder = tmp_path_factory.mktemp("report")
    charts = precision_recall_charts({"ours": make_metric()}, ["leg", "top"])
    other = make_shape(HOSTILE, dim=2, truth=False)._replace(log_std=torch.zeros(900, 1))
    sections = [
        Section("first", "", [make_shape(), other], charts=charts * 4, classes=["none", "leg <i>", "top"], unit="m"),
        Section("last", shapes=[make_shape(dim=6)._replace(rgb=torch.rand(900, 3))]),
        Section("images", images=[make_image("one"), make_image("two", truth=False)]),
    ]
    path = write_report(folder / "report.html", "title", sections)
    profile = folder / "profile"
    profile.mkdir()
    with open_browser(profile, width=1300, height=900) as browser:
        browser.call("Page.navigate", url=path.as_uri())
        browser.until('document.readyState === "complete"')
        browser.run(HELPERS)
        browser.until("drawn(first())")
        yield browser


HELPERS = """
const first = () => document.querySelectorAll(".viewer")[0], last = () => document.querySelectorAll(".viewer")[1];
const panels = (v) => [...v.querySelectorAll(".panel:not([hidden])")];
const drawn = (v) => panels(v).every((p) => p.dataset.state === "drawn" && p.querySelector("canvas"));
const plot = (v, kind) => v.querySelector(`[data-kind="${kind}"] .plot`);
const key = (v, kind) => v.querySelector(`[data-kind="${kind}"] .key`).textContent;
const eyes = (v) => panels(v).map((p) => p.querySelector(".plot")._fullLayout.scene.camera.eye);
const rows = (v) => [...v.querySelectorAll(".instances tbody tr")];
const pick = (v, kind, i) => {
  const list = v.querySelector(`[data-kind="${kind}"] .choice select`);
  list.selectedIndex = i;
  list.dispatchEvent(new Event("change"));
};
const press = (v, kind, i) => v.querySelectorAll(`[data-kind="${kind}"] .choice button`)[i].click();
const chip = (i) => first().querySelectorAll(".chip")[i].click();
const distinct = (x) => [...new Set(x)].sort();
"""


def box(page: Browser, kind: str) -> list[int]:
    """Left, top, right and bottom of a panel of the first section in the window."""
    sides = "[r.left, r.top, r.right, r.bottom].map(Math.round)"
    return page.run(f'(() => {{ const r = plot(first(), "{kind}").getBoundingClientRect(); return {sides}; }})()')


def show_first_section(page: Browser) -> None:
    page.run('first().querySelector(".row").scrollIntoView({ block: "center" })')
    page.until("drawn(first())")


def test_the_panels_are_drawn(page: Browser, tmp_path: Path) -> None:
    show_first_section(page)
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    image = imread(page.screenshot(tmp_path / "page.png"))[..., :3]
    r, g, b = (image[..., i] for i in range(3))
    expected = {
        "input": (abs(r - g) < 0.05) & (r < 0.85),
        "truth": image.max(-1) < 0.4,  # missed
        "found": (r > 0.6) & (g < 0.4) & (b < 0.4),  # false
        "sigma": (g > 0.5) & (b < 0.6),  # the upper half of viridis
        "mean": (r > 0.6) & (g < 0.4) & (b < 0.4),
    }
    assert page.run("panels(first()).map((p) => p.dataset.kind)") == list(expected)
    for kind, ink in expected.items():
        left, top, right, bottom = box(page, kind)
        assert 0 <= top < bottom <= 900
        assert ink[top:bottom, left:right].mean() > 0.01, kind
        assert image[top:bottom, left:right].min(-1).mean() > 0.5, f"{kind}: the ground must be white"
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.problems == [page.run("location.href")]  # nothing but the page itself was asked for


def test_the_panels_say_what_they_show(page: Browser) -> None:
    show_first_section(page)
    page.until("rows(first()).length")
    lines = page.run("rows(first()).map((r) => [...r.cells].map((c) => c.textContent))")
    verdicts = ["found", "false detection: another class", "false detection", "missed: another class", "missed"]
    assert [line[0] for line in lines] == verdicts
    assert lines[0][1:] == ["found 1 = true 1", "leg <i>", "1.00", "1.00", "300"]
    assert page.run('key(first(), "truth")') == "1 of 3 found2 missed"
    assert page.run('key(first(), "found")') == "1 right2 false"
    hover = page.run('distinct(plot(first(), "found").data[0].text)')
    assert hover[0] == "<b>found instance 1</b> · leg &lt;i&gt;<br>score 1.00<br>IoU 1.00 with true instance 1"
    assert hover[1].endswith("<b>false</b>: IoU 1.00 with true instance 2 of another class")
    assert hover[2].endswith("<b>false</b>: IoU 0.50 with true instance 3")
    color = page.run('[...plot(first(), "sigma").data[0].marker.color]')
    shape = make_shape()
    np.testing.assert_allclose(color, shape.uncertainty()[shape.found.label >= 0], atol=1 / 255)
    assert page.run('plot(first(), "sigma").data[1].x.length') == (shape.found.label < 0).sum()
    page.run('pick(first(), "sigma", 2)')
    page.until('drawn(first()) && key(first(), "sigma").endsWith("σy in m")')
    color = page.run('[...plot(first(), "sigma").data[0].marker.color.slice(0, 5)]')
    np.testing.assert_allclose(color, make_shape().log_std[:5, 1], atol=1e-4)
    page.run('press(first(), "truth", 1)')
    page.until('drawn(first()) && !plot(first(), "truth").data[0].marker.color.includes("#4a4a52")')
    page.run('press(first(), "truth", 0)')
    page.until('drawn(first()) && plot(first(), "truth").data[0].marker.color.includes("#4a4a52")')


def test_a_line_of_the_list_is_shown_alone(page: Browser) -> None:
    show_first_section(page)
    colors = 'distinct(plot(first(), "found").data[0].marker.color).length'
    assert page.run(colors) == 4  # three instances and none
    page.run("rows(first())[1].click()")
    page.until(f"drawn(first()) && {colors} === 2")  # it, and all else in one pale colour
    page.run("rows(first())[1].click()")
    page.until(f"drawn(first()) && {colors} === 4")


def test_the_mouse_turns_all_panels(page: Browser) -> None:
    show_first_section(page)
    before = page.run("eyes(first())")
    left, top, right, bottom = box(page, "input")
    x, y = (left + right) / 2, (top + bottom) / 2
    page.mouse("mouseMoved", x, y)
    page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    for step in range(1, 6):
        page.mouse("mouseMoved", x + 12 * step, y, button="left", buttons=1)
    page.mouse("mouseReleased", x + 60, y, button="left", clickCount=1)
    turned = f"Math.abs(eyes(first())[0].x - {before[0]['x']}) > 0.1"
    page.until(f"{turned} && eyes(first()).every((e) => Math.abs(e.x - eyes(first())[0].x) < 1e-6)")
    page.run('first().querySelector(".reset").click()')
    page.until(f"eyes(first()).every((e) => Math.abs(e.x - {before[0]['x']}) < 1e-6)")


def test_the_wheel_scrolls_the_page_and_zooms_with_control(page: Browser) -> None:
    show_first_section(page)
    eye, scroll = page.run("[eyes(first())[0].x, scrollY]")
    left, top, right, bottom = box(page, "input")
    place = ((left + right) / 2, (top + bottom) / 2)
    page.mouse("mouseWheel", *place, deltaX=0, deltaY=40)
    page.until(f"scrollY > {scroll}")
    assert page.run("eyes(first())[0].x") == eye
    page.mouse("mouseWheel", *place, deltaX=0, deltaY=-40, modifiers=2)
    page.until(f"eyes(first()).every((e) => e.x < {eye} - 1e-3)")
    page.run('first().querySelector(".reset").click()')
    page.until(f"eyes(first()).every((e) => Math.abs(e.x - {eye}) < 1e-6)")


def test_another_shape_without_truth(page: Browser) -> None:
    show_first_section(page)
    page.run("chip(1)")
    page.until("panels(first()).length === 4 && drawn(first())")
    assert page.run("panels(first()).map((p) => p.dataset.kind)") == ["input", "found", "sigma", "mean"]
    assert page.run('first().querySelector(".name").textContent').startswith(HOSTILE)
    choices = "[...first().querySelectorAll('[data-kind=sigma] .choice button')].map((b) => b.textContent)"
    assert page.run(choices) == ["point", "σ"]  # one for all axes
    assert page.run('plot(first(), "mean")._fullLayout.scene.camera.eye.z') > 1  # a plane, from above
    page.run("chip(0)")
    page.until("panels(first()).length === 5 && drawn(first())")


def test_a_panel_grows(page: Browser) -> None:
    show_first_section(page)
    canvas = "first().querySelector('[data-kind=found] canvas').clientWidth"
    small = page.run(canvas)
    page.run("first().querySelector('[data-kind=found] .enlarge').click()")
    page.until(f"{canvas} > 3 * {small}")
    page.run("first().querySelector('[data-kind=found] .enlarge').click()")
    page.until(f"{canvas} === {small}")


def test_sections_out_of_view_hold_no_contexts(page: Browser) -> None:
    for _ in range(2):  # 25 contexts by then, a browser keeps about 16
        page.run("last().scrollIntoView({ block: 'center' })")
        page.until("drawn(last()) && !first().querySelector('canvas')")
        assert page.run('document.querySelectorAll("canvas").length') == 5
        assert page.run('key(last(), "mean")').endswith("axes 1 to 3 of 6")
        axes = page.run("[...last().querySelectorAll('[data-kind=sigma] option')].map((o) => o.textContent)")
        assert axes == ["point", *(f"σ{a}" for a in range(1, 7))]
        show_first_section(page)
        page.until("!last().querySelector('canvas')")
    page.run('document.querySelector(".charts").scrollIntoView()')
    page.until('document.querySelector(".chart").dataset.state === "drawn"')
    assert page.run("document.querySelector('.chart .plot').data[0].name") == "leg"
    assert page.run('document.getElementById("errors").hidden')
    assert page.problems == [page.run("location.href")]


def test_another_image(page: Browser) -> None:
    shown = "[...document.querySelectorAll('.images .row')].filter((r) => r.offsetParent).map((r) => r.id)"
    assert page.run(shown) == ["image-2-0"]
    page.run("document.querySelectorAll('.images .chip')[1].click()")
    assert page.run(shown) == ["image-2-1"]
    heads = "[...document.querySelectorAll('#image-2-1 figcaption span')].map((s) => s.textContent)"
    assert page.run(heads) == ["Input", "Prediction", "Uncertainty"]
    width = "document.querySelector('#image-2-1 img').clientWidth"
    small = page.run(width)
    page.run("document.querySelector('#image-2-1 .enlarge').click()")
    assert page.run(width) > 2 * small


def test_an_error_is_shown(page: Browser) -> None:
    page.run('void setTimeout(() => { throw new Error("made <b> by the test"); })')
    page.until('document.getElementById("errors").textContent.includes("made <b> by the test")')
