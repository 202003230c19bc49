"""`began interpolate`: walks between latents of a trained generator."""

import torch
from rich.console import Console

from began_cli import images
from began_cli.commands.sample import generate, output_folder, trained_generator, writing
from began_cli.config import InterpolateConfig
from began_cli.gan import latents


def main(cfg: InterpolateConfig) -> None:
    """Writes one strip a row and a sheet of all, or one animation of all rows."""
    path, generator, trained = trained_generator(cfg.ckpt, cfg.device)
    out = output_folder(cfg.out, path, f"interpolated-{path.stem}")
    ends = latents.from_seeds(cfg.seeds, trained.model.latent_dim).view(cfg.rows, 2, -1)
    between = latents.slerp if cfg.mode == "slerp" else latents.lerp
    walk = between(ends[:, 0], ends[:, 1], cfg.steps)  # (steps, rows, latent_dim)
    made = torch.cat(list(generate(generator, walk.flatten(0, 1))))
    frames = made.unflatten(0, (cfg.steps, cfg.rows))

    with writing(out):
        if cfg.format == "gif":
            said = out / f"{cfg.mode}.gif"
            columns = images.columns_for(cfg.rows)
            there = [images.grid(frame, columns) for frame in frames]
            images.save_gif(there + there[-2:0:-1], said, cfg.fps)  # to and fro
        else:
            for row in range(cfg.rows):
                strip = images.grid(frames[:, row], cfg.steps)
                images.save_png(strip, out / f"{cfg.mode}-row-{row:02d}.png")
            said = out / f"{cfg.mode}.png"
            images.save_png(images.grid(frames.transpose(0, 1).flatten(0, 1), cfg.steps), said)
    Console(highlight=False).print(
        f"{cfg.rows} paths of {cfg.steps} images of {path}: {said}", markup=False, soft_wrap=True
    )
