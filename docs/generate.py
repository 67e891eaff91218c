"""Puts the field tables and constants of toolkit/rudp into docs/protocol.md and docs/wireshark/nettool.lua.

Run it after a change of them: `python docs/generate.py`. A test fails where it was forgotten.
"""

from pathlib import Path

from toolkit.rudp import describe

HERE = Path(__file__).resolve().parent


def main() -> None:
    for path, sections, comment in (
        (HERE / "protocol.md", describe.markdown_sections(), describe.MARKDOWN_COMMENT),
        (HERE / "wireshark" / "nettool.lua", describe.lua_sections(), describe.LUA_COMMENT),
    ):
        path.write_text(describe.fill(path.read_text("utf-8"), sections, comment), "utf-8")


if __name__ == "__main__":
    main()
