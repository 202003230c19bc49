"""Picks the command, hands the line to Hydra, and words the errors. Never imports torch itself."""

import difflib
import importlib
import io
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from began_cli import __version__
from began_cli.errors import UserError

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def main() -> None:
    """The `began` command: exits with 0, or with 2 and one line on stderr for a user's mistake."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our letters is no error
    try:
        _dispatch(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        _fail("began", "interrupted", code=130)
    except BrokenPipeError:  # `began --help | head`: whoever read us has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _dispatch(argv: list[str]) -> None:
    commands = [path.stem for path in sorted(CONF.glob("*.yaml"), key=_order)]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help(commands))
    elif "--version" in argv or argv[0] == "-V":
        print(f"began {__version__}")
    elif argv[0] == "-sc":
        _complete(argv, commands)
    elif argv[0] in commands:
        _run(argv[0], argv[1:])
    else:
        _fail(
            "began", f"no command '{argv[0]}'{_did_you_mean(argv[0], commands)}; see began --help"
        )


def _order(path: Path) -> tuple[bool, str]:
    return path.stem != "train", path.stem  # train first, then by name


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
    """Tab completion: the commands are ours, the rest of the line is Hydra's."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if "query=bash" in argv and (len(words) < 3 or words[1] not in commands):
        print(" ".join(name for name in commands if name.startswith(words[-1] or "")))
        return
    command = words[1] if "query=bash" in argv else "train"
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    sys.argv = ["began", *argv]
    from began_cli import settings

    settings.register()
    _hydra(command, lambda cfg: None)


def _run(command: str, line: list[str]) -> None:
    """Runs one command; every error a user can put right becomes one line and exit 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand us the exceptions themselves
    from hydra._internal.utils import get_args_parser
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from began_cli import settings

    user_errors = (UserError, HydraException, OmegaConfBaseException)
    who = f"began {command}"
    parser = get_args_parser()
    parser.error = lambda message: _fail(who, message)
    args = parser.parse_intermixed_args(line)
    words = _with_runs(args.overrides) if command == "compare" else args.overrides
    overrides = [_tame(word, args.multirun) for word in words]
    if args.multirun and any(word.startswith("out=") for word in overrides):
        _fail(who, "out: names the folder of one run; with -m use hydra.sweep.dir=…")
    if args.multirun and not any(word.startswith("hydra.sweep.dir=") for word in overrides):
        overrides.append(f"hydra.sweep.dir={_quoted(_sweep_folder(overrides))}")
    kept = _standing_folders(overrides)
    sys.argv = [who, *(word for word in line if word not in args.overrides), *overrides]

    failures: list[str] = []
    crashed = False

    def task(cfg: Any) -> Any:
        nonlocal crashed
        hydra = HydraConfig.get()
        try:
            if command == "train":
                cfg.out = hydra.runtime.output_dir
                if (
                    args.multirun
                    and cfg.resume is None
                    and any(Path(cfg.out).glob("checkpoints/step-*.pt"))
                ):
                    cfg.resume = cfg.out  # the same sweep once more: it goes on, or is done
            parsed = settings.parse(command, cfg)
            module = importlib.import_module(f"began_cli.commands.{command}")
            if command == "train":
                return module.main(parsed, [_key(word) for word in hydra.overrides.task])
            return module.main(parsed)
        except user_errors as error:
            failures.append(_worded(error))
            if args.multirun:
                failures[-1] = f"[{' '.join(hydra.overrides.task)}] {failures[-1]}"
                print(f"{who}: {failures[-1]}", file=sys.stderr, flush=True)
        except Exception as error:  # a bug of ours: the whole traceback
            if not args.multirun:
                crashed = True
                raise
            traceback.print_exc()
            failures.append(f"[{' '.join(hydra.overrides.task)}] {type(error).__name__}: {error}")
        finally:
            _discard_empty(Path(hydra.runtime.output_dir), kept)

    settings.register()
    try:
        if args.multirun:
            _check_sweep(command, overrides)
        _hydra(command, task)
    except Exception as error:
        if crashed or isinstance(error, BrokenPipeError):
            raise
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            _fail(who, f"cannot write to {error.filename}: {error.strerror}")
        _fail(who, _worded(error))
    if failures and args.multirun:
        _fail(who, f"{len(failures)} of the sweep's runs failed: {'; '.join(failures)}", code=1)
    if failures:
        _fail(who, failures[0])


def _sweep_folder(overrides: list[str]) -> str:
    """Where a sweep without a folder of its own goes: the same line, the same folder.

    Its name has the fixed settings with their values and the swept ones without, so that a value
    more goes into the same folder.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from began_cli import settings

    words = []
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element()
        if override.is_sweep_override():
            words.append(key)
        elif not override.is_hydra_override() and key not in UNNAMED:
            words.append(f"{key}-{override.get_value_element_as_str()}")
    return "outputs/sweep/" + settings.file_name("_".join(words))


def _check_sweep(command: str, overrides: list[str]) -> None:
    """Composes and checks each value of a sweep once, before its first run starts."""
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from began_cli import settings

    swept: list[list[str]] = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            values = list(override.sweep_string_iterator())
            swept.append([f"{override.get_key_element()}={value}" for value in values])
        elif not override.is_hydra_override():
            swept.append([str(override.input_line)])
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        for i in range(max((len(values) for values in swept), default=0)):
            chosen = [values[min(i, len(values) - 1)] for values in swept]
            settings.parse(command, compose(command, chosen))


