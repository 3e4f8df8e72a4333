"""docs/benchmarks.md, written wholly from the rows."""

import textwrap
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.speed.growth import figure, slope
from benchmarks.speed.held import MEMORY
from benchmarks.speed.subjects import FLOOR
from benchmarks.speed.workloads import AXES, FAMILIES

__all__ = ["write_page"]

DOCS = Path(__file__).parents[2] / "docs"
OURS = "diffeo"
WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text())
ORDER = ("diffeo", "zuko", "nflows", "normflows", "flowjax")


def write_page(rows: Sequence[dict]) -> None:
    held = [row for row in rows if row["workload"] == MEMORY]
    measured = [row for row in rows if "axis" not in row and row["workload"] != MEMORY]
    grown = [row for row in rows if "axis" in row]
    parts = [WORDS["head"], circumstances(rows)]
    for workload, words in WORDS["workloads"].items():
        mine = [row for row in measured if row["workload"] == workload]
        if mine:
            parts += [words, ratios(mine)]
        if any("evaluations" in row for row in mine):
            parts += [looks(mine)]
    if held:
        parts += [WORDS["memory"], memory(held)]
    if grown:
        place = DOCS / "pictures" / "growth.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(figure(grown))
        parts += [growth(grown)]
    if measured:
        parts += [seconds(measured), numbers(measured)]
    (DOCS / "benchmarks.md").write_text("\n\n".join(part.strip() for part in [*parts, WORDS["tail"]]) + "\n")


def circumstances(rows: Sequence[dict]) -> str:
    """Machines, versions, threads and days, each once."""
    machines = _each(_machine(row) for row in rows)
    versions = _each(f"{name} {version}" for row in rows for name, version in row["versions"].items())
    threads, dates = _each(str(row["threads"]) for row in rows), sorted(_each(row["date"] for row in rows))
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    kernels = _each(row["machine"]["kernels"] for row in rows if row["library"] == OURS)
    told = {"Threads": threads, "Kernels of diffeo": kernels, "Versions": versions}
    lists = ". ".join(f"{name}: {', '.join(values)}" for name, values in told.items())
    return _wrapped(f"Measured {days} on {'; and on '.join(machines)}. {lists}. On other machines ratios differ.")


def _machine(row: dict) -> str:
    found = row["machine"]
    where = (
        f"{found['processor']} ({found['cores']} cores, {found['caches']}, {found['instructions']}, {found['system']})"
    )
    card = f", {found['card']}" if "card" in found else ""
    return f"{where}{card}"


def ratios(rows: Sequence[dict]) -> str:
    """A line a task and d, a column a library; what is aimed at, and how many times the best other takes."""
    libraries = _libraries(rows)
    head = ["d", "task", "floor, ms", *libraries, "aim", "best other / diffeo"]
    lines = []
    for (d, task, n), found in _tasks(rows):
        aims = [f"{_short(name)}{row['aim']:g}" for name, row in found.items() if "aim" in row]
        others = [
            row["ratio_to_floor"] * row.get("evaluations", 1) for name, row in found.items() if not _is_ours(name)
        ]
        best = f"{min(others) / _total(found[OURS]):.2f}" if others and OURS in found else ""
        floor = _milliseconds(found[FLOOR]["cpu_s"]) if FLOOR in found else ""
        lines.append(
            [str(d), _task(task, n), floor, *(_ratio(found.get(name)) for name in libraries), "; ".join(aims), best]
        )
    return _table(head, lines)


def _short(name: str) -> str:
    """What a variant of diffeo is called before its figure."""
    return "" if name == OURS else f"{name.split(', ')[-1]} "


def _total(row: dict) -> float:
    return row["ratio_to_floor"] * row.get("evaluations", 1)


def looks(rows: Sequence[dict]) -> str:
    libraries = _libraries(rows)
    lines = [
        [_task(task, n), *(str(found[name]["evaluations"]) for name in libraries)]
        for (_, task, n), found in _tasks(rows)
    ]
    return _table(["looks at the field", *libraries], lines)


