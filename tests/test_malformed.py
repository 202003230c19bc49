"""Malformed lines, made up by Hypothesis: never a traceback, never a file written."""

from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

KEYS = [
    *("steps", "batch_size", "seed", "device", "precision", "log_every", "resume", "watchdog"),
    *("loss", "dataset", "model", "optimizer", "schedule", "recipe", "watch.diversity"),
    *("loss.gamma", "loss.log_z", "loss.margin", "dataset.image_size", "dataset.channels"),
    *("dataset.root", "model.width", "optimizer.lr", "optimizer.betas", "ema.decay", "disk_full"),
    *("accumulate", "compile", "dry_run", "evaluate_every", "evaluation.n", "evaluation.score"),
    *("loss.pack", "dataset.cache", "dataset.flip", "model.output", "optimizer.eps"),
    *("hydra.run", "loss.name", "model.name", "schedule.name", "nothing", "loss.", ".", ""),
]
VALUES = st.one_of(
    st.sampled_from(
        [
            *("null", "-1", "0", "1e999", "nan", "true", "[]", "{}", "[1,2,3]", "???", "${steps}"),
            *(
                "${nowhere}",
                "${oc.env:NOWHERE}",
                "'",
                '"',
                "a,b",
                "{a:1}",
                "[",
                "=",
                "\\",
                "~",
                "1.5",
            ),
            *("-inf", "0x10", "began", "mnist", "2**3", "range(1,3)", "choice(1,2)", "glob(*)"),
        ]
    ),
    st.text(max_size=12),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
)
OVERRIDES = st.tuples(
    st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), st.sampled_from(["=", ""]), VALUES
).map("".join)


@budget(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=st.lists(OVERRIDES, min_size=1, max_size=3))
def test_a_line_is_refused_in_one_line_or_composes(began, monkeypatch, tmp_path, line):
    """The command itself is replaced: what gets as far as it has passed every check."""
    reached = []
    monkeypatch.setattr("began_cli.commands.train.main", lambda *a: reached.append(a))
    line = [word.replace("\0", "") for word in line]
    if any(word in ("-h", "--help") or word.startswith("-") for word in line):
        return
    code, _, err = began("train", *line)
    if not reached:
        assert code == 2, (line, err)
        assert err.count("\n") == 1, (line, err)
        assert err.startswith("began train: ")
    assert list(tmp_path.iterdir()) == []
