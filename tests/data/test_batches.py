import functools
import operator

import torch

from began_cli.data.batches import Batches, hash_seed

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
