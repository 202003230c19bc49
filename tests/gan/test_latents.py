import math

import pytest
import torch

from began_cli.gan import latents


def test_stream_is_uniform_seeded_and_goes_on():
    cpu = torch.device("cpu")
    stream = latents.LatentStream(1000, 8, 3, cpu)
    z = stream()
    assert z.shape == (1000, 8)
    assert -1 <= z.min() < -0.99
    assert 0.99 < z.max() <= 1
    assert z.var().item() == pytest.approx(1 / 3, rel=0.05)  # of U[-1, 1]
    state = stream.state_dict()
    second = stream()
    assert not torch.equal(z, second)
    again = latents.LatentStream(1000, 8, 99, cpu)
    again.load_state_dict(state)
    assert torch.equal(again(), second)


def test_latents_are_the_same_in_blocks_for_another_device():
    cpu = torch.device("cpu")
    plain, ahead = (latents.LatentStream(4, 3, 5, cpu) for _ in range(2))
    ahead.fix(2)
    for _ in range(3):
        ahead.prepare(2)
        for _ in range(2):
            assert torch.equal(ahead(), plain())
            state = ahead.state_dict()["generator"]
            assert torch.equal(state, plain.state_dict()["generator"])
    fresh = latents.LatentStream(4, 3, 0, cpu)
    fresh.load_state_dict({"generator": state})
    ahead.load_state_dict({"generator": state})
    ahead.prepare(1)
    assert torch.equal(ahead(), fresh())


def test_a_seed_decides_its_row_alone():
    together = latents.from_seeds([5, 9, 7], 16)
    for i, seed in enumerate([5, 9, 7]):
        assert torch.equal(together[i], latents.from_seeds([seed], 16)[0])
    assert together.abs().max() <= 1


def test_lerp_by_hand():
    a, b = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, -1.0]])
    path = latents.lerp(a, b, 5)
    assert path[:, 0].tolist() == [[0, 1], [0.25, 0.5], [0.5, 0], [0.75, -0.5], [1, -1]]
    assert torch.equal(path[0], a)
    assert torch.equal(path[-1], b)


def test_slerp_keeps_the_norm_and_turns_evenly():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    path = latents.slerp(a, b, 4)[:, 0]
    for i in range(4):
        angle = i * math.pi / 6
        assert path[i].tolist() == pytest.approx(
            [3 * math.cos(angle), 3 * math.sin(angle)], abs=1e-6
        )
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert latents.slerp(a, b, 3)[1, 0].norm().item() == pytest.approx(1.5)


def test_slerp_between_the_same_latents_stays():
    a = latents.from_seeds([1], 64)
    assert torch.allclose(latents.slerp(a, a, 5), a.expand(5, 1, 64), atol=1e-6)


def test_slerp_keeps_the_norm_in_many_dimensions():
    a = latents.from_seeds(range(8), 64)
    b = latents.from_seeds(range(8, 16), 64)
    b = b * (a.norm(dim=1, keepdim=True) / b.norm(dim=1, keepdim=True))
    path = latents.slerp(a, b, 9)
    assert (path.norm(dim=2) / a.norm(dim=1) - 1).abs().max() < 1e-5
    assert torch.equal(path[0], a)
    assert torch.equal(path[-1], b)


def test_eased_paths_set_out_and_arrive_slowly():
    a, b = torch.tensor([[0.0]]), torch.tensor([[1.0]])
    t = latents.lerp(a, b, 5, ease=True)[:, 0, 0].tolist()
    assert t == [0, 5 / 32, 1 / 2, 27 / 32, 1]  # 3t^2 - 2t^3 at 0, 1/4, 1/2, 3/4, 1
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    turned = latents.slerp(x, y, 5, ease=True)[1, 0]
    assert math.atan2(turned[1], turned[0]) == pytest.approx(math.pi / 2 * 5 / 32, abs=1e-6)


def test_a_traverse_moves_one_axis_a_row():
    z = latents.from_seeds([3], 5)[0]
    path = latents.traverse(z, [4, 0], 3)
    assert path.shape == (3, 2, 5)
    for step, value in enumerate((-1, 0, 1)):
        assert path[step, 0].tolist() == [*z[:4].tolist(), value]
        assert path[step, 1].tolist() == [value, *z[1:].tolist()]