def memory(rows: Sequence[dict]) -> str:
    """A line a way of keeping, a column a depth."""
    depths = sorted({row["layers"] for row in rows})
    lines = []
    for library in _each(row["library"] for row in rows):
        found = {row["layers"]: row for row in rows if row["library"] == library}
        last = found[depths[-1]]
        aim = f"{last['aim']:g}" if "aim" in last else ""
        cells = (_figures(found[depth]["mib"]) for depth in depths)
        lines.append([library, *cells, f"{last['over_first']:.2f}", aim, _milliseconds(last["cpu_s"])])
    head = ["MiB", *(f"K = {depth}" for depth in depths), "last over first", "aim", f"CPU ms, K = {depths[-1]}"]
    return _table(head, lines)


def growth(rows: Sequence[dict]) -> str:
    said = []
    for axis in AXES.values():
        times = {name: slope(rows, axis.name, name) for name in (FLOOR, OURS, "zuko", "nflows")}
        if all(value is not None for value in times.values()):
            (before, _), (last, _) = axis.works[-2:]
            size = f"{axis.label}, drawing" if axis.name == "drawn" else axis.label
            said.append([size, f"{before} to {last}", *(f"{value:.2f}" for value in times.values())])
    head = ["size", "from, to", "floor", "diffeo", "zuko", "nflows"]
    return f"## How the cost grows\n\n{WORDS['growth']}\n\n![growth](pictures/growth.png)\n\n{_table(head, said)}"


def seconds(rows: Sequence[dict]) -> str:
    """CPU and wall milliseconds of everything."""
    libraries = [FLOOR, *_libraries(rows)]
    lines = []
    for family in FAMILIES:
        mine = [row for row in rows if f"{row['workload']}-{row['d']}" == family]
        for (d, task, n), found in _tasks(mine):
            cells = (
                f"{_milliseconds(found[k]['cpu_s'])} / {_milliseconds(found[k]['wall_s'])}" if k in found else ""
                for k in libraries
            )
            lines.append([found[FLOOR]["workload"], str(d), _task(task, n), *cells])
    return f"## Milliseconds\n\nCPU / wall, medians.\n\n{_table(['work', 'd', 'task', *libraries], lines)}"


def numbers(rows: Sequence[dict]) -> str:
    """How many numbers every flow learns."""
    libraries = [FLOOR, *(name for name in _libraries(rows) if "," not in name)]
    lines = []
    for family, work in FAMILIES.items():
        mine = {row["library"]: row for row in rows if f"{row['workload']}-{row['d']}" == family}
        if mine:
            cells = (f"{mine[name]['parameters']:,}" if name in mine else "" for name in libraries)
            lines.append([work.workload, str(work.d), *cells])
    said = "flowjax learns nine slopes a set of bins, of which two stay unused, and the place and scale of the base."
    return f"## Numbers learned\n\n{said}\n\n{_table(['work', 'd', *libraries], lines)}"


def _tasks(rows: Sequence[dict]) -> list[tuple[tuple[int, str, int], dict[str, dict]]]:
    """(d, task, n) -> the row of each library; the floor is that of the process with most libraries."""
    found: dict[tuple[int, str, int], dict[str, dict]] = {}
    for row in rows:
        found.setdefault((row["d"], row["task"], row["n"]), {}).setdefault(row["library"], row)
    return list(found.items())


def _libraries(rows: Sequence[dict]) -> list[str]:
    names = _each(row["library"] for row in rows if row["library"] != FLOOR)
    return sorted(names, key=lambda name: (ORDER.index(name.split(",")[0]), name))


def _is_ours(name: str) -> bool:
    return name.split(",")[0] in (OURS, FLOOR)


def _task(task: str, n: int) -> str:
    words = {"train": "training step", "sample": "sampling"}
    return f"{words.get(task, task)}, {n:,}"


def _ratio(row: dict | None) -> str:
    if row is None:
        return ""
    low, high = row["spread"]
    return f"{_figures(row['ratio_to_floor'])} ({_figures(low)}-{_figures(high)})"


def _figures(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _milliseconds(value: float) -> str:
    return _figures(1e3 * value)


def _each(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
