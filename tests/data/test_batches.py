import functools
import operator

import torch

from began_cli.data.batches import Ahead, Batches, hash_seed
from began_cli.images import to_float

CPU = torch.device("cpu")


def numbered(n: int) -> torch.Tensor:
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)


def stream(n=10, size=4, seed=0):
    return Batches(numbered(n), size, seed, CPU)


def numbers(batch: torch.Tensor) -> list[int]:
    return ((batch + 1) * 127.5).round().flatten().int().tolist()


def test_every_image_once_an_epoch_across_batch_ends():
    batches = stream()
    seen = functools.reduce(operator.iadd, (numbers(batches()) for _ in range(5)), [])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_a_batch_larger_than_the_data():
    batch = numbers(stream(3, 8)())
    assert len(batch) == 8
    assert sorted(batch[:3]) == sorted(batch[3:6]) == [0, 1, 2]


def test_values_are_in_minus_one_to_one():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    assert sorted(Batches(images, 2, 0, CPU)().flatten().tolist()) == [-1.0, 1.0]


def test_order_depends_on_the_seed_alone():
    a, b, c = stream(seed=1), stream(seed=1), stream(seed=2)
    first = [numbers(a()) for _ in range(4)]
    assert first == [numbers(b()) for _ in range(4)]
    assert first != [numbers(c()) for _ in range(4)]


def test_position_comes_back():
    """Mistake: the data replay from the start after a resume."""
    for done in (0, 1, 3, 7, 10):
        batches = stream()
        for _ in range(done):
            batches()
        again = stream()
        again.load_state_dict(batches.state_dict())
        assert [numbers(again()) for _ in range(6)] == [numbers(batches()) for _ in range(6)]


def test_hashed_seeds_are_63_bits_and_differ():
    seeds = {hash_seed(seed, n) for seed in range(100) for n in range(100)}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_flips_mirror_about_half_the_images_and_come_back():
    images = torch.arange(2, dtype=torch.uint8).repeat(400, 1, 1, 1)  # 0, 1 from left to right
    flipped = Batches(images, 100, 0, CPU, flip=True)
    first = torch.cat([flipped() for _ in range(4)])
    mirrored = first[:, 0, 0, 0] > first[:, 0, 0, 1]
    assert 150 < mirrored.sum() < 250
    again = Batches(images, 100, 0, CPU, flip=True)
    again.load_state_dict({"epoch": 0, "position": 200})
    assert torch.equal(torch.cat([again() for _ in range(2)]), first[200:])
    plain = stream(400, 400)
    assert torch.equal(plain._order, flipped.__class__(images, 1, 0, CPU)._order)


def test_batches_ahead_are_the_same_and_their_position_is_that_of_those_given():
    """A device that is not the images': the next batch is fetched before it is asked for."""
    here, there = stream(), Batches(numbered(10), 4, 0, torch.device("meta"))
    for _ in range(6):
        assert there.state_dict() == here.state_dict()
        assert there().device.type == "meta"
        here()
    there.load_state_dict({"epoch": 1, "position": 3})
    assert there.state_dict() == {"epoch": 1, "position": 3}


def test_captured_steps_find_batches_at_fixed_places():
    """Images on the device are chosen by a number there; others are copied to the same places."""
    for flip in (False, True):
        plain, here, there = (Batches(numbered(10), 4, 0, CPU, flip=flip) for _ in range(3))
        there._ahead = Ahead(there.images, 4, CPU)
        for batches in (here, there):
            batches.fix(2)
        places = [batch.data_ptr() for batch, _ in there._inputs]
        for _ in range(5):
            expected = [numbers(plain()) for _ in range(2)]
            for batches in (here, there):
                batches.prepare(2)
                assert [numbers(batches()) for _ in range(2)] == expected
                assert batches.state_dict() == plain.state_dict()
        assert [batch.data_ptr() for batch, _ in there._inputs] == places
        there.skip(2)  # fetches ahead, which is not given yet
        assert there.state_dict() == plain.state_dict()
        expected = numbers(plain())
        for batches in (here, there):
            batches.fix(0)
            assert numbers(batches()) == expected


def test_two_buffers_take_turns():
    images = numbered(10)
    ahead = Ahead(images, 2, torch.device("meta"))
    ahead.start(torch.tensor([1, 2]))
    ahead.start(torch.tensor([3, 4]))
    assert sorted(numbers(to_float(b))[0] for b in ahead.buffers) == [1, 3]
    ahead.start(torch.tensor([5, 6]))
    assert sorted(numbers(to_float(b))[0] for b in ahead.buffers) == [3, 5]


def test_pages_are_let_go_now_and_then(monkeypatch):
    monkeypatch.setattr("began_cli.data.batches.FORGET_EVERY", 10)
    calls = []
    batches = Batches(numbered(10), 4, 0, CPU, forget=lambda: calls.append(1))
    for _ in range(6):
        batches()
    assert len(calls) == 2  # after 12 and 24 images
