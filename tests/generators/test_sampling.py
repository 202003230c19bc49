import torch
from torch import nn

from began_cli.generators.sampling import CHUNK, generate, generate_all


class Ramp(nn.Module):
    """Images (N, 1, 1, 2) of latents (N, 2); records the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.sizes = nn.Parameter(torch.zeros(1)), []

    def forward(self, z):
        self.sizes.append(len(z))
        return z.view(-1, 1, 1, 2)


def test_chunks_have_one_size_and_the_images_their_order():
    network, z = Ramp(), torch.linspace(-1, 1, 2 * 150).view(150, 2)
    chunks = list(generate(network, z))
    assert [len(chunk) for chunk in chunks] == [64, 64, 22]
    assert network.sizes == [CHUNK] * 3  # the last one is padded
    pixels = torch.cat(chunks)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels.view(150, 2), ((z + 1) * 127.5).round().to(torch.uint8))
    assert torch.equal(generate_all(network, z), pixels)
    assert torch.equal(generate_all(network, z[140:141]), pixels[140:141])
