"""The page of `began explore`, in Gradio. All it needs comes from this machine."""

import base64
import functools
import html
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from began_cli import images
from began_cli.errors import UserError
from began_cli.explore import views
from began_cli.explore.views import Explorer
from began_cli.gan import latents
from began_cli.generators.load import Trained
from began_cli.generators.sampling import find_strongest, generate_all

AXES = 8  # sliders at a time
FPS = 12  # of an animation
CSS = """
.images {display: flex; flex-wrap: wrap; gap: 16px}
.images figure {margin: 0; width: 448px; max-width: 100%}
.images figure:has(.large) {width: 216px}
.images figcaption {padding-top: 4px}
.images img {image-rendering: pixelated; width: 100%; display: block; outline: 1px solid #8884}
.images .cells {display: grid; gap: 3px}
.images .cells img {cursor: pointer}
.images .cells .picked {outline: 4px solid #e67800}
.message {padding: 8px 12px; border-left: 4px solid #c62828}
"""
# A click on an image of the grid tells its seed
ON_CLICK = """
element.addEventListener("click", (event) => {
  const seed = event.target.dataset.seed;
  if (seed !== undefined) trigger("click", {seed: seed});
});
"""


def fit(self: gr.Slider, payload: float | None) -> float:
    """Return the number in a slider's box, brought into its range; the first one if it is empty.

    The box sends whatever stands in it at each key: 1, on the way to 16.
    """
    number = self.value if payload is None else payload
    return min(max(number, self.minimum), self.maximum)


# Gradio's own raises an error. For a subclass it would write a file app.pyi beside this one.
gr.Slider.preprocess = fit


