"""Draws docs/architecture.svg from the imports between the rooms of src/undisclosed.

    .venv/bin/python docs/draw_architecture.py

tests/unit/docs/test_architecture.py draws it again and compares.

A room is a folder or a single file at the top of the package. Every folder stands below all folders that import it. An
arrow leads from a folder to a folder that it imports; where a longer path joins the two as well, the direct arrow is
left out (the transitive reduction). A single file stands at the bottom, and its box names the rooms that import it.
Raises CycleError if rooms import each other in a circle.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from html import escape
from itertools import combinations, pairwise, permutations
from pathlib import Path
from textwrap import wrap

import grimp

PROJECT = Path(__file__).resolve().parents[1]
PICTURE = PROJECT / "docs" / "architecture.svg"
PACKAGE = "undisclosed"

WIDTH, GAP, MARGIN = 150, 14, 16
"""Pixels: of a box, between two boxes, around the picture. Five columns fit the 830 pixels of a page on a code host."""
BETWEEN = 44
"""Pixels between two rows, for the arrows."""
HEAD, LINE, FOOT = 26, 16, 8
"""Pixels: of a box's name, of a line of files, below the last one."""
LETTERS = 19
"""Letters of a line of files: system fonts take 7 pixels a letter at most on average at this size."""

STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #424a53; }
.name { font-size: 15px; font-weight: 600; fill: #1f2328; }
.page { fill: #f6f8fa; stroke: #d0d7de; }
.room { fill: #ffffff; stroke: #8c959f; } .core { fill: #ddf4ff; stroke: #0969da; }
.arrow { fill: none; stroke: #6e7781; stroke-width: 1.3; }"""

Edge = tuple[str, str]
Node = tuple[str, str]
"""A room in its row, as (room, ""), or the place at which an arrow passes a row, as (importer, imported)."""


def core() -> list[str]:
    """The rooms of the core, as the import contracts in pyproject.toml have them."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [modules] = [contract["source_modules"] for contract in contracts if contract["name"].startswith("The core ")]
    return [name.rpartition(".")[2] for name in modules]


def _room(module: str) -> str:
    return [*module.split("."), ""][1]


def imports() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    found: dict[str, set[str]] = {room: set() for module in graph.modules if (room := _room(module))}
    del found["__main__"]
    for module in graph.modules:
        if (room := _room(module)) in found:
            imported = {_room(other) for other in graph.find_modules_directly_imported_by(module)}
            found[room] |= imported & found.keys() - {room}
    return found


def files(room: str) -> list[str]:
    """The modules and folders of a room, but for `__init__`; a room that is a module has none."""
    folder = PROJECT / "src" / PACKAGE / room
    if not folder.is_dir():
        return []
    found = [file for file in folder.iterdir() if file.name[0] != "_" and (file.is_dir() or file.suffix == ".py")]
    return sorted(f"{file.name}/" if file.is_dir() else file.stem for file in found)


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The row of each room, from the top: one below the lowest room that imports it. Raises CycleError."""
    order = list(TopologicalSorter(graph).static_order())[::-1]  # importers first
    row = dict.fromkeys(order, 0)
    for room in order:
        for imported in graph[room]:
            row[imported] = max(row[imported], row[room] + 1)
    return row


def reduced(graph: Mapping[str, set[str]]) -> list[Edge]:
    """The arrows that no longer path replaces, in the order of their names."""

    def reaches(room: str, target: str) -> bool:
        return room == target or any(reaches(imported, target) for imported in graph[room])

    return [
        (room, imported)
        for room in sorted(graph)
        for imported in sorted(graph[room])
        if not any(reaches(other, imported) for other in graph[room] - {imported})
    ]


class Layout:
    """Rooms on a grid, and the places where long arrows pass a row: one column each, with few crossings."""

    def __init__(self, row: Mapping[str, int], edges: Sequence[Edge], core: Sequence[str]) -> None:
        self.rows: list[list[Node]] = [
            sorted((room, "") for room in row if row[room] == at) for at in range(max(row.values()) + 1)
        ]
        self.ways = {edge: self._way(edge, row) for edge in edges}
        for way in self.ways.values():
            for node in way[1:-1]:
                self.rows[row[way[0][0]] + way.index(node)].append(node)
        self.columns = max(map(len, self.rows))
        self._core = [(room, "") for room in core]
        self._steps = [step for way in self.ways.values() for step in pairwise(way)]
        self._row_of = {node: at for at, nodes in enumerate(self.rows) for node in nodes}
        self.column = self._best()

    @staticmethod
    def _way(edge: Edge, row: Mapping[str, int]) -> list[Node]:
        start, end = edge
        # The number of the row in the name keeps the places of one arrow apart.
        passing = [(f"{start}@{at}", end) for at in range(row[start] + 1, row[end])]
        return [(start, ""), *passing, (end, "")]

    def _cost(self, column: Mapping[Node, int]) -> int:
        """Crossings, slants and bends; the core stands in one column."""
        steps = [(self._row_of[upper], column[upper], column[lower]) for upper, lower in self._steps]
        crossings = sum(
            row == other_row and (left - other_left) * (right - other_right) < 0
            for (row, left, right), (other_row, other_left, other_right) in combinations(steps, 2)
        )
        slants = sum((left - right) ** 2 for _, left, right in steps)
        bends = sum(
            column[upper] != column[lower] for way in self.ways.values() for upper, lower in pairwise(way[1:-1])
        )
        out_of_line = sum(column[upper] != column[lower] for upper, lower in pairwise(self._core))
        return 10 * crossings + slants + 5 * bends + 100 * out_of_line

    def _settled(self, column: dict[Node, int]) -> tuple[int, dict[Node, int]]:
        """Try every order of each row in turn until none is better: the cost, and the columns."""
        cost, before = self._cost(column), -1
        while cost != before:
            before = cost
            for nodes in self.rows:
                tried = [
                    column | dict(zip(nodes, places, strict=True))
                    for places in permutations(range(self.columns), len(nodes))
                ]
                column = min([column, *tried], key=self._cost)
            cost = self._cost(column)
        return cost, column

    def _best(self) -> dict[Node, int]:
        """The best of several beginnings: the rows forwards and backwards, each shifted against the one above."""
        starts = [
            {
                node: (place + shift * at) % self.columns
                for at, nodes in enumerate(self.rows)
                for place, node in enumerate(nodes[::way])
            }
            for shift in range(self.columns)
            for way in (1, -1)
        ]
        return min(map(self._settled, starts), key=lambda found: found[0])[1]


class Picture:
    """The layout in pixels, and its parts as SVG."""

    def __init__(self, graph: Mapping[str, set[str]], core: Sequence[str]) -> None:
        self._graph, self._core = graph, core
        self._single_files = [room for room in sorted(graph) if not files(room)]
        folders = {room: graph[room] - set(self._single_files) for room in graph if room not in self._single_files}
        self._row = levels(folders)
        self._layout = Layout(self._row, reduced(folders), core)
        self._lines = {room: wrap(", ".join(files(room)), LETTERS, break_on_hyphens=False) for room in folders}
        self._add_single_files()
        self._tops = [MARGIN]
        for nodes in self._layout.rows:
            tallest = max(self._height(room) for room, passing in nodes if not passing)
            self._tops.append(self._tops[-1] + tallest + BETWEEN)
        self.width = 2 * MARGIN + self._layout.columns * (WIDTH + GAP) - GAP
        self.height = self._tops[-1] - BETWEEN + 70

    def _add_single_files(self) -> None:
        """Give each single file a free column of the last row, and the names of its importers."""
        last, column = self._layout.rows[-1], self._layout.column
        free = sorted(set(range(self._layout.columns)) - {column[node] for node in last})
        for room, place in zip(self._single_files, free, strict=False):
            assert not self._graph[room], f"{room} is a single file and imports a room"
            importers = ", ".join(sorted(other for other in self._graph if room in self._graph[other]))
            self._lines[room] = wrap(f"a single file, imported by {importers}", LETTERS)
            self._row[room], column[room, ""] = len(self._layout.rows) - 1, place
            last.append((room, ""))

    def _height(self, room: str) -> int:
        return HEAD + LINE * len(self._lines[room]) + FOOT

    def _left(self, node: Node) -> int:
        return MARGIN + self._layout.column[node] * (WIDTH + GAP)

    def boxes(self) -> Iterator[str]:
        """Each room with its files; the title names all that it imports."""
        for room in sorted(self._graph):
            x, y = self._left((room, "")), self._tops[self._row[room]]
            kind = "room core" if room in self._core else "room"
            imported = ", ".join(sorted(self._graph[room])) or "no other room"
            yield f"<g><title>{room} imports {imported}</title>"
            yield f'<rect class="{kind}" x="{x}" y="{y}" width="{WIDTH}" height="{self._height(room)}" rx="6"/>'
            yield f'<text class="name" x="{x + 12}" y="{y + 20}">{room}</text>'
            for at, line in enumerate(self._lines[room]):
                yield f'<text x="{x + 12}" y="{y + HEAD + LINE * at + 12}">{escape(line)}</text>'
            yield "</g>"

    def arrows(self) -> Iterator[str]:
        """Curves from the lower edge of a box to the upper edge of another, straight down where they pass a row."""
        for (room, imported), way in self._layout.ways.items():
            start = self._port(room, way[1], below=True), self._tops[self._row[room]] + self._height(room)
            points: list[tuple[float, float]] = [start]
            for at, node in enumerate(way[1:-1], self._row[room] + 1):
                x = self._left(node) + WIDTH / 2
                points += [(x, self._tops[at] - BETWEEN / 3), (x, self._tops[at + 1] - BETWEEN)]
            points.append((self._port(imported, way[-2], below=False), self._tops[self._row[imported]]))
            path = f"M{points[0][0]:g} {points[0][1]:g}"
            for (x, y), (to_x, to_y) in pairwise(points):
                middle = (y + to_y) / 2
                path += f"C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}"
            title = f"<title>{room} imports {imported}</title>"
            yield f'<path class="arrow" marker-end="url(#head)" d="{path}">{title}</path>'

    def _port(self, room: str, neighbour: Node, *, below: bool) -> float:
        """The point of an arrow on the edge of a box: arrows to the left begin on the left."""
        ways = self._layout.ways.values()
        if below:
            others = {way[1] for way in ways if way[0] == (room, "")}
        else:
            others = {way[-2] for way in ways if way[-1] == (room, "")}
        order = sorted(others, key=lambda node: (self._layout.column[node], node))
        return self._left((room, "")) + WIDTH * (order.index(neighbour) + 1) / (len(order) + 1)


def drawing() -> str:
    """The whole picture."""
    picture = Picture(imports(), core())
    width, height = picture.width, picture.height
    notes = (
        "An arrow leads to an imported room. Direct arrows are left out where a longer path shows the same dependency.",
        "Below each name: the room's files. Blue, the core: values in, values out; no clock, file, socket or log.",
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' role="img" aria-label="The rooms of undisclosed, and which each imports">',
            f"<style>\n{STYLE}\n</style>",
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#6e7781"/></marker>',
            f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            *picture.arrows(),
            *picture.boxes(),
            *(f'<text x="{MARGIN}" y="{height - 34 + 18 * at}">{note}</text>' for at, note in enumerate(notes)),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(drawing())
