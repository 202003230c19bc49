import json
import math

import pytest
import torch
from conftest import TINY, Grey, settings

from began_cli.data import sources
from began_cli.errors import UserError
from began_cli.evaluation import scores
from began_cli.gan import latents
from began_cli.training.scorer import Scorer

PIXELS = ("evaluation.extractor=pixels", "evaluation.n=50", "evaluate_every=1")


def scorer(*overrides: str, count: int = 200) -> tuple[Scorer, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8, generator=generator)
    cfg = settings("train", *TINY, *PIXELS, *overrides)
    return Scorer(cfg, sources.Source(pixels, "here")), pixels


def test_the_score_is_that_of_fixed_latents_against_fixed_real_images(tmp_path):
    score_of, pixels = scorer()
    state = torch.get_rng_state()
    score = score_of(Grey())
    assert torch.equal(torch.get_rng_state(), state)
    z = latents.from_seeds(range(1_000_000, 1_000_050), 8)[:, :1]
    fake = (((z + 1) * 127.5).round() / 255).expand(-1, 256)
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    first, second = ((pixels[part] / 255).flatten(1) for part in (rows[:50], rows[50:100]))
    assert score.value == pytest.approx(scores.fid(fake, first), rel=1e-5)
    assert score.floor == pytest.approx(scores.fid(second, first), rel=1e-5)
    assert score.floor_n == 50
    assert score_of(Grey()) == score

    score_of.record(tmp_path, score, 4)
    (record,) = json.loads((tmp_path / "evaluation.json").read_text())["evaluations"]
    assert (record["checkpoint"], record["step"], record["n"]) == ("step-00000004.pt", 4, 50)
    assert record["kid_subset"] == 50  # no more than there are images
    assert record["bins"] == 100  # the default of `began evaluate`
    assert record["scores"]["fid"]["value"] == score.value


def test_better_is_lower_or_higher_by_the_score():
    fid, coverage = scorer()[0], scorer("evaluation.score=coverage")[0]
    label = fid.judges.extractor.label
    assert fid.better(5.0, {})
    for value, is_fid, is_coverage in ((0.4, True, False), (0.6, False, True)):
        assert fid.better(value, {"score": "fid", "extractor": label, "value": 0.5}) is is_fid
        best = {"score": "coverage", "extractor": label, "value": 0.5}
        assert coverage.better(value, best) is is_coverage
    assert not fid.better(math.nan, {})
    assert fid.better(9.0, {"score": "kid", "extractor": label, "value": 0.5})
    assert fid.better(9.0, {"score": "fid", "extractor": "other@1", "value": 0.5})


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match=r"evaluation\.n=4: coverage wants 6 or more"):
        scorer("evaluation.n=4", "evaluation.score=coverage")
    with pytest.raises(UserError, match="4 real images: coverage wants 6 or more"):
        scorer("evaluation.score=coverage", count=8)
    with pytest.raises(UserError, match="scores=is: pixels gives no classes"):
        scorer("evaluation.score=is")
