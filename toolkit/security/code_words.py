"""Codes that people read to each other: `7-ocean-brick-lunar`, a number and three words.

The number is the *nameplate*: it says which code of the receiver is meant, and travels in the clear. The words are the
secret, and only they enter the password-authenticated key exchange (PAKE). They come from the English list of BIP-39:
2,048 words, so three of them are one of 2^33 choices, and there are three tries to guess them
(`toolkit.security.code_admission`). No two words of the list share their first four letters, so a few letters identify
each.
"""

import random
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from toolkit.errors import UsageError, printable
from toolkit.security.credentials import CodeCredential

WORDS_PER_CODE = 3
MAX_NAMEPLATE = 999
"""Small enough to say aloud; large enough that a receiver started again rarely repeats a number."""
MAX_CODE_CHARACTERS = 200
"""Far more than a code needs, even if it is written with many spaces."""

_EXAMPLE = "write it as the receiver shows it, for example 7-ocean-brick-lunar"
_SEPARATORS = re.compile(r"[\s_-]+")


@dataclass(frozen=True, slots=True)
class Code:
    """One code.

    nameplate: 1 to MAX_NAMEPLATE
    words:     WORDS_PER_CODE words of the list; kept out of `repr`, because they are secret
    """

    nameplate: int
    words: Sequence[str] = field(repr=False)

    def __str__(self) -> str:
        return "-".join((str(self.nameplate), *self.words))

    @property
    def credential(self) -> CodeCredential:
        """The code as a client's handshake uses it: the words are the password, the number is not part of it."""
        return CodeCredential(str(self.nameplate).encode("ascii"), "-".join(self.words).encode("ascii"))


@cache
def word_list() -> tuple[str, ...]:
    """Return the words of BIP-39, in alphabetical order."""
    from mnemonic import Mnemonic  # imported for the list alone, and only where a code is used

    return tuple(Mnemonic("english").wordlist)


def new_code(nameplate: int, choose: Callable[[Sequence[str]], str] = secrets.choice) -> Code:
    """Return a random code. choose: draws one word of a list; a test may replace it."""
    words = word_list()
    return Code(nameplate, tuple(choose(words) for _ in range(WORDS_PER_CODE)))


def first_nameplate() -> int:
    """Return a random nameplate to count from, so that two runs of a receiver rarely use the same."""
    return random.SystemRandom().randint(1, 99)


def next_nameplate(nameplate: int) -> int:
    """Return the nameplate of the code that follows; the first follows the last."""
    return nameplate % MAX_NAMEPLATE + 1


def parse_code(text: str) -> Code:
    """Parse a code as a person types it: in any case, with spaces or hyphens, with words cut to a unique beginning.

    A word of the list is that word even if longer ones begin with it. Nothing else is corrected.

    Raises UsageError.
    """
    if len(text) > MAX_CODE_CHARACTERS:
        raise UsageError(f"the code is too long: {_EXAMPLE}")
    number, *words = [part for part in _SEPARATORS.split(text.strip().lower()) if part] or [""]
    if not (number.isascii() and number.isdigit() and 0 < int(number) <= MAX_NAMEPLATE):
        raise UsageError(f"a code begins with a number from 1 to {MAX_NAMEPLATE}: {_EXAMPLE}")
    if len(words) != WORDS_PER_CODE:
        raise UsageError(f"a code has {WORDS_PER_CODE} words after its number, not {len(words)}: {_EXAMPLE}")
    return Code(int(number), tuple(map(_word, words)))


def _word(typed: str) -> str:
    """Return the one word that begins with `typed`. Raises UsageError."""
    words = word_list()
    if typed in words:
        return typed
    matching = [word for word in words if word.startswith(typed)]
    shown = printable(typed, 20)
    if not matching:
        raise UsageError(f"no word of a code begins with '{shown}': {_EXAMPLE}")
    if len(matching) > 1:
        some = ", ".join(matching[:3])
        raise UsageError(f"'{shown}' could be {some}{' or others' if len(matching) > 3 else ''}: type more letters")
    return matching[0]
