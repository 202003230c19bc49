"""The settings of a run: their names, their ranges, and the rules that concern several."""

import pytest
from conftest import settings

from began_cli.errors import UserError
from began_cli.settings.parse import flatten, to_plain

FROZEN = """
    accumulate batch_size checkpoint_every compile dataset.channels dataset.device dataset.fallback
    dataset.flip dataset.image_size dataset.margin dataset.name dataset.r1 dataset.root
    dataset.width device devices disk_full dry_run ema.decay evaluate_every evaluation.extractor
    evaluation.n evaluation.score evaluation.weights graph
    log_every loss.energy loss.gamma loss.k_0 loss.k_max loss.k_min
    loss.lambda_k loss.name loss.separate_latents model.carry_steps model.code_dim model.code_norm
    model.first_stage model.gain model.init model.latent_dim model.name model.output model.residual
    model.skips model.upsample model.width optimizer.betas optimizer.eps
    optimizer.lr optimizer.lr_d optimizer.lr_g optimizer.name out precision resume sample_every
    schedule.cooldown
    schedule.floor schedule.name schedule.threshold schedule.window seed show steps watch.diversity
    watch.patience watch.rollbacks watchdog
"""


def test_names_of_the_settings_are_frozen():
    """People and scripts type them."""
    cfg = settings("train", "loss=began_paper")
    assert sorted(flatten(to_plain(cfg))) == FROZEN.split()


@pytest.mark.parametrize("loss", ["ebgan", "ebgan_pt"])
def test_the_margin_suits_the_data(loss):
    """With it comes the penalty: the paper's fixed margin has none."""

    def values(*line):
        c = settings("train", f"loss={loss}", *line).loss
        return c.margin, c.gamma, c.r1

    assert values("dataset=mnist") == (10, None, 0)
    assert values("dataset=avatars") == ("following", 2, 1)
    assert values("dataset=avatars", "loss.margin=10") == (10, None, 0)
    assert values("dataset=mnist", "loss.margin=following", "loss.gamma=3") == ("following", 3, 1)
    assert values("dataset=avatars", "loss.r1=0") == ("following", 1.5, 0)
    assert values("dataset=stacked_mnist") == ("following", 1.5, 0)


def test_began_has_the_penalty_where_ebgan_has_it():
    def values(*line):
        c = settings("train", "loss=began", *line).loss
        return c.gamma, c.r1

    assert values("dataset=mnist") == (1.5, 0)
    assert values("dataset=stacked_mnist") == (1.5, 0)
    assert values("dataset=avatars") == (2, 1)
    assert values("dataset=avatars", "loss.r1=0") == (1.5, 0)
    assert values("dataset=mnist", "loss.r1=1", "loss.gamma=1.25") == (1.25, 1)


@pytest.mark.parametrize("loss", ["gan", "bgan"])
def test_the_penalty_suits_the_data(loss):
    assert settings("train", f"loss={loss}", "dataset=avatars").loss.r1 == 1
    assert settings("train", f"loss={loss}", "dataset=ring").loss.r1 == 0
    assert settings("train", f"loss={loss}", "dataset=avatars", "loss.r1=0.5").loss.r1 == 0.5


BAD = {
    "train dataset=folder dataset.root=x dataset.cache=false": "auto, null for none, or a folder",
    "train steps=-1": "steps=-1: wants a whole number, 1 or more",
    "train batch_size=0": "batch_size=0: wants",
    "train dataset.image_size=48": "dataset.image_size=48: wants 8 times a power of two",
    "train dataset.channels=2": "dataset.channels=2: wants 1",
    "train optimizer.betas=[0.5]": "optimizer.betas",
    "train optimizer.lr=nan": "optimizer.lr=nan",
    "train device=tpu": "device=tpu: wants auto, cpu",
    "train ema.decay=1": "ema.decay=1.0: wants a number from 0 to below 1",
    "train loss=ebgan_pt batch_size=1": "batch_size=1",
    "train loss=began_paper loss.k_0=2": "loss.k_0=2.0",
    "train loss=gan schedule=plateau": "use schedule=constant",
    "train loss=ebgan loss.margin=some": "loss.margin=some: wants a number above 0, or following",
    "train dataset=ring model=dcgan": "use model=mlp",
    "train loss=bgan_discrete dataset.channels=3": "use dataset.channels=1",
    "train model=mlp model.dropout=1": "model.dropout=1.0",
    "train dataset=folder dataset.root=": "dataset.root=: wants a folder",
    "train device=cuda:99999999999": "device=cuda:99999999999: wants",
    "train loss=began_paper loss.gamma=inf": "loss.gamma=inf: wants",
}


