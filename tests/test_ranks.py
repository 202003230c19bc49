"""Several processes: the same numbers as one, one voice, and a clean end whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranked
import torch
from torch import nn

from began_cli import ranks
from began_cli.data.batches import Batches
from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.gan.gradients import Gradients
from began_cli.gan.latents import LatentStream
from began_cli.gan.layers import BatchNorm2d

SMALL = ["dataset.image_size=16", "dataset.width=4", "model.latent_dim=8", "accumulate=2"]
LOSSES = ["began", "began_paper", "began_unbalanced", "bgan_discrete"]
LOSSES += ["ebgan", "ebgan_pt"]
LINES = {name: [f"loss={name}", *SMALL, "batch_size=8"] for name in LOSSES}
# With r1, one image in four of each part is penalised: each process has four.
LINES["gan"] = ["loss=gan", *SMALL, "batch_size=32"]
LINES["bgan"] = ["loss=bgan", "loss.log_z=true", "loss.r1=0", *SMALL, "batch_size=16"]
# ELU and no normalisation, for those whose steps can hang on a last bit: WGAN's weights are tiny,
# RMSProp makes all gradients equal, the penalty's own gradient jumps at LeakyReLU's kink, and that
# of an absolute error at 0.
LINES["began_paper"] += ["model=began"]
LINES["wgan"] = ["loss=wgan", "model=began", *SMALL, "batch_size=8", "optimizer.lr=0.00005"]
LINES["wgan_gp"] = ["loss=wgan_gp", "model=began", *SMALL, "batch_size=8"]
LINES["pack"] = ["loss=gan", "loss.pack=2", "loss.r1=0", *SMALL, "batch_size=16"]
LINES["separate"] = ["loss=began_paper", "loss.separate_latents=true", *SMALL, "batch_size=8"]


def flat(state: dict) -> torch.Tensor:
    values = [value.double().flatten() for value in state.values()]
    return torch.cat(values) if values else torch.zeros(1)


def check_equal(folder: Path, names, processes: int, tolerance: float) -> None:
    for name in names:
        one = torch.load(folder / f"{name}-1-0.pt")
        each = [torch.load(folder / f"{name}-{processes}-{i}.pt") for i in range(processes)]
        for key in ("generator", "discriminator", "ema", "loss"):
            assert all(torch.equal(flat(a[key]), flat(each[0][key])) for a in each), (name, key)
            gap = (flat(one[key]) - flat(each[0][key])).norm()
            assert gap <= tolerance * flat(one[key]).norm().clamp(min=1e-6), (name, key, gap)
        for key in ("measures", "samples"):
            assert all(torch.equal(a[key], each[0][key]) for a in each), (name, key)
            gap = (one[key] - each[0][key]).abs().max()
            assert gap <= tolerance * one[key].abs().max().clamp(min=1.0), (name, key, gap)
        if name != "bgan_discrete":  # whose values stand in another order
            assert torch.allclose(one["last"], each[0]["last"], rtol=1e-4, atol=tolerance), name


SHORT = {name: LINES[name] for name in ("began", "bgan", "ebgan_pt", "gan", "wgan_gp", "pack")}


def _everything(folder):
    ranked.trajectories(folder, SHORT, 4)
    ranked.bytes_of_a_step(folder, ["loss=began_paper", *SMALL, "batch_size=8"])
    for work in (_gradients, _normalise, _streams, _agree, _devices):
        work(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder in which two processes, started once, have left what the tests below look at."""
    folder = tmp_path_factory.mktemp("pair")
    ranked.in_processes(2, _everything, folder)
    return folder


