"""`began sample`: images of a trained generator, or reconstructions by its critic."""

import hashlib
import itertools
import json
from collections.abc import Sequence

import numpy as np
import torch

from began_cli import images
from began_cli.data import pictures
from began_cli.device import pick_device
from began_cli.evaluation.energies import draw_energies, measure_energies, wasserstein
from began_cli.files import output_file, output_folder, writing
from began_cli.gan import latents
from began_cli.generators.load import Trained, load
from began_cli.generators.sampling import CHUNK, generate, generate_all
from began_cli.settings.commands import SampleConfig
from began_cli.terminal import plural, say


def main(cfg: SampleConfig) -> None:
    """Write the images of `cfg.seeds`, or reconstructions of `cfg.images`."""
    trained = load(cfg.ckpt, pick_device(cfg.device))
    if cfg.mode == "reconstruct":
        write_reconstructions(cfg, trained)
    else:
        write_samples(cfg, trained)


def write_samples(cfg: SampleConfig, trained: Trained) -> None:
    """Write the images of `cfg.seeds` as PNG files, one sheet, or an array."""
    path, network = trained.path, trained.network
    ending = ".npz" if cfg.format == "npz" else ".png"
    folder = trained.folder / f"sampled-{path.stem}"
    file = written = output_file(cfg.out, folder, name_seeds(cfg.seeds) + ending)
    z = latents.from_seeds(cfg.seeds, trained.settings.model.latent_dim)
    with writing(file):
        match cfg.format:
            case "png":
                digits = max(5, len(str(max(cfg.seeds))))
                files = [file.with_name(f"seed-{seed:0{digits}d}.png") for seed in cfg.seeds]
                images.save_pngs(itertools.chain.from_iterable(generate(network, z)), files)
                written = f"{files[0]} … {files[-1].name}" if len(files) > 1 else files[0]
            case "npz":
                arrays = images.to_nhwc(generate_all(network, z))
                seeds = np.array(cfg.seeds, np.int64)
                images.save_npz({"images": arrays, "seeds": seeds}, file)
            case _:
                sheet = images.grid(generate_all(network, z), images.columns_for(len(z)))
                images.save_png(sheet, file)
    say(f"{plural(len(z), 'image')} of {path}: {written}")


def name_seeds(seeds: Sequence[int]) -> str:
    """Return a file name for a set of seeds, without an ending."""
    if len(seeds) == 1:
        return f"seed-{seeds[0]}"
    if list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds-{seeds[0]}-{seeds[-1]}"
    text = "-".join(map(str, seeds))
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"seeds-{text}" if len(text) <= 40 else f"{len(seeds)}-seeds-{short}"


def write_reconstructions(cfg: SampleConfig, trained: Trained) -> None:
    """Write pairs of image and reconstruction, the energies, and both energies' histograms."""
    path, network, settings = trained.path, trained.network, trained.settings
    critic, loss = trained.critic("mode=reconstruct")
    reals = pictures.load(cfg.images, settings.dataset)
    for note in reals.notes:
        say(note)
    z = latents.from_seeds(cfg.seeds, settings.model.latent_dim)
    batches = (images.to_float(some.to(trained.device)) for some in reals.images.split(CHUNK))
    fakes = (network(some.to(trained.device)) for some in z.split(CHUNK))
    real, fake = (measure_energies(critic, loss, each) for each in (batches, fakes))
    distance = wasserstein(real, fake)
    shown = reals.images[:CHUNK]
    remade = critic(images.to_float(shown.to(trained.device))).images

    out = output_folder(cfg.out or trained.folder / f"reconstructed-{path.stem}")
    with writing(out):
        pairs = torch.stack([shown, images.to_uint8(remade).cpu()], dim=1).flatten(0, 1)
        sheet = images.grid(pairs, 2 * images.columns_for(len(pairs) // 2))
        images.save_png(sheet, out / "reconstructions.png")
        draw_energies(real, fake, distance, settings.loss.name, out / "losses.png")
        table = {
            "loss": settings.loss.name,
            "wasserstein": distance,
            "real": dict(zip(reals.names, real.tolist(), strict=True)),
            "generated": dict(zip(map(str, cfg.seeds), fake.tolist(), strict=True)),
        }
        text = json.dumps(table, indent=1, ensure_ascii=False)
        (out / "energies.json").write_text(text + "\n", encoding="utf-8")
    for name, energy in zip(reals.names, real.tolist(), strict=True):
        say(f"{name}: energy {energy:.4g}")
    say(
        f"{len(real):,} real images, mean energy {real.mean():.4g}; {len(fake):,} generated, "
        f"{fake.mean():.4g}; Wasserstein-1 distance {distance:.4g}: {out}/losses.png"
    )
