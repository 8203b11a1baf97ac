"""The comparison of what happens after the clustering, as a user starts it."""

import csv
from pathlib import Path

import pytest
import refinement as refinement
import torch
from example_runs import run
from paths import PROJECT

from probemb_lib import GaussianEmbedding, greedy_cluster, refine_instances


def test_ways() -> None:
    g = torch.Generator().manual_seed(0)
    x = GaussianEmbedding(torch.randn((300, 3), generator=g), torch.full((300, 1), -0.5))
    p = torch.rand((300, 4), generator=g)
    plain = greedy_cluster(x, p, threshold=0.6)
    refined = refine_instances(x, p, plain)
    by_name = {name: way(x, p, plain) for name, way in refinement.ways(0, refinement.Options(min_points=10)).items()}
    assert torch.equal(by_name["seed decides (paper)"].label, plain.label)
    assert torch.equal(by_name["points moved"].label, refined.label)
    assert set(by_name["points moved"].score.tolist()) <= set(plain.score.tolist())
    assert torch.equal(by_name["members vote"].label, plain.label)
    assert not torch.equal(by_name["members vote"].score, plain.score)
    assert torch.equal(by_name["refined: both"].score, refined.score)
    sizes = by_name["small ones dropped"].size
    assert sizes.min() >= 10
    assert len(sizes) < len(plain)


def test_command(tmp_path: Path) -> None:
    done = run(PROJECT / "studies" / "refinement.py", "--points", 600, "--resamples", 20, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "refinement.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    values = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert list(values) == list(refinement.ways(None, refinement.Options()))
    paper, refined = values[refinement.PAPER], values["refined: both"]
    for split in ("val", "test"):
        assert paper[f"{split} difference"] == ""
        gain = float(refined[f"{split} @0.5"]) - float(paper[f"{split} @0.5"])
        assert float(refined[f"{split} difference"]) == pytest.approx(gain, abs=0.02)
        low, high = (float(part) for part in refined[f"{split} 95 %"].split(" … "))
        assert low <= gain + 0.1
        assert high >= gain - 0.1
