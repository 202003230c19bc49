import torch
from torch import nn
from torch.optim import SGD

from began_cli.gan.losses import Ebgan, Reconstruction
from began_cli.gan.margin import find_margin
from began_cli.settings.train import EbganLossConfig


class Constant(nn.Module):
    """An "autoencoder" that gives one learned grey for every image."""

    def __init__(self):
        super().__init__()
        self.grey = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        return Reconstruction(self.grey.expand_as(images), images.flatten(1))


def test_margin_is_the_energy_of_an_autoencoder_trained_alone():
    """Images of -0.5 and 0.5: the best grey is between, at a distance of 0.5 a pixel, 4 pixels."""
    loss = Ebgan(EbganLossConfig("ebgan", 1.0, 1), (1, 4, 4))
    model = Constant()
    images = torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    margin = find_margin(model, loss, SGD(model.parameters(), 0.05), lambda: images, 100)
    assert abs(margin - 0.5 * 2) < 0.01  # sqrt(4 * 0.5^2)
    assert abs(model.grey.item()) <= 0.5
