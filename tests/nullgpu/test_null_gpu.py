"""The trainer on a GPU that computes nothing: its launches, waits, copies and addresses.

`runtime.cpp` stands in for CUDA; everything above it is PyTorch's own. So this says nothing of
values, and nothing of speed.
"""

import itertools
from pathlib import Path

import pytest
from conftest import TINY

from began_cli.settings.fields import GROUPS

LOSSES, MODELS = GROUPS["loss"], GROUPS["model"]


def check_steps(results: list[dict]) -> None:
    for result in results:
        assert "error" not in result, result
        for kind in ("eager", "captured"):
            step = result[kind]
            for name in ("syncs", "pageable", "to_host", "allocations", "nodes", "escaped"):
                assert step[name] == 0, (result["line"], kind, name, step)
        step = result["captured"]
        assert step["gradients stay"], result["line"]
        assert step["launches"] == step["graphs"] == 1, result
        # The controls, and of images in main memory each batch: to the device, to its place there.
        batches = 5 if "wgan" in result["line"] else 1
        host = "dataset.device=cpu" in result["line"]
        assert step["to_device"] <= 1 + host * batches, result
        assert step["on_device"] <= host * batches, result


def test_every_loss_takes_captured_steps_of_one_launch(on_gpu):
    lines = [[f"loss={loss}"] for loss in LOSSES] + [["loss=bgan", "loss.r1=0"]]
    lines += [["loss=bgan", "dataset.device=cpu"], ["loss=gan", "precision=fp16"]]
    lines += [["loss=ebgan_pt", "loss.margin=following", "loss.r1=1"], ["loss=began", "loss.r1=1"]]
    more = ["accumulate=2", "model.residual=true", "precision=fp32"]
    lines += [["loss=began", "model=began"], ["loss=began", "model=began", *more]]
    results = on_gpu("take_steps", lines)
    check_steps(results)
    eager = {result["line"]: result["eager"]["launches"] for result in results}
    # 299 and 484: the convolutions of each of the 4 images by themselves
    assert eager["loss=bgan loss.r1=0"] <= 330
    assert eager["loss=bgan"] <= 530
    assert eager["loss=began model=began"] <= 1300  # 1,176


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_loss_network_and_precision_takes_captured_steps(on_gpu, model):
    lines = []
    for loss in LOSSES:
        lines.append([f"loss={loss}", f"model={model}", "precision=bf16"])
        lines.append([f"loss={loss}", f"model={model}", "precision=fp16", "dataset.device=cpu"])
        lines[-1] += ["optimizer=adam"] if loss == "wgan" else []
        lines.append([f"loss={loss}", f"model={model}", "precision=tf32", "accumulate=2"])
    check_steps(on_gpu("take_steps", lines))


def test_a_capture_refuses_what_a_real_one_refuses(on_gpu):
    assert on_gpu("refused_in_a_capture") == {
        "a kernel": False,
        "memory of a pool": False,
        "a copy from pinned memory": False,
        "a copy from pageable memory": True,
        "reading a value": True,
        "waiting for the device": True,
        "the legacy stream": True,
    }


def test_draws_and_their_states_are_the_same_on_a_gpu_and_move_both_ways(on_gpu):
    whole, *moved = on_gpu("move_draws")
    assert len(moved) == 2
    assert all(each == whole for each in moved)


def test_images_and_steps_on_any_two_devices_run_or_are_refused_in_a_line(on_gpu):
    devices = ("cpu", "cuda", "cuda:0", "cuda:1")
    pairs = [*itertools.product(devices, ("auto", *devices))]
    for (device, held), result in zip(pairs, on_gpu("place", pairs, devices=2), strict=True):
        index = "cuda:0" if device == "cuda" else device
        same = held in (index, index.partition(":")[0], "auto", "cpu")
        named = f"UserError: dataset.device={held}: the run is on device={index}; use auto"
        assert result == "" if same else result.startswith(named), (device, held, result)


