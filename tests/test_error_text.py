"""Errors in one line that names the setting, what was wrong and what was meant."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from began_cli import cli, error_text
from began_cli.errors import UserError

WORDING = {
    "train loss=foo": "no loss 'foo'",
    "train loss=bgn": "did you mean bgan?",
    "train lss=bgan": "no setting 'lss' (did you mean loss?)",
    "train loss=began loss.gama=0.3": "no setting 'loss.gama' (did you mean gamma?)",
    "train loss=bgan loss.gamma=0.3": "no setting 'loss.gamma'",
    "train loss=began loss.pack=2": "only score discriminators judge images together",
    "train loss=ebgan loss.pt_weight=1": "needs an autoencoder's code",
    "train +foo=1": "no setting 'foo'",
    "train steps=abc": "steps=abc: wants a whole number",
    "train steps=1.5": "steps=1.5: wants a whole number",
    "train loss=bgan_discrete loss.samples=null": "loss.samples=null: wants a value",
    "train optimizer=adam optimizer.weight_decay=1": (
        "no setting 'optimizer.weight_decay' here; it belongs to optimizer=adamw"
    ),
    "train dataset=avatars dataset.fallback=true": "it belongs to dataset=mnist, stacked_mnist",
    "train dataset=avatars loss=bgan_discrete": "dataset=avatars has 3 channels; use loss=bgan",
    "train dataset=cifar10 loss=bgan_discrete": "3 channels; use dataset.channels=1, or loss=bgan",
    "train dataset=folder": "dataset.root is missing",
    "train recipe=faces64 model=mlp": "recipe=faces64 sets model.skips, which this",
    "train recipe=cifar10 dataset=ring": "recipe=cifar10 sets dataset.flip, which this",
    "train resume=nowhere loss.samples=5": "a resumed run keeps its own settings: leave it out",
    "train steps": "cannot read 'steps'",
    "train loss=null": "loss=null: wants one of began, began_paper",
    "train loss=began,bgan": "loss: several values: add -m",
}


@pytest.mark.parametrize("line", WORDING)
def test_an_error_of_hydra_names_the_setting_and_the_fault(refusal, line):
    assert WORDING[line] in refusal(line)


def test_our_own_error_is_kept_and_another_gives_its_first_line():
    assert error_text.describe(UserError("n=0: wants 1"), cli.CONF) == "n=0: wants 1"
    assert error_text.describe(ValueError("first\nsecond"), cli.CONF) == "first"


def test_suggest_names_the_nearest_choice():
    assert error_text.suggest("trian", ["sample", "train"]) == " (did you mean train?)"


def test_suggest_is_silent_about_strangers():
    assert error_text.suggest("xyzzy", ["train", "sample"]) == ""


@pytest.mark.parametrize(
    "value",
    ["", "a=b, c", "it's", "{x}", "[y", 'ü "#', "null", "1e3", "C:\\", "\\'x", "*?", "a\\b"],
)
def test_hydra_reads_a_quoted_value_as_it_was_typed(value):
    override = OverridesParser.create().parse_override(f"out={error_text.quote(value)}")
    assert override.value() == value
