"""The table of messages in ``docs/logs.md`` has every message of the source, with its level and logger, and no other."""

from __future__ import annotations

from tests.logs.messages import ROOT, Message, messages


def documented() -> dict[Message, str]:
    _, _, table = (ROOT / "docs/logs.md").read_text().partition("| level | logger | message | what to do |\n")
    rows = [[cell.strip() for cell in row.split(" | ")] for row in table.splitlines()[1:]]
    return {
        Message(level.strip("| "), logger.strip("`"), message.strip("`")): what.removesuffix("|").strip()
        for level, logger, message, what in rows
    }


def test_every_message_is_in_the_table_and_says_what_to_do() -> None:
    table = documented()
    missing = {message: where for message, where in messages().items() if message not in table}
    rows = "\n".join(
        f"| {message.level} | `{message.logger}` | `{message.text}` | … |   <- {where}" for message, where in missing.items()
    )
    assert not missing, f"add to docs/logs.md, with what to do:\n{rows}"
    assert [message for message, what in table.items() if not what] == []


def test_the_table_has_no_message_that_is_never_written() -> None:
    assert sorted(set(documented()) - set(messages())) == []


def test_the_scan_finds_messages() -> None:
    found = messages()
    assert len(found) > 50
    assert Message("WARNING", "eventcore.exporters.NAME", "stalled: …") in found
    assert Message("ERROR", "eventcore.exporters.NAME", "internal error: …") in found
