"""Messages of others inside ours."""

from arccse_hf.errors import one_line


def test_a_message_of_several_coloured_lines_becomes_a_plain_one():
    assert one_line("\x1b[96mStep 1\x1b[0m failed:\n\n  a\tb\r\nc ") == "Step 1 failed: a b c"
