#!/usr/bin/env python3
"""The rules of the house that a program can check: which room may include which, and the look of the files.

    edges.py ROOT          prints every violation as file:line: text; exits 1 when there is one
    edges.py --self-test   shows that each rule can fail, on a made-up tree
"""
import re
import sys
import tempfile
from pathlib import Path

# Room: what it may include beside itself; a room, or one header of a room. "*" is everything.
ALLOWED = {
    "base": "",
    "config": "base",
    "log": "base",
    "access": "base config log",
    "http": "base log access",
    "process": "base config log fastcgi/policy.h",
    "site": "base config log http",
    "gateway": "base config log access http site",
    "cgi": "base config log process gateway/run.h gateway/queue.h",
    "fastcgi": "base config log process gateway/run.h gateway/queue.h",
    "tools": "*",
    "front": "*",
    "main": "*",
}

# Rooms that are files in server/ itself: config.c, config_text.h and so on. The others are folders.
FILE_ROOMS = ("config", "log", "access", "front", "main")

# What only one file may do: (what, how it looks in code, the file).
ONLY = [
    ("starts a process", r"\b(?:v?fork|_Fork|posix_spawnp?|clone3?|forkpty|daemon|popen|system)\s*\(|\bsyscall\(SYS_(?:v?fork|clone3?)\b",
     "server/process/spawn.c"),
    ("includes http_parser.h", r"#\s*include\s*[<\"]http_parser\.h", "server/http/head.c"),
]

FOLDERS = ("server", "cgi", "fastcgi", "tests", "www", ".ci")
ROOMS = ("server", "cgi", "fastcgi")
TEXTS = {".c", ".h", ".py", ".sh", ".pl", ".php", ".cgi", ".fcgi", ".html", ".css", ".js", ".md", ".conf", ".build", ".txt", ""}
COLUMNS = 120
LINES = {".c": 700, ".py": 700, ".h": 200}  # of the program; a test's tables may be longer

