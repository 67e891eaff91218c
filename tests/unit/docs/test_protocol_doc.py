"""docs/protocol.md and the Wireshark dissector match the code."""

import re
from pathlib import Path

import pytest

from docs import generate
from toolkit.rudp import wire
from toolkit.transfer.message_types import MessageType
from toolkit.transfer.session import TRANSITIONS, Role, SessionState
from toolkit.transports.tcp import wire as tcp_wire

DOCS = Path(__file__).parents[3] / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text("utf-8")
DISSECTOR = (DOCS / "wireshark" / "nettool.lua").read_text("utf-8")


def section(title: str) -> str:
    """The text under a heading of the second level."""
    _, _, rest = PROTOCOL.partition(f"\n## {title}\n")
    assert rest, f"docs/protocol.md has no section {title!r}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_generated_tables_are_up_to_date() -> None:
    """If this fails, run `python docs/generate.py`."""
    assert generate.fill(PROTOCOL, generate.markdown_sections(), generate.MARKDOWN_COMMENT) == PROTOCOL
    assert generate.fill(DISSECTOR, generate.lua_sections(), generate.LUA_COMMENT) == DISSECTOR


@pytest.mark.parametrize(
    ("text", "sections", "comment"),
    [
        (PROTOCOL, generate.markdown_sections(), generate.MARKDOWN_COMMENT),
        (DISSECTOR, generate.lua_sections(), generate.LUA_COMMENT),
    ],
    ids=["protocol", "dissector"],
)
def test_every_section_marked_as_generated_is_generated(
    text: str, sections: dict[str, str], comment: tuple[str, str]
) -> None:
    opening, closing = (re.escape(part) for part in comment)
    marks = re.findall(f"^{opening}{re.escape(generate.BEGIN)}(.*?){closing}$", text, re.MULTILINE)
    assert sorted(marks) == sorted(sections)


@pytest.mark.parametrize("kind", list(wire.LAYOUTS), ids=lambda kind: kind.name)
def test_the_fields_of_a_table_add_up_to_the_size_of_the_packet(kind: wire.PacketType) -> None:
    """Reads the document itself, independently of the generator."""
    _, _, rest = PROTOCOL.partition(f"\n### {kind.name}\n")
    table = [
        row for row in rows(rest.partition("\n### ")[0].partition("\n## ")[0]) if row[0].isdigit() and len(row) == 4
    ]
    layout = wire.LAYOUTS[kind]
    table = table[: len(layout.fields)]
    ends = [int(offset) + int(size) for offset, size, *_ in table]
    assert [int(row[0]) for row in table] == [0, *ends[:-1]]
    assert ends[-1] == layout.size
    assert [row[2].strip("`") for row in table] == [field.name for field in layout.fields]


def test_each_mark_must_occur_exactly_once() -> None:
    blank = f"a\n<!-- {generate.BEGIN}x -->\n<!-- {generate.END} -->\nb"
    marked = generate.fill(blank, {"x": "new"}, generate.MARKDOWN_COMMENT)
    assert "\nnew\n" in marked
    assert generate.fill(marked, {"x": "new"}, generate.MARKDOWN_COMMENT) == marked
    for broken in ("nothing", marked + marked):
        with pytest.raises(ValueError, match="exactly once"):
            generate.fill(broken, {"x": "new"}, generate.MARKDOWN_COMMENT)


def test_links_in_the_document_have_targets() -> None:
    headings = re.findall(r"^#+ (.+)$", PROTOCOL, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", PROTOCOL)
    assert links
    assert set(links) <= anchors
    for path in re.findall(r"\]\(([^#:)]+)\)", PROTOCOL):
        assert (DOCS / path).exists(), path


def test_files_named_in_the_document_exist() -> None:
    named = set(re.findall(r"`((?:toolkit|docs)/[\w/]+\.\w+)`", PROTOCOL))
    assert named
    assert [path for path in sorted(named) if not (DOCS.parent / path).exists()] == []


def test_messages_and_transitions_match_the_code() -> None:
    text = section("The session")
    assert {(row[0], row[1]) for row in rows(text) if row[0].isdigit()} == {(str(t.value), t.name) for t in MessageType}
    stated: set[tuple[str, Role, str, str]] = set()
    states = {state.name for state in SessionState}
    for row in rows(text):
        if len(row) != 4 or row[0] not in states | {"any but CLOSED"}:
            continue
        befores = (
            [row[0]] if row[0] in states else [state.name for state in SessionState if state is not SessionState.CLOSED]
        )
        for before in befores:
            for party, said in ((Role.SENDER, row[1]), (Role.RECEIVER, row[2])):
                stated |= {(before, party, name, row[3]) for name in said.split(", ") if name}
    coded = {(before.name, party, kind.name, after.name) for (before, party, kind), after in TRANSITIONS.items()}
    assert stated == coded


def test_tcp_frames_and_preface_match_the_code() -> None:
    text = section("TCP: preface and frames")
    kinds = {(row[0], row[1]) for row in rows(text) if len(row) == 3 and row[0].isdigit()}
    assert kinds == {(str(kind.value), kind.name) for kind in tcp_wire.PrefaceType}
    fields = [row for row in rows(text) if len(row) == 4 and row[0].isdigit()]
    parameters = {(row[0], row[1]) for row in fields if row[1].isupper()}
    assert parameters == {(str(parameter.value), parameter.name) for parameter in tcp_wire.PrefaceParameter}
    ends = [int(row[0]) + int(row[1]) for row in fields if row[1].isdigit()]
    assert tcp_wire.PREFACE_BYTES in ends
    assert tcp_wire.FRAME_BYTES in ends