@pytest.mark.parametrize("line", BAD)
def test_a_value_out_of_range_is_refused(refusal, line):
    assert BAD[line] in refusal(line)


TOGETHER = {  # lines that break a rule, and the nearest that keeps it
    "loss=began_paper loss.k_max=0.4 loss.k_0=0.5": ("loss.k_0=0.5: wants", "loss.k_0=0.4"),
    "loss=began_paper loss.k_0=0 loss.k_min=0.1": ("loss.k_0=0.0: wants", "loss.k_0=0.1"),
    "loss=began_paper loss.k_min=0.5 loss.k_max=0.4": ("loss.k_min=0.5: wants", "loss.k_min=0"),
    "batch_size=16 accumulate=3": ("accumulate=3: wants a number that divides", "accumulate=16"),
    "batch_size=16 accumulate=4 devices=8": ("devices=8: wants .* the 4 images", "devices=4"),
    "loss=gan batch_size=16 devices=2 loss.pack=16": ("loss.pack=16: wants", "loss.pack=8"),
    "loss=ebgan_pt batch_size=4 accumulate=4": ("batch_size=1: wants", "accumulate=2"),
    "loss=ebgan_pt loss.pt_global=false batch_size=4 accumulate=2 devices=2": (
        "batch_size=2: wants",
        "loss.pt_global=true",
    ),
    "loss=ebgan loss.gamma=3": ("loss.gamma=3.0: wants null", "loss.margin=following"),
    "loss=ebgan_pt loss.margin=following loss.gamma=null": (
        "loss.gamma=None: wants a number above 0",
        "loss.margin=5",
    ),
    "loss=began model=began batch_size=4 accumulate=4": (
        "batch_size=1: wants 2 or",
        "accumulate=2",
    ),
    "loss=ebgan model=began batch_size=1": ("model.code_norm=false", "model.code_norm=false"),
    "loss=bgan schedule=plateau": ("schedule=plateau follows M_global", "loss=began_paper"),
    "schedule=linear schedule.start=5 schedule.end=5": ("schedule.end=5: wants", "schedule.end=6"),
    "dataset=avatars dataset.image_size=128": ("dataset.image_size=128", "dataset.image_size=64"),
    "dataset=avatars dataset.channels=1": ("avatars are in colour", "dataset.channels=3"),
    "dataset=stacked_mnist dataset.channels=1": ("three digits", "dataset.channels=3"),
    "dataset=ring dataset.image_size=16": ("dataset.image_size=16", "dataset.image_size=1"),
    "dataset=ring dataset.channels=3": ("a point is x and y", "dataset.channels=2"),
    "dataset=ring evaluate_every=5": ("evaluate_every: .* has points", "evaluate_every=0"),
    "dataset.image_size=2048": ("dataset.image_size=2048: wants", "dataset.image_size=1024"),
    "optimizer=rmsprop precision=fp16": ("precision=fp16: rmsprop", "precision=bf16"),
    "seed=9223372036854775808": ("seed=9223372036854775808: wants", "seed=9223372036854775807"),
    "loss=bgan_discrete dataset=cifar10": ("makes black and white", "dataset.channels=1"),
}


@pytest.mark.parametrize("line", TOGETHER)
def test_settings_that_do_not_fit_each_other_are_refused(line):
    message, remedy = TOGETHER[line]
    with pytest.raises(UserError, match=message):
        settings("train", *line.split())
    replaced = remedy.partition("=")[0] + "="
    words = [word for word in line.split() if not word.startswith(replaced)]
    settings("train", *words, remedy)


def test_images_are_shared_among_parts_and_devices():
    cfg = settings("train", "batch_size=24", "accumulate=3", "devices=4")
    assert (cfg.images_at_once, cfg.images_a_device) == (8, 2)
    cfg = settings("train", "batch_size=24")
    assert (cfg.images_at_once, cfg.images_a_device) == (24, 24)
