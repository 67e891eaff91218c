"""One line of an examination."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Capability:
    """Something that a machine, a user or a path has, or lacks.

    name:      what it is, for example "UDP receive buffer"
    found:     what there is of it
    is_enough: whether that is all that nettool can use
    cost:      what it costs that something is missing; "" if nothing is
    command:   the command that fixes that; "" if none does
    advice:    how else to fix it, as a sentence
    """

    name: str
    found: str
    is_enough: bool = True
    cost: str = ""
    command: str = ""
    advice: str = ""

    def to_json(self) -> dict[str, object]:
        """The capability as `nettool doctor --json` prints it (docs/data-format.md)."""
        return asdict(self)
