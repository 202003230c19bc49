from began_cli.errors import UserError, reason


def test_the_reason_is_one_line():
    assert reason(ValueError("\n first\nsecond")) == "first"
    assert reason(KeyError()) == "KeyError"
    assert str(UserError("a\n b  c")) == "a b c"