# Words that tell of how the work went instead of what the thing is.
WORDS = re.compile(r"\b(?:TODO|FIXME|XXX)\b|\bissue\s+#|\bissue\s+[0-9]|\bthis session\b|/work/(?:main|shared)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]*)"')
TYPEDEF = re.compile(r"\btypedef\b[^;{]*?\b(\w+_t)\s*(?:;|\)\s*\(|\[)|\}\s*(\w+_t)\s*;")
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def room_of(path):
    """The room of a path below the root, or None: "server/http/head.c" is in http, "server/config_text.c" in config."""
    first, *rest = path.split("/")
    if first in ("cgi", "fastcgi") and rest:
        return first
    if first != "server" or not rest:
        return None
    if len(rest) == 1:
        name = re.split(r"[_.]", rest[0])[0]
        return name if name in FILE_ROOMS else None
    return rest[0] if rest[0] in ALLOWED and rest[0] not in (*FILE_ROOMS, "cgi", "fastcgi") else None


def included(name):
    """The path below the root of what #include "name" means: given from server/, or from the root for the rest."""
    return name if name.split("/")[0] in ("cgi", "fastcgi") else f"server/{name}"


def may_include(room, target):
    if room == room_of(target):
        return True
    allowed = ALLOWED[room].split()
    return "*" in allowed or room_of(target) in allowed or target.removeprefix("server/") in allowed


def edges(path, lines):
    room = room_of(path)
    if room is None:
        yield 1, "belongs to no room: ALLOWED in tests/style/edges.py names them"
        return
    for number, line in enumerate(lines, 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        target = included(found[1])
        if room_of(target) is None:
            yield number, f'"{found[1]}" is in no room: includes are given from server/, cgi/... and fastcgi/... from the root'
        elif not may_include(room, target):
            yield number, f"{room} may not include {found[1]} ({room_of(target)})"


def without_text(source):
    """The source with comments and literals blanked out, line for line. Include lines keep their file's name."""
    def blank(found):
        line_start = source.rfind("\n", 0, found.start()) + 1
        if re.match(r"\s*#\s*include\s*$", source[line_start:found.start()]):
            return found[0]
        return re.sub(r"[^\n]", " ", found[0])
    return NOT_CODE.sub(blank, source)


def code(path, source):
    """Rules about C, whatever the room."""
    bare = without_text(source)

    def line_of(found):
        return bare.count("\n", 0, found.end()) + 1

    for found in TYPEDEF.finditer(bare):
        yield line_of(found), f"typedef {found[1] or found[2]}: names with _t are the system's"
    if path.split("/")[0] not in ROOMS:
        return
    for what, pattern, owner in ONLY:
        if path != owner:
            for found in re.finditer(pattern, bare):
                yield line_of(found), f"only {owner} {what}"


def look(path, source, lines):
    """Rules about any text."""
    suffix = Path(path).suffix
    for number, line in enumerate(lines, 1):
        found = WORDS.search(line)
        if found:
            yield number, f"says {found[0]!r}"
        if suffix not in (".c", ".h", ".py"):
            continue
        if "\t" in line:
            yield number, "a tab"
        if line != line.rstrip():
            yield number, "white space at the end"
        if len(line) > COLUMNS:
            yield number, f"{len(line)} columns, more than {COLUMNS}"
    if suffix in (".c", ".h", ".py") and source and not source.endswith("\n"):
        yield len(lines), "no line end at the end"
    if len(lines) > LINES.get(suffix, len(lines)) and not path.startswith("tests/"):
        yield len(lines), f"{len(lines)} lines, more than {LINES[suffix]}"


def violations(root):
    """Every violation below root, as (path, line, text), in the order of the paths."""
    files = [*root.glob("*"), *(path for folder in FOLDERS for path in (root / folder).rglob("*"))]
    for file in sorted(files):
        path = file.relative_to(root).as_posix()
        if "__pycache__" in path or file.suffix not in TEXTS or file.is_symlink() or not file.is_file():
            continue
        if file.resolve() == Path(__file__).resolve():
            continue  # it spells what it looks for
        try:
            source = file.read_text("utf-8")
        except UnicodeDecodeError:
            if file.suffix in LINES:
                yield path, 1, "not UTF-8"
            continue
        lines = source.split("\n")[:-1] if source.endswith("\n") else source.split("\n")
        found = list(look(path, source, lines))
        if file.suffix in (".c", ".h"):
            found += code(path, source)
            if path.split("/")[0] in ROOMS:
                found += edges(path, lines)
        yield from ((path, number, text) for number, text in sorted(found))


# The self-test's tree: path, content, and the violations that it must give, as line and a part of the text.
MADE_UP = [
    ("server/base/good.c", '#include "base/good.h"\n\n/* fork() and "TO" "DO" in words: fine */\nint n = sizeof "system(";\n', []),
    ("server/base/bad.c", '#include "config.h"\n#  include "http/head.h"\n#include "good.h"\n',
     [(1, "base may not include config.h"), (2, "may not include http/head.h (http)"), (3, "is in no room")]),
    ("server/http/head.c", "#include <http_parser.h>\n", []),
    ("server/http/uri.c", '#include <http_parser.h>\n#include "http_parser.h"\n#include "site/route.h"\n#include "cgi/run.h"\n',
     [(1, "only server/http/head.c"), (2, "is in no room"), (2, "only server/http/head.c"),
      (3, "http may not include site/route.h"), (4, "http may not include cgi/run.h")]),
    ("server/process/spawn.c", "int a(void) { return vfork(); }\n", []),
    ("server/process/keeper.c", "int a(void)\n{\n    return fork();\n}\nint b = syscall(SYS_clone3);\n",
     [(3, "starts a process"), (5, "starts a process")]),
    ("server/gateway/run.c", '#include "site/route.h"\n#include "fastcgi/pool.h"\n', [(2, "gateway may not include")]),
    ("cgi/child.c", '#include "gateway/run.h"\n#include "gateway/reply.h"\n#include "fastcgi/record.h"\n#include "access.h"\n',
     [(2, "cgi may not include gateway/reply.h"), (3, "cgi may not include fastcgi/record.h"), (4, "cgi may not")]),
    ("fastcgi/pool.c", '#include "process/channel.h"\n#include "cgi/child.h"\n', [(2, "fastcgi may not include cgi/child.h")]),
    ("server/front.c", '#include "fastcgi/pool.h"\n#include "http/head.h"\n', []),
    ("server/config_text.c", '#include "base/span.h"\n#include "log.h"\n', [(2, "config may not include log.h")]),
    ("server/odd.c", "int n;\n", [(1, "belongs to no room")]),
    ("server/base/types.h", "typedef int small_t;\ntypedef void (*call_t)(size_t);\ntypedef struct {\n    size_t n;\n} box_t;\n"
     "typedef void call(void *arg, size_t len);\nint take(size_t);\n", [(1, "small_t"), (2, "call_t"), (5, "box_t")]),
    ("server/base/look.c", "\tint tab;\nint space; \n/* " + "x" * 120 + " */\n/* TO" "DO: later */\nint end;",
     [(1, "a tab"), (2, "white space"), (3, "126 columns"), (4, "says"), (5, "no line end")]),
    ("server/base/long.h", "\n" * 201, [(201, "201 lines, more than 200")]),
    ("cgi/long.c", "\n" * 701, [(701, "701 lines, more than 700")]),
    ("tests/unit/test_long.c", "\n" * 701, []),
    ("tests/unit/test_fork.c", '#include "any/thing.h"\nint a(void) { return fork(); }\n', []),
    ("README.md", "what\nthis sess" "ion did\n", [(2, "says")]),
    ("www/page.html", "<p>\tsee iss" "ue #12</p>\n", [(1, "says")]),
]


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, content, _ in MADE_UP:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        found = list(violations(root))
    wrong = []
    for path, _, expected in MADE_UP:
        got = [(number, text) for where, number, text in found if where == path]
        if len(got) != len(expected) or any(g[0] != e[0] or e[1] not in g[1] for g, e in zip(got, expected)):
            wrong.append(f"{path}: expected {expected}, got {got}")
    return wrong


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--self-test":
        complaints = self_test()
    else:
        complaints = [f"{path}:{number}: {text}" for path, number, text in violations(Path(sys.argv[1]))]
    for complaint in complaints:
        print(complaint)
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