def build(explorer: Explorer, ckpt: str | None, beside: str | None) -> gr.Blocks:
    """Return the page, which opens on the file `ckpt`, by default the newest, and on `beside`."""
    # Sliders answer without the queue: it would cost them more than the network does.
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    quick["trigger_mode"] = "always_last"
    slow: dict[str, Any] = {"api_visibility": "private"}
    with gr.Blocks(title="began explore", analytics_enabled=False) as page:
        found = gr.State(None)  # the latents that were found for the picture
        moved = gr.State(None)  # the latents whose axes are moved: see list_axes
        with gr.Row(equal_height=True):
            first = gr.Dropdown(label="Generator", elem_id="first", scale=4)
            label = "Beside it, from the same latents"
            second = gr.Dropdown(label=label, elem_id="second", scale=4)
            refresh = gr.Button("Refresh", elem_id="refresh", size="sm", min_width=90)
        pair = [first, second]

        with gr.Tab("Seeds"):
            with gr.Row():
                start = gr.Number(0, label="First seed", elem_id="start")
                count = gr.Slider(4, 100, 36, step=1, label="Images", elem_id="count")
            gr.Markdown("Click images to pick and to drop them. Walk goes through those picked.")
            seeds = gr.HTML(elem_id="seeds", js_on_load=ON_CLICK)
        with gr.Tab("Walk", id="walk"):
            with gr.Row(equal_height=True):
                label = "Through: seeds, and picture for the one that was searched for"
                ends = gr.Textbox("0, 1", label=label, elem_id="ends", scale=3)
                mode = gr.Radio(["lerp", "slerp"], value="lerp", label="Mode", elem_id="mode")
                animate = gr.Button("Animate", elem_id="animate", size="sm", min_width=90)
            time = gr.Slider(0, 1, 0, step=0.005, label="How far along", elem_id="time")
            with gr.Row():
                walked = gr.HTML(elem_id="walked")
                animation = gr.HTML(elem_id="animation")
        with gr.Tab("Axes"):
            with gr.Row():
                seed = gr.Number(0, label="Seed", elem_id="seed")
                label = "First axis, where number 1 changes the image most"
                rank = gr.Number(1, label=label, precision=0, elem_id="rank")
            with gr.Row():
                with gr.Column():
                    sliders = [
                        gr.Slider(-1, 1, 0, step=0.02, elem_id=f"axis-{i}") for i in range(AXES)
                    ]
                with gr.Column():
                    turned = gr.HTML(elem_id="turned")
        with gr.Tab("Picture"), gr.Row():
            with gr.Column():
                file = gr.File(label="Drop a picture here", elem_id="file", height=140)
                starts = gr.Slider(1, 16, 8, step=1, label="Starts of the search")
                steps = gr.Slider(25, 2000, 1000, step=25, label="Steps at most", elem_id="steps")
                search = gr.Button("Search for its latents", elem_id="search", variant="primary")
            with gr.Column():
                judged = gr.HTML(elem_id="judged")
                result = gr.HTML(elem_id="result", min_height=90)

        def grid(one: str, two: str | None, start: float, count: float, ends: str) -> str:
            least = _seed("First seed", start)
            numbers = range(least, least + int(count))
            picked = {word.strip() for word in ends.split(",")}
            return _figures(
                _cells(each, numbers, picked) + _caption(each) for each in explorer.pair(one, two)
            )

        def pick(ends: str, event: gr.EventData) -> str:
            words = [word.strip() for word in ends.split(",") if word.strip()]
            words.remove(event.seed) if event.seed in words else words.append(event.seed)
            return ", ".join(words)

        def ends_of(pair: list[Trained], ends: str, found: list[float] | None) -> Tensor:
            dim = pair[0].settings.model.latent_dim
            known = None if found is None else torch.tensor(found)
            return views.find_latents(views.read_ends(ends), dim, known)

        def step_to(
            one: str, two: str | None, ends: str, mode: str, found: Any, time: float
        ) -> str:
            pair = explorer.pair(one, two)
            path = views.walk(ends_of(pair, ends, found), mode)
            z = path[round(time * (len(path) - 1))][None]
            return _figures(_large(views.draw(each, z)[0]) + _caption(each) for each in pair)

        def show_animation(one: str, two: str | None, ends: str, mode: str, found: Any) -> str:
            pair = explorer.pair(one, two)
            path = views.walk(ends_of(pair, ends, found), mode)
            return _figures(
                _animated(generate_all(each.network, path)) + _caption(each, "animation: ")
                for each in pair
            )

        def list_axes(
            one: str, two: str | None, seed: float, rank: int, moved: dict[str, Any] | None
        ) -> list[Any]:
            pair = explorer.pair(one, two)
            begun = [one, _seed("Seed", seed)]
            if moved is None or moved["begun"] != begun:
                z = latents.from_seeds(begun[1:], pair[0].settings.model.latent_dim)[0]
                order = find_strongest(pair[0].network, z, len(z))
                moved = {"begun": begun, "z": z.tolist(), "order": order}
            z, order = moved["z"], moved["order"]
            skip = max(0, min(int(rank or 1) - 1, len(z) - 1))
            axes = order[skip : skip + AXES]
            labels = [
                gr.update(label=f"axis {axis}", value=round(z[axis], 2), visible=True)
                for axis in axes
            ]
            labels += [gr.update(visible=False)] * (AXES - len(axes))
            return [*turn(one, two, moved | {"shown": axes}), *labels]

        def turn(
            one: str, two: str | None, moved: dict[str, Any] | None, *values: float
        ) -> tuple[str, dict[str, Any]]:
            pair = explorer.pair(one, two)
            if moved is None or moved["begun"][0] != one:
                raise UserError("the sliders are still those of another generator")
            z = torch.tensor(moved["z"])
            for axis, value in zip(moved["shown"], values, strict=False):
                z[axis] = value
            shown = _figures(_large(views.draw(each, z[None])[0]) + _caption(each) for each in pair)
            return shown, moved | {"z": z.tolist()}

        def show_picture(one: str, file: str | None) -> tuple[str, str]:
            if file is None:
                return "", ""
            made = views.judge(explorer.load(one), file)
            seen = "as the networks see it"
            parts = [_large(made.picture) + _text(", ".join([seen, *made.notes]))]
            if made.remade is not None:
                parts.append(_large(made.remade) + _text(f"D's reconstruction: {made.report}"))
                return _figures(parts), ""
            return _figures(parts) + _text(f"No reconstruction: {made.report}"), ""

        def find(
            one: str,
            file: str | None,
            starts: int,
            steps: int,
            ends: str,
            progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio looks for it here
        ) -> tuple[str, list[float], str]:
            if file is None:
                raise UserError("no picture yet: drop one first")
            progress(0, desc="searching")
            made = views.search(
                explorer.load(one),
                file,
                int(starts),
                int(steps),
                lambda step, error: progress(step / steps, desc=f"l1 error {error:.4f}"),
            )
            line = _figures([_large(made.image) + _text(f"found: {made.report}")])
            walks = ", ".join([views.PICTURE, *(re.findall(r"\d+", ends)[-1:] or ["0"])])
            return line + _text(f"Walk goes from it now: {walks}."), made.latents.tolist(), walks

        def list_all(one: str | None, two: str | None) -> list[Any]:
            found = explorer.find_all()
            for kept in (one, two):
                if kept and kept not in found.values():
                    found[kept] = kept
            newest = next(iter(found.values()), None)
            return [
                gr.update(choices=list(found.items()), value=one or newest),
                gr.update(choices=[("nothing", ""), *found.items()], value=two or ""),
            ]

        show_grid = {"fn": said(grid), "inputs": [*pair, start, count, ends], "outputs": seeds}
        show_walk = {
            "fn": said(step_to),
            "inputs": [*pair, ends, mode, found, time],
            "outputs": walked,
        }
        show_axes = {
            "fn": said(list_axes, 1 + AXES),
            "inputs": [*pair, seed, rank, moved],
            "outputs": [turned, moved, *sliders],
        }
        # Events of the user alone: a dropdown's `change` follows on its own update without end.
        opened = page.load(lambda: list_all(ckpt, beside), None, pair, **slow)
        for chosen in (opened, first.input(lambda: None, None, found, **quick), second.input(None)):
            chosen.then(**show_grid, **quick)
            chosen.then(**show_walk, **quick)
            chosen.then(**show_axes, **quick)
        refresh.click(list_all, pair, pair, **slow)
        gr.on([start.input, count.input], **show_grid, **quick)
        for typed in (ends.submit, ends.blur):
            typed(**show_grid, **quick).then(**show_walk, **quick)
        picked = seeds.click(pick, ends, ends, **quick)
        picked.then(**show_grid, **quick).then(**show_walk, **quick)
        gr.on([time.input, mode.input], **show_walk, **quick)
        stale = [first.input, second.input, ends.change, mode.input]
        gr.on(stale, lambda: "", None, animation, **quick)
        animate.click(said(show_animation), [*pair, ends, mode, found], animation, **slow)
        gr.on([seed.input, rank.input], **show_axes, **quick)
        gr.on(
            [slider.input for slider in sliders],
            said(turn, 1),
            [*pair, moved, *sliders],
            [turned, moved],
            **quick,
        )
        seen = [first.input, file.upload, file.clear]
        gr.on(seen, said(show_picture, 1), [first, file], [judged, result], **slow)
        typed = [first, file, starts, steps, ends]
        searched = search.click(said(find, 2), typed, [result, found, ends], **slow)
        searched.then(**show_walk, **quick)
    return page


