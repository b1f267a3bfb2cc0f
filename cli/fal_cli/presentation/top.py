"""The screen of `fal top`, without I/O. Has its content, and the effects of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from fal_cli.presentation.counting import counted
from fal_cli.presentation.folding import cut, display_width
from fal_cli.presentation.output import shown_bytes, shown_cores
from fal_cli.presentation.printable import one_line
from fal_cli.presentation.style import paint

if TYPE_CHECKING:
    from fal.api import AliasInfo, RunnerInfo

Item = TypeVar("Item")
SHORT_ID = 8
_GAP = "  "
_LEAST_NAME = 14
_LEAST_HEIGHT = 8
_HELP = (
    "",
    "  Up, Down, PgUp, PgDn, Home, End   select a runner (also k and j)",
    "  l        show the log of the runner; Ctrl-C comes back",
    "  s        open a shell on the runner",
    "  x        stop the runner, after a question; it finishes its requests",
    "  o, r     sort by the next column, reverse the order",
    "  /        show only what contains a text; Esc shows all again",
    "  ?, h     show or leave this help",
    "  q        quit",
    "",
    "  CPU and GPU: 100% is one processor or GPU that is always busy.",
)


class Action(NamedTuple):
    """An action for the program, which the screen cannot do itself: `logs`, `shell`, `stop` or `quit`."""

    name: str
    runner_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell(Generic[Item]):
    """A column.

    Attributes:
        width: in cells; 0 takes the remaining space.
        spare: which columns disappear first if there is little room: the highest number; 0 never does.
    """

    title: str
    text: Callable[[Item], str]
    width: int = 0
    spare: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRow:
    """An app and the total usage of its runners."""

    name: str
    runners: int
    requests: int
    queued: int | None
    usage: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The total usage of some runners. None stands for a number that no controller reports."""

    cpu_cores: float | None
    memory_bytes: int | None
    gpu_cores: float | None
    gpu_memory_bytes: int | None

    @classmethod
    def of(cls, runners: Sequence[RunnerInfo]) -> Totals:
        """Add up the runners' usage."""
        used = [runner.usage for runner in runners if runner.usage is not None]
        gpus = [usage.gpu_cores for usage in used if usage.gpu_cores is not None]
        memory = [usage.gpu_memory_bytes for usage in used if usage.gpu_memory_bytes is not None]
        return cls(
            cpu_cores=sum(usage.cpu_cores for usage in used) if used else None,
            memory_bytes=sum(usage.memory_bytes for usage in used) if used else None,
            gpu_cores=sum(gpus) if gpus else None,
            gpu_memory_bytes=sum(memory) if memory else None,
        )


def app_rows(apps: Sequence[AliasInfo], runners: Sequence[RunnerInfo]) -> list[AppRow]:
    """Return a row for each app."""
    of_app: dict[str, list[RunnerInfo]] = {}
    for runner in runners:
        of_app.setdefault(runner.alias, []).append(runner)
    return [
        AppRow(
            name=app.alias,
            runners=len(of_app.get(app.alias, ())),
            requests=sum(runner.in_flight_requests for runner in of_app.get(app.alias, ())),
            queued=None if app.load is None else app.load.queued,
            usage=Totals.of(of_app.get(app.alias, ())),
        )
        for app in apps
    ]


def summary(apps: Sequence[AliasInfo], runners: Sequence[RunnerInfo]) -> str:
    """Return a summary on one line."""
    loads = [app.load for app in apps if app.load is not None]
    used = Totals.of(runners)
    parts = [
        counted(len(apps), "app"),
        counted(len(runners), "runner"),
        counted(sum(runner.in_flight_requests for runner in runners), "request"),
        f"{sum(load.queued for load in loads)} queued" if loads else "",
        f"CPU {shown_cores(used.cpu_cores)}" if used.cpu_cores is not None else "",
        f"memory {shown_bytes(used.memory_bytes)}" if used.memory_bytes is not None else "",
        f"GPU {shown_cores(used.gpu_cores)}" if used.gpu_cores is not None else "",
    ]
    return ", ".join(filter(None, parts))


def used_texts(usage: Totals) -> list[str]:
    """Return processors, memory, GPUs and GPU memory for people; "-" means unknown."""
    texts = (
        shown_cores(usage.cpu_cores),
        shown_bytes(usage.memory_bytes),
        shown_cores(usage.gpu_cores),
        shown_bytes(usage.gpu_memory_bytes),
    )
    return [text or "-" for text in texts]


def uptime(runner: RunnerInfo) -> str:
    """Return a runner's uptime, in at most 8 cells."""
    seconds = int(runner.uptime.total_seconds())
    days, rest = divmod(seconds, 86400)
    return f"{days}d {rest // 3600}h" if days else str(timedelta(seconds=seconds))