def test_two_processes_are_one(pair):
    """Weights, k_t, M, log Z and samples to 1e-5, and the processes' states to the bit."""
    ranked.trajectories(pair, SHORT, 4)
    check_equal(pair, SHORT, 2, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_are_one_over_100_steps_for_every_loss(tmp_path, processes):
    ranked.trajectories(tmp_path, LINES, 100)
    ranked.in_processes(processes, ranked.trajectories, tmp_path, LINES, 100)
    check_equal(tmp_path, LINES, processes, 1e-5)


def test_a_step_sends_the_gradients_once_and_its_scalars(pair):
    found = torch.load(pair / "bytes.pt")
    g, d = (found["weights"][key] for key in ("generator", "discriminator"))
    parameters = sum(value.nbytes for value in (*g.values(), *d.values()))
    assert sum(found["sent"]["all_reduce"]) == parameters
    assert len(found["sent"]["all_reduce"]) == 2  # one for each network
    # The values of its 4 real and 4 fake images; L_D's two parts, L_G and the penalty.
    assert found["sent"]["all_gather"] == [4 * (4 + 4 + 4)]


def _network() -> nn.Sequential:
    network = nn.Sequential(*[nn.Linear(10, 10) for _ in range(4)])
    with torch.no_grad():
        for i, weight in enumerate(network.parameters()):
            weight.fill_(0.1 * (i + 1))
    return network


def _gradients(folder):
    """Two backward passes, with other images in each process; the sum over the processes."""
    network = _network()
    gradients = Gradients(list(network.parameters()))
    x = torch.full((2, 10), 1.0 + ranks.rank())
    gradients.clear()
    network(x).sum().backward()
    gradients.scale(torch.tensor(3.0))
    network(x).sum().backward()
    gradients.sum_over_processes()
    summed = torch.cat([weight.grad.flatten() for weight in network.parameters()])
    torch.save(summed, folder / f"summed-{ranks.rank()}.pt")
    gradients.clear()
    assert all(not weight.grad.any() for weight in network.parameters())


def test_gradients_are_summed_over_passes_and_processes(pair):
    network = _network()
    for value in (1.0, 2.0):  # of the two processes
        (4 * network(torch.full((2, 10), value)).sum()).backward()  # 3 of the first pass, and 1
    wanted = torch.cat([weight.grad.flatten() for weight in network.parameters()])
    for i in range(2):
        assert torch.allclose(torch.load(pair / f"summed-{i}.pt"), wanted, rtol=1e-5)


def _normalise(folder):
    layer = BatchNorm2d(3).double()
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mine = ranks.share(x * 3 + 5).requires_grad_()
    out = layer(mine)
    (out**3).sum().backward()
    torch.save(
        [out.detach(), mine.grad, layer.running_mean, layer.running_var],
        folder / f"norm-{ranks.rank()}.pt",
    )


def test_batch_statistics_are_those_of_all_images(pair):
    """Against torch's own layer on the whole batch: values, gradients, running statistics."""
    layer = nn.BatchNorm2d(3).double()
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = (x * 3 + 5).requires_grad_()
    out = layer(whole)
    (out**3).sum().backward()
    halves = [torch.load(pair / f"norm-{i}.pt") for i in range(2)]
    assert torch.allclose(torch.cat([half[0] for half in halves]), out)
    assert torch.allclose(torch.cat([half[1] for half in halves]), whole.grad)
    for half in halves:
        assert torch.allclose(half[2], layer.running_mean)
        assert torch.allclose(half[3], layer.running_var)


def _streams(folder):
    pixels = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(-1, 1, 2, 2)
    batches = Batches(pixels.contiguous(), 8, 0, ranked.CPU, parts=2)
    latents = LatentStream(8, 3, 0, ranked.CPU, 2)
    mine = [(batches(), latents()) for _ in range(5)]
    torch.save(mine, folder / f"stream-{ranks.size()}-{ranks.rank()}.pt")


def test_each_process_has_its_own_share_of_one_shuffle(pair):
    _streams(pair)
    whole = torch.load(pair / "stream-1-0.pt")
    halves = [torch.load(pair / f"stream-2-{i}.pt") for i in range(2)]
    seen = torch.cat([x[:, 0, 0, 0] for half in halves for x, _ in half])
    assert len(seen.unique()) == 40  # an epoch: every image, by one of them
    for step in range(5):
        for k in range(2):  # images, latents; rows 0-1 and 4-5 are the first one's, of two parts
            a, b = halves[0][step][k], halves[1][step][k]
            assert torch.equal(torch.cat([a[:2], b[:2], a[2:], b[2:]]), whole[step][k])


@ranks.on_first
def _first_decides() -> tuple[int, int]:
    return ranks.rank(), ranks.size()


def _agree(folder):
    any_process = ranks.AnyProcess()
    answers = [any_process(ranks.rank() == 1), any_process(False), any_process(False)]
    answers.append(_first_decides())
    mark = folder / "written-by-the-first"
    with ranks.first_then_others():
        answers.append(mark.exists())
        mark.touch()
    torch.save(answers, folder / f"agree-{ranks.rank()}.pt")


def test_processes_get_the_same_answer_at_the_same_call(pair):
    for i in range(2):
        answers = torch.load(pair / f"agree-{i}.pt")
        assert answers == [False, True, False, (0, 1), i == 1]


def _fail(folder, who):
    """Raise a UserError in some processes; the others wait for all."""
    try:
        with ranks.connect():
            if ranks.rank() in who:
                raise UserError("a mistake")
            _first_decides()
            _first_decides()
    except (UserError, SystemExit) as error:
        name = f"end-{os.environ['RANK']}"
        (folder / name).write_text(f"{type(error).__name__} {error}")


@pytest.mark.parametrize(
    ("who", "ends"),
    [
        ((0,), ["UserError a mistake", "SystemExit 1"]),
        ((1,), ["SystemExit 1", "UserError process 1: a mistake"]),
        ((0, 1), ["UserError a mistake", "SystemExit 2"]),
    ],
)
def test_one_process_reports_a_mistake_and_all_end(tmp_path, who, ends):
    ranked.in_processes(2, _fail, tmp_path, who, connected=False)
    assert [(tmp_path / f"end-{i}").read_text() for i in range(2)] == ends


def test_one_process_works_by_itself():
    assert (ranks.size(), ranks.rank(), ranks.is_first(), ranks.launched()) == (1, 0, True, False)
    rows = torch.arange(6)
    assert ranks.share(rows) is rows
    any_process = ranks.AnyProcess()
    assert any_process(True)
    assert not any_process(False)
    assert _first_decides() == (0, 1)
    with ranks.connect(), ranks.first_then_others():
        pass


def _devices(folder):
    told = [str(pick_device("auto")), str(pick_device("cpu"))]
    for name in ("cuda", "mps", "cuda:1"):
        try:
            told.append(str(pick_device(name)))
        except Exception as error:
            told.append(str(error))
    torch.save(told, folder / f"device-{ranks.rank()}.pt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what there is without a GPU")
def test_a_process_has_a_device_of_its_own(pair):
    told = torch.load(pair / "device-1.pt")
    assert told[:2] == ["cpu", "cpu"]
    assert told[2] == "devices=2: there are 0 CUDA devices here; use fewer, or device=cpu"
    assert "device=mps: names one device" in told[3]
    assert "device=cuda:1: names one device" in told[4]


# --- the whole program ----------------------------------------------------------------------------

RUN = [
    "loss=began_paper",
    "dataset=mnist",
    "dataset.image_size=16",
    "dataset.width=4",
    "batch_size=8",
]
RUN += ["device=cpu", "log_every=10", "sample_every=1000", "checkpoint_every=20", "ema.decay=0.9"]


def start(*line: str, **env: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "began_cli", "train", *line]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | env
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def finish(process: subprocess.Popen, within: float = 240) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=within)
    return process.returncode, out, err


