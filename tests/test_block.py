"""Draws made ahead: the same as one after another, whatever the block's size."""

import pytest
import torch

from began_cli.block import Block

CPU = torch.device("cpu")


class Counter:
    """A stream of pairs (n, 10 n), whose state is the next n."""

    def __init__(self) -> None:
        self.next = 0

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.next += 1
        n = torch.tensor([self.next - 1])
        return n, 10 * n

    def block(self, draws: int) -> Block:
        return Block(self.draw, lambda: self.next, CPU, draws)


def numbers(drawn: list[torch.Tensor]) -> int:
    n, tenfold = drawn
    assert tenfold.item() == 10 * n.item()
    return int(n.item())


@pytest.mark.parametrize("draws", [1, 3, 100])
def test_draws_come_in_order_with_the_state_after_each(draws):
    block = Counter().block(draws)
    for i in range(8):
        assert block.state == i
        assert numbers(block()) == i
    assert block.state == 8


def test_draws_that_are_held_stay_as_they_are():
    """A step may still use one when the next block is drawn."""
    block = Counter().block(2)
    drawn = [block() for _ in range(5)]
    assert [numbers(each) for each in drawn] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_captured_step_reads_at_the_same_addresses(before):
    block = Counter().block(3)
    seen = [numbers(block()) for _ in range(before)]
    block.fix(2)
    block.reserve(2)
    places = [held.data_ptr() for held in block._held]
    for _ in range(4):
        block.reserve(2)
        assert [held.data_ptr() for held in block._held] == places
        seen += [numbers(block()), numbers(block())]
    assert seen == list(range(before + 8))
    assert block.state == before + 8
    block.fix(0)
    assert numbers(block()) == before + 8


def test_a_replayed_graph_moves_the_place_on_the_device_itself():
    block = Counter().block(4)
    block.fix(2)
    block.reserve(2)
    block._index.add_(2)  # as the graph does
    block.skip(2)
    assert block.state == 2
    assert numbers(block()) == 2


def test_it_forgets_when_the_stream_is_put_elsewhere():
    counter = Counter()
    block = counter.block(4)
    block()
    counter.next = 50
    block.forget()
    assert block.state == 50
    assert numbers(block()) == 50
