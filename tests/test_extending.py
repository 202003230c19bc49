"""A loss and a data set added from outside, as CONTRIBUTING.md describes it."""

import json

import pytest
import torch
from torch.nn import functional as F

from began_cli.data import sources
from began_cli.data.sources import Judge, Source, data_set
from began_cli.gan import losses
from began_cli.gan.losses import ScoreLoss
from began_cli.settings import fields
from began_cli.settings.checks import above_zero, at_least
from began_cli.settings.fields import option, setting
from began_cli.settings.parse import register_schemas
from began_cli.settings.train import DatasetConfig, ScoreLossConfig

LOSS_YAML = """# @package _global_
defaults:
  - /loss_hinge_schema
  - override /model: dcgan
  - _self_
loss: {name: hinge, slope: 2.0, pack: 1}
"""
DATA_YAML = """# @package _global_
defaults:
  - /dataset_stripes_schema
  - _self_
dataset:
  {name: stripes, period: 4, image_size: 16, channels: 1, width: 2, margin: 10, r1: 0, device: auto}
"""


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A folder with two YAML files, beside two classes and a function that are known to began."""
    for table in (*fields.GROUPS.values(), losses._CLASSES, sources._LOADERS, sources._JUDGES):
        for key in table:
            monkeypatch.setitem(table, key, table[key])

    @option("loss", "hinge")
    class HingeLossConfig(ScoreLossConfig):
        slope: float = setting(above_zero())

    class Hinge(ScoreLoss, settings=HingeLossConfig):
        def __init__(self, c, image_shape):
            super().__init__(c, image_shape)
            self.slope = c.slope

        def real(self, values):
            return F.relu(1 - self.slope * values).mean()

        def fake(self, values):
            return F.relu(1 + self.slope * values).mean()

        def generator(self, values, output):
            return -values.mean()

    @option("dataset", "stripes")
    class StripesDatasetConfig(DatasetConfig):
        period: int = setting(at_least(2))

    @data_set("stripes", Judge(samples=500))
    def load_stripes(c, glance):
        columns = torch.arange(c.image_size) + torch.arange(c.period)[:, None]
        rows = (columns % c.period < c.period // 2).byte() * 255
        images = rows[:, None, None].expand(-1, 1, c.image_size, -1).repeat(8, 1, 1, 1)
        return Source(images, "stripes")

    register_schemas()
    for group, name, text in (("loss", "hinge", LOSS_YAML), ("dataset", "stripes", DATA_YAML)):
        path = tmp_path / "conf" / group / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    yield tmp_path / "conf"
    for table, name in (
        (fields.GROUPS["loss"], "hinge"),
        (fields.GROUPS["dataset"], "stripes"),
        (losses._CLASSES, HingeLossConfig),
        (sources._LOADERS, "stripes"),
        (sources._JUDGES, "stripes"),
    ):
        del table[name]


def test_a_loss_and_a_data_set_of_ones_own_train_and_sample(began, conf, tmp_path):
    line = ["--config-dir", str(conf), "loss=hinge", "dataset=stripes", "steps=3", "log_every=1"]
    code, out, err = began("train", *line, "batch_size=4", f"hydra.run.dir={tmp_path}/run")
    assert code == 0, (out, err)
    logs = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(logs) == 3
    assert all(0 <= log["train/loss_d"] < 100 for log in logs)
    code, out, err = began("sample", f"ckpt={tmp_path}/run", "n=2", "format=npz", f"out={tmp_path}")
    assert code == 0, (out, err)
    code, out, err = began("train", *line, "loss.slope=0")
    assert (code, err.strip()) == (2, "began train: loss.slope=0.0: wants a number above 0")
    code, out, err = began("train", *line, "dataset.period=1")
    assert code == 2
    assert "dataset.period=1: wants a whole number, 2 or more" in err


def test_its_judge_stands_with_the_data_set(conf):
    assert sources.judge("stripes") == Judge(classifier=None, samples=500)
    assert sources.judge("stacked_mnist").samples == 26_000
