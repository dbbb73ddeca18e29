"""Mutants: mistakes that someone could make, in a file that people can read, and their way into a copy
of the code. What is done with one is the business of emulator/mutants.py and mutants/run.py.

A mutant is

    NAME FILE: what it breaks
      expect TEST...      the tests that should catch it, the likeliest first
      - old text          must be in the file exactly once; white space and comments do not count
      + new text          (none: the old text is taken out)

with as many pairs of old and new as it takes, and `@ FILE` before those in another file. Keep old
texts short, so that they survive a refactoring; one that does not is reported, never skipped.
"""

import dataclasses
import re
import sys


class Stale(Exception):
    """A mutant's text is not in the code, or more than once."""


@dataclasses.dataclass
class Mutant:
    name: str
    what: str
    expected: list[str] = dataclasses.field(default_factory=list)
    edits: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)  # file, old, new


def read_mutants(path, known):
    """Those of a file; known(word) says whether a test of that name can be expected to catch one."""
    mutants, file, last = [], "", ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        if not line[0].isspace():
            match = re.fullmatch(r"(\w+) ([\w.]+): (.+)", text)
            if not match:
                sys.exit(f"{path}:{number}: neither a mutant nor indented")
            file = match[2]
            mutants.append(Mutant(match[1], match[3]))
            last = ""
            continue
        kind, _, rest = text.partition(" ")
        mutant = mutants[-1]
        if kind == "expect":
            mutant.expected = rest.split()
        elif kind == "@":
            file = rest
        elif kind == "-" and last == "-":
            mutant.edits[-1] = (file, mutant.edits[-1][1] + "\n" + rest, "")
        elif kind == "-":
            mutant.edits.append((file, rest, ""))
        elif kind == "+" and mutant.edits:
            mutant.edits[-1] = (*mutant.edits[-1][:2], mutant.edits[-1][2] + rest + "\n")
        else:
            sys.exit(f"{path}:{number}: what is {kind!r}?")
        last = kind
    for mutant in mutants:
        unknown = [word for word in mutant.expected if not known(word)]
        if unknown or not mutant.expected or not mutant.edits:
            sys.exit(f"{path}: {mutant.name}: nothing expected, or the unknown {unknown}, or no text")
    return mutants


def squeeze(text):
    """The text without white space and // comments, and where in it each character that is left was."""
    kept = [(match[0], match.start()) for match in re.finditer(r"//[^\n]*|\s+|.", text)]
    kept = [(c, at) for c, at in kept if not c.isspace() and not c.startswith("//")]
    return "".join(c for c, _ in kept), [at for _, at in kept]


def replace_once(source, old, new):
    squeezed, places = squeeze(source)
    wanted, _ = squeeze(old)
    count = squeezed.count(wanted)
    if count != 1:
        raise Stale(f"{count} matches of: {' '.join(old.split())}")
    at = squeezed.index(wanted)
    return source[:places[at]] + new + source[places[at + len(wanted) - 1] + 1:]


def mutated_files(mutant, folder):
    """The new texts, by name, of the files of the folder that the mutant changes."""
    files = {}
    for file, old, new in mutant.edits:
        source = files.get(file) or (folder / file).read_text(encoding="utf-8")
        try:
            files[file] = replace_once(source, old, new)
        except Stale as stale:
            raise Stale(f"{file}: {stale}") from None
    return files


def count_stale(mutants, folder):
    """Prints and counts those whose text is not there exactly once."""
    stale = 0
    for mutant in mutants:
        try:
            mutated_files(mutant, folder)
        except Stale as error:
            print(f"{mutant.name:4} {error}")
            stale += 1
    print(f"{len(mutants)} mutants, {stale} no longer in the code")
    return stale