_APP_CELLS: tuple[_Cell[AppRow], ...] = (
    _Cell(title="App", text=lambda row: row.name),
    _Cell(title="Runners", text=lambda row: str(row.runners), width=7),
    _Cell(title="Requests", text=lambda row: str(row.requests), width=8),
    _Cell(title="Queued", text=lambda row: "" if row.queued is None else str(row.queued), width=6),
    _Cell(title="CPU", text=lambda row: shown_cores(row.usage.cpu_cores), width=6),
    _Cell(title="Memory", text=lambda row: shown_bytes(row.usage.memory_bytes), width=8),
    _Cell(title="GPU", text=lambda row: shown_cores(row.usage.gpu_cores), width=5),
    _Cell(title="GPU Mem", text=lambda row: shown_bytes(row.usage.gpu_memory_bytes), width=8, spare=1),
)


def _cells_of_runners() -> tuple[_Cell[RunnerInfo], ...]:
    def of(runner: RunnerInfo) -> Totals:
        return Totals.of((runner,))

    return (
        _Cell(title="Runner", text=lambda runner: runner.runner_id[:SHORT_ID], width=SHORT_ID),
        _Cell(title="App", text=lambda runner: runner.alias),
        _Cell(title="State", text=lambda runner: runner.state.value, width=13),
        _Cell(title="Req", text=lambda runner: str(runner.in_flight_requests), width=4),
        _Cell(title="Uptime", text=uptime, width=8, spare=3),
        _Cell(title="CPU", text=lambda runner: shown_cores(of(runner).cpu_cores), width=5),
        _Cell(title="Memory", text=lambda runner: shown_bytes(of(runner).memory_bytes), width=8),
        _Cell(title="GPU", text=lambda runner: shown_cores(of(runner).gpu_cores), width=5, spare=1),
        _Cell(title="GPU Mem", text=lambda runner: shown_bytes(of(runner).gpu_memory_bytes), width=8, spare=2),
    )


_RUNNER_CELLS = _cells_of_runners()
_LEFT = frozenset({"App", "Runner", "State"})
_OF_GPUS = frozenset({"GPU", "GPU Mem"})
_ORDERS: tuple[tuple[str, Callable[[RunnerInfo], float | str]], ...] = (
    ("CPU", lambda runner: -(Totals.of((runner,)).cpu_cores or 0.0)),
    ("memory", lambda runner: -(Totals.of((runner,)).memory_bytes or 0)),
    ("GPU", lambda runner: -(Totals.of((runner,)).gpu_cores or 0.0)),
    ("requests", lambda runner: -runner.in_flight_requests),
    ("uptime", lambda runner: -runner.uptime.total_seconds()),
    ("app", lambda runner: runner.alias),
    ("state", lambda runner: runner.state.value),
)


