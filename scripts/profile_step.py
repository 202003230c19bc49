"""Profile a training step.

    python scripts/profile_step.py [--steps 5] [--out trace.json] [setting=value …]

Prints the ten costliest operators and writes a trace for a browser: open it in ui.perfetto.dev or
chrome://tracing. The settings are those of `began train`; the images are random pixels.
"""

from pathlib import Path

from benchmark import make_noise
from common import compose_settings, make_parser, report_errors
from torch.profiler import ProfilerActivity, profile, record_function

from began_cli.device import pick_device, wait
from began_cli.training.setup import build_parts


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("trace.json"))
    parser.add_argument("settings", nargs="*", help="as for `began train`")
    args = parser.parse_intermixed_args()
    cfg = compose_settings(args.settings)
    device = pick_device(cfg.device)
    update, batches, stream = build_parts(cfg, make_noise(cfg), device)
    if cfg.compile != "off":
        update.compile(cfg.compile, batches(), stream())
    for _ in range(2):
        update(batches, stream)
    wait(device)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(args.steps):
            with record_function("step"):
                update(batches, stream)
        wait(device)
    profiler.export_chrome_trace(str(args.out))
    costliest = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=costliest, row_limit=10, max_name_column_width=50))
    print(f"{args.out}: open it in ui.perfetto.dev")


if __name__ == "__main__":
    with report_errors():
        main()
