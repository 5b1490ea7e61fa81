"""The eight kinds of faults that a gate at small sizes lets through, and what mutants of these kinds have in common.

``KINDS`` has the kind of every mutant; a class says its own in ``kind``, and its first line says what it does wrong.
"""

import gc

from mutant_bases import Mutant
from mutants_stated import MODES

#: What the kinds are, by number. Of kinds 1 to 4 and 7 are mistakes that honest authors make.
TITLES = {
    1: "another path for large sizes",
    2: "identity by a partial look",
    3: "storage that comes round again",
    4: "remembered answers",
    5: "work outside the clock",
    6: "a clock that is told wrong",
    7: "more than the budget",
    8: "another behaviour when watched",
}
#: Rows from which on a mutant of the first kind takes its path for large sizes.
LARGE_ROWS = 64
#: Kind of each mutant, by name; every class of ``ByKind`` with a name enters itself.
KINDS = {}


class ByKind(Mutant):
    """A mutant of one of the kinds, spoilt in ``modes``.

    Attributes:
        kind: Number of its kind, a key of ``TITLES``.
        run: Run of ``tests/test_mutants_by_kind.py`` that measures it.
        modes: Modes in which it is wrong.
        flag: Flag that tells of it where it is timed; empty if it must be rejected.
        harmless: Reason why it may be timed, since it gains nothing and is right; empty if it must be rejected.
    """

    kind = 0
    run = "gate"
    modes = MODES
    flag = ""
    harmless = ""

    def __init_subclass__(cls):
        super().__init_subclass__()
        if "name" in vars(cls):
            KINDS[cls.name] = cls.kind


def timed():
    """True inside a timed sample, where the garbage collector is off."""
    return not gc.isenabled()