class TopScreen:
    """Holds the data and the selection; draws them, and handles keys.

    Args:
        target: the controller's name, for the first line.
    """

    def __init__(self, target: str) -> None:
        self.apps: Sequence[AliasInfo] = ()
        self.runners: Sequence[RunnerInfo] = ()
        self.message = ""
        self._target = target
        self._selected = ""
        self._order = 0
        self._reversed = False
        self._filter = ""
        self._typing = False
        self._asking = ""
        self._help = False

    def shown_runners(self) -> list[RunnerInfo]:
        """Return the runners that match the filter, in order."""
        text = self._filter.lower()
        found = [r for r in self.runners if text in f"{r.runner_id} {r.alias} {r.state.value}".lower()]
        found.sort(key=lambda runner: runner.runner_id)
        found.sort(key=_ORDERS[self._order][1], reverse=self._reversed)
        return found

    def key(self, key: str) -> Action | None:
        """Handle a key. It is a character, or a name such as `up` or `escape`."""
        self.message = ""
        if self._asking:
            runner_id, self._asking = self._asking, ""
            return Action("stop", runner_id) if key in {"y", "Y"} else None
        if self._typing:
            self._type(key)
            return None
        if key in {"q", "ctrl-c", "ctrl-d"}:
            return Action("quit")
        if key in {"?", "h"} or self._help:
            self._help = not self._help
            return None
        return self._command(key)

    def _command(self, key: str) -> Action | None:
        runner = self._current()
        if key == "/":
            self._typing = True
        elif key == "escape":
            self._filter = ""
        elif key == "o":
            self._order = (self._order + 1) % len(_ORDERS)
        elif key == "r":
            self._reversed = not self._reversed
        elif key in {"l", "s", "x"} and runner is None:
            self.message = "There is no runner to choose."
        elif key == "x" and runner is not None:
            self._asking = runner.runner_id
        elif key in {"l", "s"} and runner is not None:
            return Action("logs" if key == "l" else "shell", runner.runner_id)
        else:
            self._move({"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -10, "page-down": 10}.get(key, 0), key)
        return None

    def _type(self, key: str) -> None:
        if key in {"enter", "escape", "ctrl-c"}:
            self._typing = False
            if key != "enter":
                self._filter = ""
        elif key == "backspace":
            self._filter = self._filter[:-1]
        elif len(key) == 1 and key.isprintable():
            self._filter += key

    def _current(self) -> RunnerInfo | None:
        runners = self.shown_runners()
        return next((r for r in runners if r.runner_id == self._selected), runners[0] if runners else None)

    def _move(self, by: int, key: str) -> None:
        runners = self.shown_runners()
        if not runners:
            return
        current = self._current()
        index = 0 if current is None else runners.index(current)
        index = {"home": 0, "end": len(runners) - 1}.get(key, index + by)
        self._selected = runners[min(max(index, 0), len(runners) - 1)].runner_id

    def lines(self, height: int, width: int, *, color: bool) -> list[str]:
        """Return the screen's lines. There are at most `height`, and none is longer than `width` cells."""
        title = f"fal top: {summary(self.apps, self.runners)} ({one_line(self._target)})"
        body = max(0, height - 2)
        head = [paint(cut(title, width), "bold", color=color)]
        foot = [cut(self._bottom(), width)]
        if height < _LEAST_HEIGHT:
            return [*head, *foot][:height]
        if self._help:
            return [*head, *(cut(line, width) for line in _HELP[:body]), *[""] * (body - len(_HELP)), *foot]
        text = self._filter.lower()
        apps = [row for row in app_rows(self.apps, self.runners) if text in row.name.lower()]
        most_apps = max(1, (body - 4) // 3)
        tables = ["", *_table(_APP_CELLS, apps[:most_apps], width, gpus=self._has_gpus(), color=color)]
        if len(apps) > most_apps:
            tables[-1] = cut(f"... and {len(apps) - most_apps + 1} more apps: / chooses some", width)
        tables.append("")
        runners = self.shown_runners()
        room = max(0, body - len(tables) - 1)
        first = self._first(runners, room)
        chosen = self._current()
        shown = runners[first : first + room]
        index = next((number for number, runner in enumerate(shown) if runner is chosen), None)
        tables += _table(_RUNNER_CELLS, shown, width, gpus=self._has_gpus(), color=color, chosen=index)
        tables = tables[:body]
        return [*head, *tables, *[""] * (body - len(tables)), *foot]

    def _first(self, runners: Sequence[RunnerInfo], room: int) -> int:
        """Return the first runner to show. The selected one is then visible."""
        current = self._current()
        index = 0 if current is None else next(n for n, r in enumerate(runners) if r.runner_id == current.runner_id)
        return max(0, min(index - room // 2, len(runners) - room))

    def _has_gpus(self) -> bool:
        return any(r.usage is not None and r.usage.gpu_memory_bytes is not None for r in self.runners)

    def _bottom(self) -> str:
        if self._asking:
            return f"Stop runner {self._asking[:SHORT_ID]}? It finishes its requests. y/N"
        if self._typing:
            return f"/{self._filter}"
        if self.message:
            return one_line(self.message)
        order = f"by {_ORDERS[self._order][0]}{' reversed' if self._reversed else ''}"
        chosen = f"  filter '{self._filter}'" if self._filter else ""
        return f"l log  s shell  x stop  o order ({order})  / filter  ? help  q quit{chosen}"


def _table(
    cells: Sequence[_Cell[Item]],
    rows: Sequence[Item],
    width: int,
    *,
    gpus: bool,
    color: bool,
    chosen: int | None = None,
) -> list[str]:
    """Return a heading and a line for each row."""
    cells = [cell for cell in cells if gpus or cell.title not in _OF_GPUS]
    while (name := _left_over(cells, width)) < _LEAST_NAME and any(cell.spare for cell in cells):
        most = max(cell.spare for cell in cells)
        cells = [cell for cell in cells if cell.spare != most]
    widths = [cell.width or max(1, name) for cell in cells]
    lines = [_line(cells, [cell.title for cell in cells], widths), *(_row(cells, row, widths) for row in rows)]
    lines = [cut(line, width) for line in lines]
    lines[0] = paint(lines[0], "bold", color=color)
    if chosen is not None:
        line = lines[chosen + 1]
        # Without colors an arrow marks it, at the right, where it hides no id.
        shown = line if color else cut(line, max(0, width - 2))
        padded = shown + " " * (width - display_width(shown))
        mark = padded if color else cut(f"{padded.removesuffix('  ')} <", width)
        lines[chosen + 1] = paint(mark, "reverse", color=color)
    return lines


def _left_over(cells: Sequence[_Cell[Item]], width: int) -> int:
    return width - sum(cell.width for cell in cells) - len(_GAP) * (len(cells) - 1)


def _row(cells: Sequence[_Cell[Item]], row: Item, widths: Sequence[int]) -> str:
    return _line(cells, [one_line(cell.text(row)) or "-" for cell in cells], widths)


def _line(cells: Sequence[_Cell[Item]], texts: Sequence[str], widths: Sequence[int]) -> str:
    parts: list[str] = []
    for cell, text, width in zip(cells, texts, widths, strict=True):
        fitting = cut(text, width)
        padding = " " * (width - display_width(fitting))
        parts.append(fitting + padding if cell.title in _LEFT else padding + fitting)
    return _GAP.join(parts).rstrip()