def test_a_run_moves_between_a_cpu_and_a_gpu(on_gpu, digits):
    common = ["train", f"dataset.root={digits}", *TINY, "loss=began", "log_every=1"]
    results = on_gpu(
        "began",
        [
            [*common, "device=cpu", "out=run", "steps=2"],
            ["train", "resume=run", "device=cuda", "steps=4"],
            ["train", "resume=run", "device=cuda", "steps=6"],
            ["train", "resume=run", "device=cpu", "steps=8"],
        ],
    )
    for code, out, err, _ in results:
        assert (code, err) == (0, ""), (out, err)
    assert not results[0][3]["initialised"]  # device=cpu leaves CUDA alone
    moved = "device=cuda, where it was cpu: sums round otherwise, and precision=auto is bf16, "
    assert moved + "where it was fp32" in results[1][1]
    assert "captured the step as one CUDA graph" in results[1][1]
    assert "where it was" not in results[2][1]
    assert "device=cpu, where it was cuda" in results[3][1]


def test_nothing_is_read_between_two_logs(on_gpu, digits):
    """The whole loop: what 60 more steps cost, without a log among them."""
    common = ["train", f"dataset.root={digits}", *TINY, "device=cuda", "loss=began"]
    common += ["log_every=1000", "sample_every=1000", "checkpoint_every=1000"]
    runs = [[*common, f"out=run-{steps}", f"steps={steps}"] for steps in (20, 80)]
    short, long = on_gpu("began", runs)
    assert (short[0], long[0]) == (0, 0), short[2] + long[2]
    more = {name: long[3][name] - short[3][name] for name in short[3]}
    for name in ("syncs", "to_host", "pageable", "on_device"):
        assert more[name] == 0, (name, more)
    assert more["graphs"] == 60
    assert more["launches"] <= 3 * 60  # with the sums of the measures
    assert more["to_device"] <= 60 + 4  # the controls, while the average's weight changes


def test_without_a_graph_or_when_its_capture_fails_a_run_takes_its_steps(on_gpu, digits):
    common = ["train", f"dataset.root={digits}", *TINY, "device=cuda", "steps=2"]
    off, failed = on_gpu("began", [[*common, "graph=off", "out=a"], ["!fail", *common, "out=b"]])
    assert (off[0], off[3]["graphs"]) == (0, 0), off
    assert (failed[0], failed[3]["graphs"]) == (0, 0), failed
    reason = "CUDA error: operation not permitted during capture"
    assert f"warning: graph=auto: {reason}; going on without" in failed[1]


@pytest.mark.parametrize(
    ("loss", "model"),
    [("gan", "dcgan")]
    + [
        pytest.param(loss, model, marks=pytest.mark.slow)
        for loss in LOSSES
        for model in MODELS
        if (loss, model) != ("gan", "dcgan") and loss != "bgan_discrete"
    ],
)
def test_graphs_of_each_pass_do_not_overwrite_the_gradients(on_gpu, loss, model):
    """compile=max, with no compilation after the trial."""
    result = on_gpu("compile_max", loss, model)
    assert result["before"] == result["after"] > 0
    assert result["graphs"] > 0


def test_the_other_commands_run(on_gpu, digits, tmp_path):
    common = [f"dataset.root={digits}", *TINY, "device=cuda", "out=run", "steps=2"]
    lines = [
        ["train", "loss=ebgan", "evaluate_every=2", "evaluation.n=50", *common],
        ["train", "loss=ebgan", "dry_run=true", *common[:-2]],
        ["sample", "ckpt=run", "n=4", "device=cuda"],
        ["sample", "ckpt=run", "mode=reconstruct", "images=run/samples", "device=cuda"],
        ["evaluate", "ckpt=run", f"root={digits}", "n=50", "scores=[fid]", "device=cuda"],
        ["interpolate", "ckpt=run", "device=cuda"],
        ["interpolate", "ckpt=run", "images=run/samples", "search_steps=2", "device=cuda"],
        ["export", "ckpt=run"],
    ]
    for line, (code, out, err, _) in zip(lines, on_gpu("began", lines), strict=True):
        assert (code, err) == (0, ""), (line, out, err)
    assert Path("run/evaluation.json").exists()
