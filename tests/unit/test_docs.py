"""Commands and documentation say the same: each flag that one has, the other has too."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.shared import REPOSITORY, skip_without

# A program, and the package that it is in.
PACKAGES: Final = {
    "master": "master",
    "worker": "worker",
    "classify": "client",
    "netem": "netem",
    "experiments": "experiments",
}
PROGRAMS: Final = tuple(PACKAGES)
# Flags of `make`'s or another program's in the same line are not ours to check.
_INVOCATION = re.compile(
    r"(?:^|[`\s/])(?P<program>master|worker|classify|netem|experiments) "
    r"(?P<rest>[\w./-][^`|;&\n]*)",
    re.MULTILINE,
)
_IN_HOST = re.compile(r"(netem lab exec) [\w-]+ ")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_HEADING = re.compile(r"^#+ `(?P<command>[a-z ]+?)[^a-z`]*`", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_EVERYWHERE = frozenset({"--help"})


def parser_of(program: str) -> argparse.ArgumentParser:
    """The program's own parser; the test ends here while the program doesn't exist."""
    try:
        build = importlib.import_module(f"{PACKAGES[program]}.cli").build_parser
    except ModuleNotFoundError as missing:
        if missing.name not in {PACKAGES[program], f"{PACKAGES[program]}.cli"}:
            raise
        skip_without("commands", f"there is no {PACKAGES[program]}.cli yet")
    parser: argparse.ArgumentParser = build()
    return parser


def leaves(
    parser: argparse.ArgumentParser, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], frozenset[str]]]:
    """Every command of a program with its flags, as (`("master", "up")`, flags)."""
    shown = [a for a in parser._actions if a.help is not argparse.SUPPRESS]
    flags = frozenset(o for a in shown for o in a.option_strings if o.startswith("--"))
    yield path, flags - _EVERYWHERE
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from leaves(child, (*path, name))


def commands(program: str) -> dict[tuple[str, ...], frozenset[str]]:
    """Flags of each command of a program."""
    return dict(leaves(parser_of(program), (program,)))


def invocations(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each `master …`/`worker …` that stands in code, as its words and its line."""
    for code in re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL):
        # What runs in a host of a lab is a command line of its own.
        joined = _IN_HOST.sub(r"\1\n", code.replace("\\\n", " "))
        for match in _INVOCATION.finditer(joined):
            yield (match["program"], *match["rest"].split()), match[0].strip(" `\n")


def sections(text: str) -> dict[tuple[str, ...], str]:
    """Body under each heading that names a command, up to the next heading."""
    found = list(_HEADING.finditer(text))
    ends = [match.start() for match in found][1:] + [len(text)] * bool(found)
    return {
        tuple(match["command"].split()): text[match.end() : end]
        for match, end in zip(found, ends, strict=True)
    }


def reference() -> dict[tuple[str, ...], str]:
    """What the pages say under each command's own heading, all pages together."""
    said: dict[tuple[str, ...], str] = {}
    for page in sorted((REPOSITORY / "docs").rglob("*.md")):
        for path, body in sections(page.read_text(encoding="utf-8")).items():
            said[path] = said.get(path, "") + body
    return said


def documents() -> list[Path]:
    """What a reader copies commands from."""
    top = (REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md"))
    return [*top, *sorted((REPOSITORY / "docs").rglob("*.md"))]


def wrong_flags(text: str, known: dict[tuple[str, ...], frozenset[str]]) -> list[str]:
    """Flags in a text's code that the command they follow does not have."""
    wrong = []
    for words, line in invocations(text):
        path = max((p for p in known if words[: len(p)] == p), key=len, default=None)
        if path is None or (len(path) == 1 and len(known) > 1):
            continue  # a program of subcommands, named without one
        wrong += [f"{flag} in '{line}'" for flag in _FLAG.findall(line) if flag not in known[path]]
    return wrong


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_in_the_documents_exists(program: str) -> None:
    known = commands(program)
    wrong = {
        path.name: found
        for path in documents()
        if (found := wrong_flags(path.read_text(encoding="utf-8"), known))
    }
    assert wrong == {}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_is_documented_under_its_command(program: str) -> None:
    written = reference()
    missing = [
        f"{' '.join(path)}: {flag}"
        for path, flags in commands(program).items()
        for flag in sorted(flags)
        if flag not in _FLAG.findall(written.get(path, ""))
    ]
    assert missing == [], "say what they do in docs/, under a heading with the command"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_documented_command_and_flag_exists(program: str) -> None:
    known = commands(program)
    for path, body in reference().items():
        if path[0] == program:
            assert path in known, f"the documents have a section on {' '.join(path)}"
            defined = re.findall(r"^\| `(--[a-z-]+)", body, re.MULTILINE)
            assert set(defined) <= known[path], path


def broken_links(page: Path) -> list[str]:
    """Relative links and pictures of a page that lead to no file."""
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    local = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:|#|/", t)]
    return [target for target in local if not (page.parent / target).exists()]


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [*documents(), REPOSITORY / "wire" / "PROTOCOL.md"]
    assert {page.name: found for page in pages if (found := broken_links(page))} == {}


def test_the_list_of_pages_is_whole() -> None:
    listed = _LINK.findall((REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8"))
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}
    assert pages - set(listed) == set()


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#x) [b](gone.md) ![c](img/c.png) [d](https://example.org)")
    assert broken_links(page) == ["gone.md", "img/c.png"]


def test_the_checks_find_planted_faults() -> None:
    known = {("master",): frozenset[str](), ("master", "up"): frozenset({"--data"})}
    planted = "```\nsudo master up --data X \\\n  --datas Y\n```\n and `master up --fast`"
    assert [w.split()[0] for w in wrong_flags(planted, known)] == ["--datas", "--fast"]
    assert wrong_flags("`master up --data X`, and make --fast", known) == []
    page = "## `master up`\n`--data`\n## `worker join HOST`\n`--slots`\n"
    assert set(sections(page)) == {("master", "up"), ("worker", "join")}