def train(*line: str, **env: str) -> tuple[int, str, str]:
    return finish(start(*line, **env))


def logged(run: str) -> list[dict]:
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["train/images_per_second"]
    return lines


def weights(run: str, step: int) -> torch.Tensor:
    saved = torch.load(Path(run, "checkpoints", f"step-{step:08d}.pt"))
    return torch.cat([flat(saved["generator"]), flat(saved["discriminator"])])


def test_a_user_s_mistake_is_one_line_whoever_makes_it(tmp_path):
    Path("empty").mkdir()
    code, _, err = train("dataset=folder", "dataset.root=empty", *RUN[2:], "devices=2")
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("began train: dataset.root")


def test_devices_must_divide_what_passes_at_once(began):
    code, _, err = began("train", "batch_size=8", "accumulate=2", "devices=3")
    assert (code, err) == (
        2,
        "began train: devices=3: wants a number that divides the 4 images at once\n",
    ), err


def test_torchrun_and_devices_must_agree(began, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, _, err = began("train", "devices=3")
    assert (code, err) == (2, "began train: devices=3: torchrun has started 2 processes\n")
    code, _, err = began("train", "-m", "seed=1,2")
    assert code == 2
    assert "under torchrun" in err


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_with_two_exactly_and_with_one_or_four(tmp_path):
    assert train(*RUN, "steps=60", "devices=2", "out=whole")[0] == 0
    for out in ("two", "one", "four"):
        assert train(*RUN, "steps=40", "devices=2", f"out={out}")[0] == 0
    assert train("resume=two", "steps=60", "devices=2")[0] == 0
    assert torch.equal(weights("two", 60), weights("whole", 60))
    assert logged("two") == logged("whole")
    for out, n in (("one", 1), ("four", 4)):
        code, said, _ = train(f"resume={out}", "steps=60", f"devices={n}")
        assert code == 0
        assert f"devices={n}, where there were 2" in said
        gap = (weights(out, 60) - weights("whole", 60)).norm() / weights("whole", 60).norm()
        assert gap < 1e-5


def wait_for(path: Path, process: subprocess.Popen, pattern: str) -> None:
    for _ in range(1200):
        if list(path.glob(pattern)):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"no {pattern}")


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


