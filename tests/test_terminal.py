from began_cli.terminal import say


def test_a_line_is_printed_as_it_is(capfd):
    line = "a[bold]b[/bold] " + "long " * 60 + "1.5"
    say(line)
    assert capfd.readouterr().out == line + "\n"
