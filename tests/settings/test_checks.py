"""Rules for one value, at their boundaries, and lists of whole numbers."""

from dataclasses import dataclass, field
from math import inf, nan, nextafter

import pytest

from began_cli.errors import UserError
from began_cli.settings import checks
from began_cli.settings.checks import check_fields, read_numbers

BELOW_1 = nextafter(1, 0)
TINY = nextafter(0, 1)


@pytest.mark.parametrize(
    ("rule", "accepted", "refused"),
    [
        (checks.at_least(2), (2, 10**20), (1, -2)),
        (checks.from_zero(), (0, 1e300), (-TINY, inf, nan)),
        (checks.above_zero(), (TINY, 1e300), (0, -1, inf, nan)),
        (checks.fraction(), (0, BELOW_1), (-TINY, 1, nan)),
        (checks.inside_unit(), (TINY, BELOW_1), (0, 1, nan)),
        (checks.one_of("l1", "l2"), ("l1", "l2"), ("l", "l1, l2", "")),
        (
            checks.device("same"),
            ("auto", "cpu", "mps", "cuda", "cuda:0", "cuda:123", "same"),
            ("", "CPU", "cuda:", "cuda:-1", "cuda:1234", "cpu:0", "cuda:0 ", "none"),
        ),
    ],
)
def test_a_rule_at_its_boundaries(rule, accepted, refused):
    assert [value for value in accepted if not rule.holds(value)] == []
    assert [value for value in refused if rule.holds(value)] == []


def test_a_rule_says_what_it_wants():
    assert checks.at_least(3).wants == "a whole number, 3 or more"
    assert checks.above_zero(", such as 1").wants == "a number above 0, such as 1"
    assert checks.one_of("l1", 2).wants == "one of l1, 2"


@dataclass
class Inner:
    x: int | None = field(metadata={"rule": checks.at_least(1)})


@dataclass
class Outer:
    free: int
    inner: Inner
    y: int = field(metadata={"rule": checks.at_least(1)})


def test_the_first_broken_rule_is_named_by_its_dotted_setting():
    check_fields(Outer(-1, Inner(None), 1))  # no rule, and None
    with pytest.raises(UserError, match=r"^inner\.x=0: wants a whole number, 1 or more$"):
        check_fields(Outer(-1, Inner(0), 0))
    with pytest.raises(UserError, match=r"^run\.y=0: wants"):
        check_fields(Outer(-1, Inner(1), 0), "run.")


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (7, [7]),
        ("0-3,8", [0, 1, 2, 3, 8]),
        (" 3 - 3 , 1", [3, 1]),
        ([3, 1, 3], [3, 1, 3]),
        ([5, "2-4"], [5, 2, 3, 4]),
        (None, None),
    ],
)
def test_whole_numbers_are_read(value, numbers):
    assert read_numbers(value, "seeds") == numbers


@pytest.mark.parametrize(
    "value", ["", "a", "1,", "-1", "1.5", "1-2-3", True, [None], [[1]], "5-2", "0-10000000", []]
)
def test_what_is_no_list_of_whole_numbers_is_refused(value):
    with pytest.raises(UserError, match=r"^seeds="):
        read_numbers(value, "seeds")
