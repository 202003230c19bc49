"""What a run shows of itself: always the same latents and the same real images."""

from pathlib import Path

import torch
from torch import Tensor, nn

from began_cli import images
from began_cli.gan import latents
from began_cli.gan.update import Update
from began_cli.training.monitor import Monitor

SHOWN = 64  # images on a sample grid, and those that diversity is measured on
WALK_ROWS, WALK_STEPS = 4, 8  # of the interpolation that TensorBoard shows
SHOWN_POINTS = 2000  # of a data set in the plane


class Pictures:
    """Sample grids, reconstructions, and the samples' diversity."""

    def __init__(
        self, update: Update, pixels: Tensor, latent_dim: int, device: torch.device
    ) -> None:
        """`pixels` are the data set's images."""
        self.update, self.device = update, device
        self.points = pixels.shape[1] == 2  # of the plane, not images
        shown = SHOWN_POINTS if self.points else SHOWN
        self.reals = pixels[torch.linspace(0, len(pixels) - 1, shown).long()]
        self.fixed = latents.from_seeds(range(shown), latent_dim).to(device)
        ends = self.fixed[: 2 * WALK_ROWS]
        self.walk = latents.lerp(ends[::2], ends[1::2], WALK_STEPS).transpose(0, 1).flatten(0, 1)
        self.data_spread = spread(images.to_float(self.reals)).clamp(min=1e-6)

    def diversity(self) -> float:
        """The spread of the samples over that of as many real images; 0 is one image only."""
        return (spread(self.samples()) / self.data_spread).item()

    def samples(self) -> Tensor:
        """The images of the fixed latents, or points, (N, C, H, W)."""
        return sample(self.update.ema, self.fixed)

    def sheet(self, fakes: Tensor) -> Tensor:
        """What `samples` gave, as one uint8 picture (3, H, W)."""
        if self.points:
            return images.draw_points(fakes, self.reals)
        return images.grid(images.to_uint8(fakes), 8)

    def show_reals(self, run: Path) -> None:
        """samples/reals.png: what the samples should look like."""
        reals = self.reals
        sheet = images.draw_points(reals[:0], reals) if self.points else images.grid(reals, 8)
        images.save_png(sheet, run / "samples" / "reals.png")

    def show(self, run: Path, step: int, monitor: Monitor) -> None:
        """The samples of the fixed latents, and what an autoencoder makes of fixed images."""
        fakes = self.samples()
        sheet = self.sheet(fakes)
        images.save_png(sheet, run / "samples" / f"step-{step:08d}.png")
        monitor.picture("samples", sheet, step)
        if not self.points:
            walk = images.to_uint8(sample(self.update.ema, self.walk))
            monitor.picture("interpolation", images.grid(walk, WALK_STEPS), step)
        if self.update.loss.critic == "autoencoder" and not self.points:
            real = images.to_float(self.reals).to(self.device)
            for name, shown in (("real", real), ("fake", fakes)):
                monitor.picture(f"reconstructions/{name}", pairs(self.update, shown), step)


@torch.no_grad()
def sample(generator: nn.Module, z: Tensor) -> Tensor:
    """Images (N, C, H, W) of latents z, the generator being in evaluation mode."""
    return generator(z)


def spread(shown: Tensor) -> Tensor:
    """How much images differ: the root mean square over pixels of their standard deviation."""
    return shown.float().var(dim=0).mean().sqrt()


@torch.no_grad()
def pairs(update: Update, shown: Tensor) -> Tensor:
    """A sheet of images, each with its reconstruction to its right."""
    critic = update.discriminator.eval()
    both = torch.stack([shown, critic(shown).images], dim=1).flatten(0, 1)
    critic.train()
    return images.grid(images.to_uint8(both), 16)
