"""The `began` command: choose the command, prepare its line for Hydra, report errors.

Neither torch nor Hydra is imported before it is needed: help and completion answer at once.
"""

import hashlib
import io
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from began_cli import __version__
from began_cli.error_text import describe, quote, suggest
from began_cli.errors import UserError

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def main() -> None:
    """Run the command line. Exit with 2 and one line on stderr for what a user can put right."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without such letters is no error
    try:
        _dispatch(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        _fail("began", "interrupted", code=130)
    except BrokenPipeError:  # `began --help | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _dispatch(argv: list[str]) -> None:
    commands = [path.stem for path in sorted(CONF.glob("*.yaml"))]
    commands.sort(key="train".__ne__)  # train first, then by name
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help(commands))
    elif "--version" in argv or argv[0] == "-V":
        print(f"began {__version__}")
    elif argv[0] == "-sc":
        _complete(argv, commands)
    elif argv[0] in commands:
        _run(argv[0], argv[1:])
    else:
        _fail("began", f"no command '{argv[0]}'{suggest(argv[0], commands)}; see began --help")


def _help(commands: list[str]) -> str:
    lines = ["usage: began COMMAND [group=option …] [setting=value …]", "", "Commands:"]
    for name in commands:
        summary = (CONF / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"  {name:12} {summary}")
    lines += [
        "",
        "  began COMMAND --help        its settings and their values now",
        "  began COMMAND --cfg job     the settings that a line would use; runs nothing",
        "  began train -m a=1,2 b=3,4  one run for each combination",
        "  began --version             the version",
        '  eval "$(began -sc install=bash)"   tab completion in this shell',
        "",
        "First: began train loss=bgan dataset=mnist",
    ]
    return "\n".join(lines)


def _complete(argv: list[str], commands: list[str]) -> None:
    """Complete a line in the shell: the command here, the rest of the line by Hydra."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if "query=bash" in argv and (len(words) < 3 or words[1] not in commands):
        print(" ".join(name for name in commands if name.startswith(words[-1] or "")))
        return
    command = words[1] if "query=bash" in argv else "train"
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    sys.argv = ["began", *argv]
    from began_cli.settings.parse import register_schemas

    register_schemas()
    _hydra(command, lambda cfg: None)


def _run(command: str, line: list[str]) -> None:
    """Run one command. An error that a user can put right becomes one line and exit code 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its exceptions instead of printing them
    from hydra._internal.utils import get_args_parser
    from hydra.errors import HydraException

    from began_cli.run_command import Task
    from began_cli.settings.parse import register_schemas

    who = f"began {command}"
    parser = get_args_parser()
    parser.error = lambda message: _fail(who, message)
    args = parser.parse_intermixed_args(line)
    words = _name_runs(args.overrides) if command == "compare" else args.overrides
    if command == "train":
        _refuse_null(words)
    overrides = [_prepare(word, args.multirun) for word in words]
    if command == "train" and (processes := os.environ.get("WORLD_SIZE")):
        overrides = _share_among(int(processes), overrides, args.multirun)
    if args.multirun and any(word.startswith("out=") for word in overrides):
        _fail(who, "out: names the folder of one run; with -m use hydra.sweep.dir=…")
    if args.multirun:
        overrides += _name_sweep(overrides)
    flags = [word for word in line if word not in args.overrides]
    sys.argv = [who, *flags, *overrides]

    register_schemas()
    existing = _existing_folders(overrides)
    folder = _sweep_folder(overrides) if args.multirun else None
    failures_file = folder / ".failures" if folder else None  # where every job can reach it
    if failures_file:
        failures_file.unlink(missing_ok=True)
    task = Task(command, flags, args.multirun, existing, failures_file, CONF)
    try:
        if args.multirun:
            _check_sweep(command, overrides)
        _hydra(command, lambda cfg: task(cfg))
    except Exception as error:
        if task.crashed or isinstance(error, BrokenPipeError):
            raise
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            advice = "use out=FOLDER or another working directory"
            _fail(who, f"cannot write to {error.filename} ({error.strerror}); {advice}")
        resumes = any(word.startswith("resume=") for word in overrides)
        _fail(who, describe(error, CONF, resumes))
    if folder and (found := folder / "optimization_results.yaml").exists():
        _print_best(found, overrides)
    failures = task.failures()
    if failures and args.multirun:
        _fail(who, f"{len(failures)} of the sweep's runs failed: {'; '.join(failures)}", code=1)
    if failures:
        _fail(who, failures[0])


def _sweep_folder(overrides: list[str]) -> Path | None:
    """Return the folder of a sweep, None if only Hydra can tell."""
    for word in overrides:
        key, _, value = word.partition("=")
        if key == "hydra.sweep.dir" and "$" not in value:
            return Path(value.strip("'")).absolute()
    return None


def _print_best(found: Path, overrides: list[str]) -> None:
    """Print the best settings of a search, and the line that trains with them.

    `found` is the file in which Hydra's Optuna sweeper leaves them.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from began_cli.settings.parse import read_yaml

    result = read_yaml(found)
    fixed = [
        override.input_line
        for override in OverridesParser.create().parse_overrides(overrides)
        if not (override.is_sweep_override() or override.is_hydra_override())
    ]
    best = [f"{key}={value}" for key, value in result["best_params"].items()]
    print(f"best score: {result['best_value']:.4g}, with {' '.join(best)}; to train with them:")
    print("  " + shlex.join(["began", "train", *map(str, fixed), *best]))