@pytest.mark.slow
def test_when_a_process_is_killed_all_end_with_the_reason_and_the_run_goes_on(tmp_path):
    process = start(*RUN, "steps=100000", "devices=2", "out=run")
    wait_for(Path("run/checkpoints"), process, "step-*.pt")
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    at = time.monotonic()
    code, _, err = finish(process)
    assert time.monotonic() - at < 30
    assert code == 2
    assert "process 1 of 2 was ended by SIGKILL; go on from step-" in err
    assert len(err.strip().splitlines()) == 1, err
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    newest = max(int(path.stem[5:]) for path in Path("run/checkpoints").glob("step-*.pt"))
    code, out, _ = train("resume=run", f"steps={newest + 20}", "devices=2")
    assert code == 0
    assert f"going on from step {newest:,}" in out


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_once_and_ends(tmp_path):
    process = start(*RUN, "steps=100000", "checkpoint_every=100000", "devices=2", "out=run")
    wait_for(Path("run"), process, "metrics.jsonl")
    while not Path("run/metrics.jsonl").read_text():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert code == 75
    assert err == ""
    assert out.count("stopped by SIGTERM at step") == 1
    (saved,) = Path("run/checkpoints").iterdir()
    step = int(saved.stem[5:])
    code, _, err = train("resume=run", f"steps={step + 5}", "devices=2")
    assert code == 0, err


@pytest.mark.slow
def test_torchrun_starts_a_run_and_starts_it_again_from_its_last_checkpoint(tmp_path):
    """Elastic: a process is killed, torchrun begins a second attempt, which goes on."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    line += ["--max-restarts=1", "-m", "began_cli", "train", *RUN, "steps=600"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment)
    wait_for(Path("outputs"), process, "*/*/checkpoints/step-*.pt")
    os.kill(children(process.pid)[1], signal.SIGKILL)
    code, out, err = finish(process)
    assert code == 0, err
    assert "going on from step" in out
    assert out.count("done: 600 steps") == 1
    (run,) = Path("outputs").glob("*/*")
    assert weights(str(run), 600).isfinite().all()