def said(function: Callable[..., Any], more: int = 0) -> Callable[..., Any]:
    """Return the function with a UserError's text in place of what it shows.

    `more` is the number of its outputs after the first; they then stay as they are.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            message = f'<p class="message">{html.escape(str(error))}</p>'
            return [message, *[gr.skip()] * more] if more else message

    return run


def _seed(label: str, value: float | None) -> int:
    """Return the number in the field of that label as a seed."""
    if value is None or not 0 <= value < 10**18 or value % 1:
        given = "" if value is None else f", not {value}"
        raise UserError(f"{label}: wants a whole number from 0 to 10^18{given}")
    return int(value)


# --- HTML -----------------------------------------------------------------------------------------


def _source(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _image(image: Tensor, more: str = "") -> str:
    """Return uint8 pixels (C, H, W) as an element."""
    data = io.BytesIO()
    images.to_pil(image).save(data, "PNG", compress_level=1)
    return f'<img src="{_source(data.getvalue(), "png")}" {more}>'


def _large(image: Tensor) -> str:
    return f'<div class="large">{_image(image)}</div>'


def _animated(frames: Tensor) -> str:
    """Return images (N, C, H, W) as an animation there and back."""
    forth = list(frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "walk.webp"
        images.save_animation(forth + forth[-2:0:-1], path, FPS)
        source = _source(path.read_bytes(), "webp")
    return f'<div class="large"><img src="{source}"></div>'


def _cells(trained: Trained, seeds: range, picked: set[str]) -> str:
    """Return a grid of a generator's images, each with its seed; those picked have a frame."""
    z = latents.from_seeds(seeds, trained.settings.model.latent_dim)
    cells = [
        _image(image, f'data-seed="{seed}" title="seed {seed}"' + ' class="picked"' * chosen)
        for image, seed in zip(generate_all(trained.network, z), seeds, strict=True)
        for chosen in [str(seed) in picked]
    ]
    columns = images.columns_for(len(cells))
    style = f"grid-template-columns: repeat({columns}, 1fr)"
    return f'<div class="cells" style="{style}">{"".join(cells)}</div>'


def _caption(trained: Trained, kind: str = "") -> str:
    name = trained.path.stem if trained.state is None else trained.folder.name
    return _text(f"{kind}{name}, step {trained.card['step']:,}")


def _text(text: str) -> str:
    return f"<figcaption>{html.escape(text)}</figcaption>"


def _figures(parts: Any) -> str:
    inside = "".join(f"<figure>{part}</figure>" for part in parts)
    return f'<div class="images">{inside}</div>'
