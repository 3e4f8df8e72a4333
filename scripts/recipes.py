"""Writes docs/recipes: a page a recipe, with its picture and what is measured, and one table of all.

`make recipes` fits and measures every recipe anew, about ten minutes of one processor; `make recipes RECIPE=maf` one of
them. `--words` only sets the words of recipes.toml beside what was measured before.
"""

import json
import re
import sys
import textwrap
import time
import tomllib
from pathlib import Path
from typing import Any

import click

from diffeo import bases, mixtures, nets, scalars, transforms
from diffeo.recipes import RECIPES
from diffeo.studies.truth import Gap

PLACE = Path(__file__).parents[1] / "docs" / "recipes"
WORDS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
HOMES = (transforms, scalars, nets, bases, mixtures)  # where the parts of a recipe live
REFERENCE = "realnvp"
ALONE = "Takes no context: no `--given`, and numbers alone, without categories beside them."
CAPTION = """
Above: the density that it learned from 1,500 points, and draws. Below: a square grid of the noise, with the rings of
one and two standard deviations, carried towards the data, in unit spread; where cells shrink the density grows. Last:
the points carried to noise, which would be a round Gaussian cloud if nothing were left to learn.
"""


def epochs(name: str) -> int:
    """How many epochs the fit that is shown has at most."""
    return int(WORDS[name].get("epochs", RECIPES[name].epochs))


def home(part: str) -> str:
    """The file that a part of a recipe is in, as a page links to it."""
    for room in HOMES:
        if part in room.__all__:
            name = str(getattr(room, part).__module__).replace(".", "/")
            return f"../../src/{name}.py"
    raise KeyError(part)


def wrapped(text: str) -> str:
    """A paragraph in lines of 120 columns, links and what is bold kept whole."""
    joined = re.sub(r"\[.*?\]\(|\*\*.*?\*\*", lambda part: part[0].replace(" ", "\0"), " ".join(text.split()))
    return textwrap.fill(joined, 120, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def words(name: str) -> str:
    """A page without what is measured."""
    told, recipe = WORDS[name], RECIPES[name]
    plural = "s" if recipe.layers > 1 else ""
    depth = told.get("depth", f"{recipe.layers} layer{plural} unless `--layers` says otherwise.")
    context = "Takes a context, `--given COLUMNS`." if recipe.conditional else ALONE
    flag, option = ("", "") if recipe.conditional else (" --columns b_v,M_hp", ', columns=("b_v", "M_hp")')
    parts = ", ".join(f"[`{part}`]({home(part)})" for part in told["layers"])
    flows = "[`recipes/flows.py`](../../src/diffeo/recipes/flows.py)"
    made = f"{depth} {context} Made of {parts}, and put together in {flows}. By hand, for two columns:"
    jacobian = f"Jacobian dz/dx: {told['jacobian']}."
    return f"""# {name}

{wrapped(told["what"])}

![{name} on two moons](pictures/{name}.png)

{wrapped(told.get("caption", CAPTION))}

## The equation

{textwrap.indent(told["equation"].strip(), "    ")}

{wrapped(f"x is data, z is noise, both in unit spread. {jacobian} More in [the mathematics](../{told['read']}).")}

## When

{wrapped(f"**To use it:** {told['when']}")}

{wrapped(f"**Not:** {told['not']}")}

## What it costs

{wrapped(f"To score: {told['score']}. To draw: {told['draw']}. {told['cost']}")}

## How to call it

```sh
diffeo fit stars -o stars-{name} --recipe {name}{flag}
```

```python
import diffeo

model = diffeo.fit("stars", recipe="{name}"{option})
```

{wrapped(made)}

```python
from diffeo import bases, {"mixtures, " if name == "auto" else ""}nets, scalars, transforms
from diffeo.flow import Flow

{told["flow"].strip()}
```

## Source

{sources(name)}
"""


def sources(name: str) -> str:
    found = WORDS[name]["sources"]
    return "\n".join(f"- [arXiv {number}](https://arxiv.org/abs/{number}): {title}" for number, title in found)


def page(name: str, kept: dict[str, Any]) -> str:
    """A whole page, of the words and what was measured."""
    how, found = kept["how"], kept["recipes"][name]
    told = f"""Fitted to {how["rows"]:,} points of two moons, {found["epochs"]:.3g} epochs of at most {epochs(name)},
        seed {how["seed"]}, no other option: KL(truth || density) = **{gap(found)} nats** on {how["fresh"]:,} fresh
        points (± one standard error), with {found["parameters"]:,} parameters."""
    costs = f"""CPU time for {how["timed_rows"]:,} rows as a multiple of what [`{REFERENCE}`]({REFERENCE}.md) takes:
        the median of {how["rounds"]} rounds in which both take turns, and their range. The models of {how["wide"]}
        columns had learned for {how["short"]} epochs only."""
    rows = [
        f"| {d} | {' | '.join(spread(*found['cost'][d][act]) for act in ('score', 'draw'))} |" for d in found["cost"]
    ]
    heads = ["| columns | to score | to draw |", "|---|---|---|"]
    table = "\n".join([*heads, *rows])
    return f"{words(name)}\n## Measured\n\n{wrapped(told)}\n\n{wrapped(costs)}\n\n{table}\n\n[All recipes](README.md)\n"


def gap(found: dict[str, Any]) -> Gap:
    return Gap(found["kl"]["nats"], found["kl"]["standard_error"])


def short(ratio: float) -> str:
    """
    >>> short(0.514), short(93.7)
    ('0.51', '94')
    """
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def spread(low: float, middle: float, high: float) -> str:
    return f"{short(middle)} ({short(low)} to {short(high)})"


def index(kept: dict[str, Any]) -> str:
    """The page of all recipes."""
    how = kept["how"]
    first = """An architecture a name: `diffeo fit DATA -o MODEL --recipe NAME`, or `diffeo.fit(data, recipe="NAME")`.
        Without one it is [`auto`](auto.md), the one to take unless there is a reason; the others are the flows of the
        field, each on a page with its picture, its equation, when to use it, and what it costs. `make recipes` makes
        these pages."""
    second = f"""KL is from the truth to the fitted density, in nats, on {how["fresh"]:,} fresh points of two moons (±
        one standard error), after {how["rows"]:,} were learned with one seed, in 150 epochs at most, or as many as a
        page says. It shows what each does with little data and no tuning, and ranks nothing for other data.
        What a row costs is CPU time as a multiple of `{REFERENCE}`'s, for {how["timed_rows"]:,} rows of 2 and of
        {how["wide"]} columns on one thread: medians of {how["rounds"]} rounds on a shared machine, whose range the
        pages give."""
    heads = ["recipe", "arXiv", "Jacobian", "to score", "to draw", "KL, nats"]
    heads += [f"{act}, d = {d}" for act in ("score", "draw") for d in (2, how["wide"])] + ["context"]
    table = [heads, ["---"] * len(heads), *(row(name, kept["recipes"][name]) for name in WORDS)]
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return f"# Recipes\n\n{wrapped(first)}\n\n{wrapped(second)}\n\n{lines}\n"


def row(name: str, found: dict[str, Any]) -> list[str]:
    told = WORDS[name]
    source = ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number, _ in told["sources"])
    ratios = [short(found["cost"][d][act][1]) for act in ("score", "draw") for d in found["cost"]]
    context = "yes" if RECIPES[name].conditional else "no"
    return [
        f"[{name}]({name}.md)",
        source,
        told["jacobian"],
        told["score"],
        told["draw"],
        str(gap(found)),
        *ratios,
        context,
    ]


