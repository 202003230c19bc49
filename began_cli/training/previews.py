"""Pictures of a run's progress, always from the same latents and the same real images."""

from pathlib import Path

import torch
from torch import Tensor, nn

from began_cli import images
from began_cli.gan import latents
from began_cli.gan.update import Update
from began_cli.training.monitor import Monitor, NoMonitor

COUNT = 64  # images of a sample grid, and of the measure of diversity
POINTS = 2000  # the same for a data set of points in the plane
WALK_ROWS, WALK_STEPS = 4, 8  # of the interpolation in TensorBoard


class Previews:
    """Sample grids, interpolations and reconstructions, and the samples' diversity."""

    def __init__(
        self, update: Update, pixels: Tensor, latent_dim: int, device: torch.device
    ) -> None:
        """`pixels` are all images of the data set, uint8 (N, C, H, W), or points (N, 2, 1, 1)."""
        self.update, self.device = update, device
        self.points = pixels.shape[1] == 2
        count = POINTS if self.points else COUNT
        self.reals = pixels[torch.linspace(0, len(pixels) - 1, count).long()]
        self.latents = latents.from_seeds(range(count), latent_dim).to(device)
        ends = self.latents[: 2 * WALK_ROWS]
        self.walk = latents.lerp(ends[::2], ends[1::2], WALK_STEPS).transpose(0, 1).flatten(0, 1)
        self.data_spread = spread(images.to_float(self.reals)).clamp(min=1e-6)

    def diversity(self) -> float:
        """Return the spread of the samples over that of real images; 0 for one image repeated."""
        return (spread(self.samples()) / self.data_spread).item()

    def samples(self) -> Tensor:
        """Return the images of the fixed latents (N, C, H, W), or points (N, 2, 1, 1)."""
        return sample(self.update.ema, self.latents)

    def save_reals(self, run: Path) -> None:
        """Write samples/reals.png, which the samples should come to resemble."""
        reals = self.reals
        sheet = images.draw_points(reals[:0], reals) if self.points else images.grid(reals, 8)
        images.save_png(sheet, run / "samples" / "reals.png")

    def save(self, run: Path, step: int, monitor: Monitor | NoMonitor) -> None:
        """Write the samples of the fixed latents to samples/ and TensorBoard.

        Interpolations and, of an autoencoder, reconstructions go to TensorBoard alone.
        """
        fakes = self.samples()
        if self.points:
            sheet = images.draw_points(fakes, self.reals)
        else:
            sheet = images.grid(images.to_uint8(fakes), 8)
        grid = run / "samples" / f"step-{step:08d}.png"
        images.save_png(sheet, grid)
        monitor.point_to(grid)
        monitor.log_image("samples", sheet, step)
        if self.points:
            return
        walk = images.to_uint8(sample(self.update.ema, self.walk))
        monitor.log_image("interpolation", images.grid(walk, WALK_STEPS), step)
        if self.update.loss.critic == "autoencoder":
            real = images.to_float(self.reals).to(self.device)
            for name, batch in (("real", real), ("fake", fakes)):
                monitor.log_image(f"reconstructions/{name}", pairs(self.update, batch), step)


@torch.no_grad()
def sample(generator: nn.Module, z: Tensor) -> Tensor:
    """Return the images (N, C, H, W) of latents z (N, dim); the generator is in evaluation mode."""
    return generator(z)


def spread(batch: Tensor) -> Tensor:
    """Return how much images (N, …) differ: the root mean square over pixels of their standard
    deviation over the images."""
    return batch.float().var(dim=0).mean().sqrt()


@torch.no_grad()
def pairs(update: Update, batch: Tensor) -> Tensor:
    """Return a sheet (3, H, W) of images, each beside its reconstruction by the critic."""
    critic = update.discriminator.eval()
    both = torch.stack([batch, critic(batch).images], dim=1).flatten(0, 1)
    critic.train()
    return images.grid(images.to_uint8(both), 16)