def _share_among(processes: int, overrides: list[str], multirun: bool) -> list[str]:
    """Return the line of one of torchrun's processes; only the first has a run folder."""
    if multirun and processes > 1:
        _fail("began train", "-m: not under torchrun; use devices=N, for each run of the sweep")
    typed = next((word for word in overrides if word.startswith("devices=")), None)
    if typed and typed != f"devices={processes}":
        _fail("began train", f"{typed}: torchrun has started {processes} processes")
    overrides = [word for word in overrides if word != typed]
    if os.environ.get("RANK", "0") != "0":
        overrides = [word for word in overrides if not word.startswith("hydra.run.dir=")]
        overrides.append("hydra.run.dir=.")
    return [*overrides, f"devices={processes}"]


def _name_sweep(overrides: list[str]) -> list[str]:
    """Return the overrides of Hydra that name a sweep's folder and those of its runs.

    The same line gets the same names. The sweep's has the fixed settings with their values and the
    swept ones without, so that a further value goes into the same folder. A run's has the swept
    settings; if the user names the sweep's folder, a hash of the fixed ones follows, because runs
    of other sweeps may lie there.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from began_cli.settings.parse import file_name, read_yaml

    job = read_yaml(CONF / "train.yaml")["hydra"]["job"]
    left_out = job["config"]["override_dirname"]["exclude_keys"]
    words, fixed, swept = [], {}, False
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element()
        if override.is_sweep_override():
            words.append(key)
            swept = True
        elif not override.is_hydra_override() and key not in left_out:
            words.append(f"{key}-{override.get_value_element_as_str()}")
            fixed[override.key_or_group] = words[-1]
    named = any(word.startswith("hydra.sweep.dir=") for word in overrides)
    names = (
        [] if named else [f"hydra.sweep.dir={quote('outputs/sweep/' + file_name('_'.join(words)))}"]
    )
    if swept and fixed:
        excluded = ",".join([*left_out, *fixed])
        names.append(f"hydra.job.config.override_dirname.exclude_keys=[{excluded}]")
        if named and not any(word.startswith("hydra.sweep.subdir=") for word in overrides):
            short = hashlib.sha256("_".join(sorted(fixed.values())).encode()).hexdigest()[:8]
            name = "${file_name:${hydra.job.override_dirname}-" + short + "}"
            names.append(f"hydra.sweep.subdir={quote(name)}")
    return names


def _check_sweep(command: str, overrides: list[str]) -> None:
    """Compose and check each value of a sweep once, before its first run starts."""
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from began_cli.settings.parse import parse

    swept: list[list[str]] = []
    sweeper = next((w for w in reversed(overrides) if w.startswith("hydra/sweeper=")), "=basic")
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            swept.append([f"{override.get_key_element()}={value}" for value in _values(override)])
        elif not override.is_hydra_override():
            swept.append([str(override.input_line)])
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        for i in range(max((len(values) for values in swept), default=0)):
            chosen = [values[min(i, len(values) - 1)] for values in swept]
            cfg = parse(command, compose(command, chosen))
            if not sweeper.endswith("=basic") and command == "train" and not cfg.evaluate_every:
                raise UserError(
                    f"evaluate_every=0: {sweeper} needs a score to go by; set it, and "
                    "evaluation.score"
                )


def _values(override: Any) -> list[str]:
    """Return the values of a sweep over one setting; for a range to search in, its ends."""
    if override.value_type.name == "INTERVAL_SWEEP":
        interval = override.value()
        return [str(interval.start), str(interval.end)]
    if override.value_type.name == "GLOB_CHOICE_SWEEP":
        folder = CONF / override.key_or_group
        return override.value().filter(sorted(path.stem for path in folder.glob("*.yaml")))
    return list(override.sweep_string_iterator())


def _hydra(command: str, task: Any) -> None:
    import hydra

    hydra.main(config_path=str(CONF), config_name=command, version_base="1.3")(task)()


def _fail(who: str, message: str, code: int = 2) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":
        time.sleep(3)  # process 0 has mostly met the same error, and torchrun then ends this one
        who += f" (process {os.environ['RANK']})"
    print(f"{who}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _prepare(override: str, multirun: bool) -> str:
    """Quote paths for Hydra's grammar, and write 1e3 as 1000.

    A path is taken as it is typed, whatever characters it has. What is quoted already, a list, an
    interpolation, null, auto and the choices of a sweep are left for Hydra to read.
    """
    key, equals, value = override.partition("=")
    if key.lstrip("+") in _paths():
        if value in ("null", "auto") or value[:1] in tuple("'\"[{$"):
            return override
        whole = not multirun or Path(value).expanduser().exists()
        return key + equals + ",".join(map(quote, [value] if whole else value.split(",")))
    parts = [str(int(float(part))) if _is_whole(part) else part for part in value.split(",")]
    return f"{key}{equals}{','.join(parts)}"


def _paths() -> set[str]:
    """Return the names of the settings that are paths."""
    from began_cli.settings.train import PATHS

    return {*PATHS, "hydra.run.dir", "hydra.sweep.dir"}


def _name_runs(words: list[str]) -> list[str]:
    """Write `began compare a b` as `runs=[a,b]`; words without `=` and existing paths are runs."""
    runs = [word for word in words if "=" not in word or Path(word).exists()]
    rest = [word for word in words if word not in runs]
    if runs and any(word.startswith("runs=") for word in rest):
        _fail("began compare", f"runs: given twice, also as {runs[0]}; put all into one list")
    return [*rest, f"runs=[{','.join(map(quote, runs))}]"] if runs else words


def _refuse_null(words: list[str]) -> None:
    """Refuse `group=null`: Hydra's message doesn't name the group."""
    groups = {path.name: path for path in CONF.iterdir() if path.is_dir()}
    for group, _, value in (word.partition("=") for word in words):
        if group in groups and "null" in value.split(","):
            options = ", ".join(sorted(path.stem for path in groups[group].glob("*.yaml")))
            none = "; for none, leave it out" if group == "recipe" else ""
            _fail("began train", f"{group}={value}: wants one of {options}{none}")


def _is_whole(number: str) -> bool:
    """Return whether it is a whole number written with an exponent."""
    match = re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}", number)
    return match is not None and float(number).is_integer()


def _existing_folders(overrides: list[str]) -> set[Path]:
    """Return the folders above those that the line names which exist: a failed run keeps them."""
    paths = _paths()
    named = [Path("outputs/sweep")]
    for word in overrides:
        key, _, value = word.partition("=")
        if key in paths:
            named.append(Path(value.strip("'")))
    absolute = [path.absolute() for path in named]
    return {folder for path in absolute for folder in (path, *path.parents) if folder.exists()}