def measured() -> dict[str, Any]:
    """What was measured before."""
    place = PLACE / "measured.json"
    return dict(json.loads(place.read_text())) if place.exists() else {"recipes": {}}


def write(kept: dict[str, Any]) -> None:
    """The pages, and the numbers in them."""
    done = {name: kept["recipes"][name] for name in WORDS if name in kept["recipes"]}
    lines = ",\n".join(f'  "{name}": {json.dumps(found)}' for name, found in done.items())
    text = f'{{\n "how": {json.dumps(kept["how"])},\n "recipes": {{\n{lines}\n }}\n}}\n'
    (PLACE / "measured.json").write_text(text)
    for name in done:
        (PLACE / f"{name}.md").write_text(page(name, kept))
    if len(done) == len(WORDS):
        (PLACE / "README.md").write_text(index(kept))


def measure(names: list[str]) -> None:
    """Fit and measure these recipes anew, and write each page as it comes."""
    import recipe_fits as fits

    kept = measured()
    kept["how"] = fits.HOW
    (PLACE / "pictures").mkdir(parents=True, exist_ok=True)
    references = fits.references(REFERENCE, epochs(REFERENCE))
    for name in names:
        began = time.process_time()
        kept["recipes"][name], picture = fits.looked_at(name, epochs(name), references)
        (PLACE / "pictures" / f"{name}.png").write_bytes(picture)
        write(kept)
        click.echo(f"{name:<22} KL {gap(kept['recipes'][name])}   {time.process_time() - began:3.0f} CPU s")


if __name__ == "__main__":
    if sys.argv[1:] == ["--words"]:
        write(measured())
    else:
        measure(sys.argv[1:] or list(WORDS))