def _hydra(command: str, task: Any) -> None:
    import hydra

    hydra.main(config_path=str(CONF), config_name=command, version_base="1.3")(task)()


def _fail(who: str, message: str, code: int = 2) -> NoReturn:
    print(f"{who}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


UNNAMED = {"resume", "device", "dataset.root", "dataset.device", "dataset.cache"}
PATHS = {
    *("ckpt", "resume", "out", "images", "latents", "runs", "hydra.run.dir", "hydra.sweep.dir"),
    *("dataset.root", "dataset.cache", "root", "extractor", "weights", "cache"),
}


def _tame(override: str, multirun: bool) -> str:
    """Quotes paths for Hydra's grammar, and writes 1e3 as 1000.

    A path is taken as it is typed, whatever letters are in it: only what is quoted already, a list,
    an interpolation, null, auto, or a sweep's choices are Hydra's to read.
    """
    key, equals, value = override.partition("=")
    if key.lstrip("+") in PATHS:
        if value in ("null", "auto") or value[:1] in tuple("'\"[{$"):
            return override
        whole = not multirun or Path(value).expanduser().exists()
        return key + equals + ",".join(map(_quoted, [value] if whole else value.split(",")))
    parts = [str(int(float(part))) if _whole(part) else part for part in value.split(",")]
    return f"{key}{equals}{','.join(parts)}"


def _with_runs(words: list[str]) -> list[str]:
    """`began compare a b` is `began compare runs=[a,b]`: what sets nothing, or exists, is a run."""
    runs = [word for word in words if "=" not in word or Path(word).exists()]
    rest = [word for word in words if word not in runs]
    if runs and any(word.startswith("runs=") for word in rest):
        _fail("began compare", f"runs: given twice, also as {runs[0]}; put all into one list")
    return [*rest, f"runs=[{','.join(map(_quoted, runs))}]"] if runs else words


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _whole(number: str) -> bool:
    """Whether it is a whole number written with an exponent."""
    match = re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}", number)
    return match is not None and float(number).is_integer()


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _standing_folders(overrides: list[str]) -> set[Path]:
    """The folders that a run could be put into and that are there already: they are not ours."""
    named = [Path("outputs/sweep")]
    for word in overrides:
        key, _, value = word.partition("=")
        if key in PATHS:
            named.append(Path(value.strip("'")))
    every = [path.absolute() for path in named]
    return {folder for path in every for folder in (path, *path.parents) if folder.exists()}


def _discard_empty(folder: Path, kept: set[Path]) -> None:
    """Removes the run folder that Hydra made if nothing came of it, and its empty parents."""
    for path in (folder, *folder.parents):
        if path in kept:
            return
        try:
            path.rmdir()
        except OSError:
            return


# --- the words of an error -----------------------------------------------------------------------


def _did_you_mean(word: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _worded(error: BaseException) -> str:
    """One line that names the setting and what was wrong with it."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf import errors as oc

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OverrideParseException):
        said = f"cannot read '{error.override}'"
        return f"{said}: write setting=value, and quote a value with spaces or commas"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = [str(option) for option in error.options or []]
        if group:
            return (
                f"no {group} '{name}'{_did_you_mean(name, options)}; there are {', '.join(options)}"
            )
    cause = error if isinstance(error, oc.OmegaConfBaseException) else error.__cause__
    if isinstance(cause, oc.ConfigKeyError | oc.ConfigAttributeError) and cause.full_key:
        return _no_setting(cause)
    first = (str(cause or error).strip() or type(error).__name__).splitlines()[0]
    match = re.match(r"Ambiguous value for argument '(.*?)=", str(error))
    if match:
        return (
            f"{match[1]}: several values: add -m for a sweep, or write {match[1]}=[a,b] for a list"
        )
    if isinstance(cause, oc.MissingMandatoryValue):
        return f"{cause.full_key} is missing: give it as {cause.full_key}=…"
    if isinstance(cause, oc.ValidationError) and cause.full_key:
        kinds = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        match = re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", first)
        if match:
            return f"{cause.full_key}={match[1]}: wants {kinds.get(match[2], match[2])}"
        return f"{cause.full_key}: {first}"
    match = re.search(r"Could not override '(.*)'", first)
    if match and "defaults list" in str(error):
        groups = [path.name for path in CONF.iterdir() if path.is_dir()]
        return f"no group '{match[1]}'{_did_you_mean(match[1], groups)}"
    return first


WHY_NOT = {
    "loss.pack": "only score discriminators judge images together: loss=gan, bgan, wgan or wgan_gp",
    "loss.pt_weight": "only loss=ebgan_pt pulls away; that needs an autoencoder's code",
    "loss.margin": "only loss=ebgan and ebgan_pt have a hinge",
    "loss.gamma": "only loss=began and began_relative keep an equilibrium",
}


def _no_setting(error: Any) -> str:
    if error.full_key in WHY_NOT:
        return f"no setting '{error.full_key}' here: {WHY_NOT[error.full_key]}"
    parent = error.parent_node
    keys = [str(key) for key in parent] if parent is not None and hasattr(parent, "keys") else []
    return f"no setting '{error.full_key}'{_did_you_mean(str(error.key), keys)}"
