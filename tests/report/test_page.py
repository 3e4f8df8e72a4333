"""The page: self-contained, escaped, in the right words; pictures of every name and shape."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from diffeo.errors import DiffeoError
from diffeo.report import figures
from diffeo.report.evidence import Evidence, Extreme, Uniformity, Verdict
from diffeo.report.findings import Bars, Baseline, Findings, Histogram, Pair, Score, Step
from diffeo.report.page import render, write_report

from .cases import AWKWARD, HOSTILE, VERDICTS, evidence, extremes, findings, table

_VOID = {"meta", "img", "br", "hr", "link", "input"}


class _Outline(HTMLParser):
    """Every element with the names of its attributes, in order; and whether they are well nested."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.values: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")


def _named(names: tuple[str, ...], **more: object) -> Findings:
    """Findings whose every name is one of these: columns, levels, notes, reasons, file, recipe, baselines, the columns
    of evidence, and the values of single rows."""
    rng = np.random.default_rng(0)
    n = 120
    data: dict[str, object] = {name: rng.normal(size=n) for name in names[:3]}
    data |= {name: rng.choice(list(names), n) for name in names[3:]}
    found = findings(pa.table(data))
    said = {
        "data": names[0],
        "recipe": names[0],
        "fingerprint": names[0],
        "notes": names,
        "left_out": tuple((name, name) for name in names),
        "baselines": tuple(
            b.model_copy(update={"name": name}) for b, name in zip(found.baselines, names, strict=False)
        ),
        "versions": {name: name for name in names},
        "verdict": Verdict(trust="no", sentence=names[0], reasons=names),
        "evidence": _evidence_on(names),
        "least_likely": tuple(Extreme(row=k, log_prob=None, values={name: name}) for k, name in enumerate(names, 1)),
        "most_likely": (Extreme(row=9, log_prob=1.0, values={name: name for name in names}),),
        "rows_with_holes": 3,
    }
    return found.model_copy(update=said | more)


def _evidence_on(names: tuple[str, ...]) -> Evidence:
    """Every column too narrow, so that all names are said."""
    found = evidence(names, rows=400, off=dict.fromkeys(names, (0.0, 2.0)), whole=(0.5, 1.0), accuracy=0.9)
    assert found.two_sample is not None
    return found.model_copy(update={"two_sample": found.two_sample.model_copy(update={"classifier": names[0]})})


def _harmless(names: tuple[str, ...]) -> Findings:
    return _named(tuple(f"name{k:02}" for k in range(len(names))))


_FIVE = ("a", "b", "day", "word", "count")


def _judged(trust: str = "yes", rows: int = 2000, values: bool = False, **more: Any) -> Findings:
    """Findings of five columns with evidence, a verdict and single rows."""
    names = _FIVE if values else ()
    found = {
        "evidence": evidence(_FIVE, rows=rows, **more),
        "verdict": VERDICTS[trust],
        "least_likely": extremes(-30.0, names),
        "most_likely": extremes(9.0, names),
    }
    return findings(table().select(_FIVE)).model_copy(update=found)


def _text(page: str) -> str:
    """All that a reader sees, in single spaces."""
    return " ".join(" ".join(_Outline(page).words).split())


def test_hostile_names_add_no_element_and_no_attribute() -> None:
    page, plain = _Outline(render(_named(HOSTILE))), _Outline(render(_harmless(HOSTILE)))
    assert page.elements == plain.elements
    assert not page.open
    text = "".join(page.words)
    for name in HOSTILE[:-1]:
        assert name in text  # shown as it is, as text
    assert not set("\u2028\u2029\u202e\u2066\u200f") & set(text)


def test_each_hostile_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for draw in (
        "marginal",
        "pair",
        "comparison",
        "learning_curve",
        "evenness",
    ):  # as pictures they are tried together, above
        monkeypatch.setattr(figures, draw, lambda *_: b"")
    plain = _Outline(render(_harmless(HOSTILE[:1]))).elements
    for name in HOSTILE:
        assert _Outline(render(_named((name,)))).elements == plain


def test_awkward_names_always_give_a_page(tmp_path: Path) -> None:
    found = _named(AWKWARD)
    page = write_report(found, tmp_path).read_text(encoding="utf-8")
    assert _Outline(page).elements
    assert len(page) < 1_500_000
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page)
    assert "日本語の列" in page
    assert Findings.from_json((tmp_path / "report.json").read_text(encoding="utf-8")) == found


def test_the_page_is_self_contained() -> None:
    page = render(_judged("no", off={"a": (0.0, 2.0)}))
    outline = _Outline(page)
    tags = {tag for tag, _ in outline.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "a", "base", "svg"}
    names = {name for _, attributes in outline.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (names & {"href", "action", "srcset"})
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in outline.values
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_pictures_are_small_and_true_pictures() -> None:
    found = findings(table(3000))
    for png in [*map(figures.marginal, found.marginals), *map(figures.pair, found.pairs[:3])]:
        assert len(png) < 20_000
        with Image.open(io.BytesIO(png)) as picture:
            assert picture.width > 300


def test_words_for_a_positive_log_density() -> None:
    dense = table().select(["a", "b"])
    positive = findings(dense, ahead=3.0)
    assert positive.model.mean is not None
    assert positive.model.mean > 0
    assert "It is above zero here, and nothing is wrong with that." in render(positive)
    negative = findings(dense, ahead=-50.0)
    page = render(negative)
    assert "above zero here" not in page
    assert "A simpler density describes these rows better" in page
    assert "below the Gaussian" in page


def test_all_discrete() -> None:
    page = render(findings(table().select(["word", "yes", "count"])))
    assert "is never above zero" in " ".join(page.split())
    assert "can be positive" not in page
    assert "Two columns at a time" not in page
    assert "Lower bounds" not in page


def test_one_column_without_pairs_history_baselines_or_samples() -> None:
    found = findings(table().select(["a"]), samples=False, baselines=(), history=())
    page = render(found)
    assert "Two columns at a time" not in page
    assert "How it learned" not in page
    assert "the density of 1 column<" in page


def test_bounds_given_and_left_out_columns_are_named() -> None:
    data = table().select(["a", "rounded", "day", "word"]).append_column("same", pa.array(["k"] * 300))
    page = render(findings(data, given=["word"]))
    assert "Lower bounds: rounded and day are rounded in the file." in page
    assert "given word" in page
    assert "constant: k in every row" in page


def test_holes_and_impossible_rows_are_said_loudly() -> None:
    data = table().select(["a", "word"])
    holes = pa.array([None if k % 3 == 0 else float(v) for k, v in enumerate(data["a"].to_pylist())])
    found = findings(data.set_column(0, "a", holes))
    assert '<p class="warn">100 of 300 rows (33.3%) have a missing cell.' in render(found)
    assert "none with a missing cell" in render(findings(data))
    bad = found.model_copy(update={"model": Score(n=10, mean=1.0, minus_infinite=2)})
    assert '<p class="warn">2 held-out rows of 10 cannot happen' in render(bad)
    none = found.model_copy(update={"model": Score(n=2, minus_infinite=2)})
    assert "No held-out row has a finite log-density" in render(none)


def test_writing_leaves_two_whole_files_and_the_old_ones_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = findings(table().select(["a", "word"]))
    folder = tmp_path / "new" / "model"
    assert write_report(found, folder) == folder / "report.html"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    before = (folder / "report.html").read_bytes(), (folder / "report.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiffeoError, match=r"cannot be written \(No space left on device\)"):
        write_report(found.model_copy(update={"seed": 99}), folder)
    assert ((folder / "report.html").read_bytes(), (folder / "report.json").read_bytes()) == before
    assert len(list(folder.iterdir())) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffeoError, match="cannot be written"):
        write_report(found, tmp_path / "file")


def test_drawing_changes_nothing_global() -> None:
    before = dict(matplotlib.rcParams)
    render(findings(table().select(["a", "b"])))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    "setting", [{"text.usetex": True}, {"axes.facecolor": "black", "font.family": ["No Such Font"]}]
)
def test_the_users_own_style_is_left_aside(setting: dict[str, object]) -> None:
    found = findings(table().select(["a"])).marginals[0]
    expected = figures.marginal(found)
    with matplotlib.rc_context(setting):  # type: ignore[arg-type]
        assert figures.marginal(found) == expected


@pytest.mark.parametrize("samples", [None, (0, 0), (3, 4)])
def test_pictures_of_odd_shapes(samples: tuple[int, int] | None) -> None:
    for edges in ((0.0, 1.0, 2.0), (-1e300, 0.0, 1e300), (0.0, 1e-300, 2e-300), (1.0, 10.0, 1e5)):
        for counts in ((0, 0), (1, 10**9)):
            found = Histogram(
                name="v",
                kind="continuous",
                edges=edges,
                counts=counts,
                under=0,
                over=0,
                quantiles={},
                sample_counts=samples,
            )
            assert figures.marginal(found)
    for level in AWKWARD[:2]:
        bars = Bars(
            name=level, kind="category", places=(0, 1), levels=(level, level), counts=(1, 2), other=4, other_levels=9,
            sample_counts=samples,
        )  # fmt: skip
        assert figures.marginal(bars)
    many = tuple(range(90))
    assert figures.marginal(
        Bars(name="n", kind="integer", places=many, levels=tuple(map(str, many)), counts=many, other=0, other_levels=0)
    )
    grid = None if samples is None else ((samples[0], 0), (0, samples[1]))
    for edges, name in (((0.0, 1.0, 2.0), "$"), ((1.0, 10.0, 1e5), r"\frac{")):
        pair = Pair(
            x=name, y=name, x_edges=edges, y_edges=edges, counts=((0, 0), (0, 0)), rank_correlation=0.0,
            dependence=0.0, sample_counts=grid,
        )  # fmt: skip
        assert figures.pair(pair)


def test_learning_curves_of_any_length() -> None:
    assert figures.learning_curve([])
    for count in (1, 2, 500):
        steps = [
            Step(epoch=k, step=k, train=-1e12 if k == 0 else -1 / k, valid=None if k % 2 else -2.0)
            for k in range(count)
        ]
        assert figures.learning_curve(steps, steps[0])
    assert Step(epoch=1, step=1, train=float("nan"), valid=float("-inf")).valid is None
    empty = Score(n=0)
    assert figures.comparison(empty, [Baseline(name="$", score=empty, ahead=empty)])


# Verdict, evidence and single rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trust", "word"), [("yes", "Trust it"), ("with care", "Trust it with care"), ("no", "Do not trust it")]
)
def test_the_verdict_comes_first_in_words(trust: str, word: str) -> None:
    page = render(_judged(trust))
    said = [part for part in (part.strip() for part in _Outline(page).words) if part]
    start = said.index(word)
    assert said[start + 1] == VERDICTS[trust].sentence
    assert start < said.index("Why") < said.index("How good it is")
    for reason in VERDICTS[trust].reasons:
        assert reason in said


def test_the_verdicts_own_words_are_not_said_twice() -> None:
    verdict = Verdict(
        trust="with care", sentence="Trust it with care: its 90% region holds 84%.", reasons=("it is so",)
    )
    text = _text(render(_judged().model_copy(update={"verdict": verdict})))
    assert text.count("Trust it with care") == 1
    assert "Its 90% region holds 84%." in text
    assert "It is so." in text


def test_findings_of_before_have_a_page_without_the_passages() -> None:
    page = render(findings(table().select(_FIVE)))
    for passage in ("Is it right?", "Why", "most likely rows", "rust it", "This model."):
        assert passage not in page
    assert "How good it is" in page


def test_every_check_is_there_and_says_that_all_is_fine() -> None:
    text = _text(render(_judged()))
    assert text.count("This model.") == 5
    assert "Every column, given those before it fine" in text
    assert "The row as a whole fine" in text
    assert "The regions of highest density fine" in text
    assert "Can samples be told from data? no" in text
    assert "too narrow" not in text.replace("both ends: the model is too narrow.", "")


def test_evidence_in_parts_has_a_page() -> None:
    whole = evidence(_FIVE)
    for kept in ("latents", "length", "ranks", "levels", "regions", "two_sample"):
        found = whole.model_copy(
            update={"latents": (), "length": None, "ranks": (), "levels": None, "regions": (), "two_sample": None}
            | {kept: getattr(whole, kept)}
        )
        assert _text(render(_judged().model_copy(update={"evidence": found}))).count("This model.") == 1
    nothing = whole.model_copy(
        update={
            "latents": (),
            "length": None,
            "ranks": (),
            "levels": None,
            "regions": (),
            "two_sample": None,
            "rows": 0,
        }
    )
    assert "Is it right?" not in render(_judged().model_copy(update={"evidence": nothing}))


def test_values_of_rows_are_shown_only_where_they_were_asked_for() -> None:
    without, page = render(_judged()), render(_judged(values=True))
    assert "diffeo report MODEL DATA --rows" in without
    assert "Values of single rows are shown" not in without
    assert "no rows of it" in without
    assert "1234.5" not in _text(without)
    assert "11,824" in _text(without)
    assert "Values of single rows are shown" in page
    assert "no rows of it" not in page
    assert "values of single rows: think of that before you pass it on" in page
    assert "1234.5" in _text(page)
    assert "1238.5" in _text(page)


def test_rows_that_cannot_happen_and_long_cells() -> None:
    row = Extreme(row=1, log_prob=None, values={f"c{k}": "v" * 500 for k in range(60)})
    page = render(_judged().model_copy(update={"least_likely": (row,), "most_likely": ()}))
    assert "−∞" in page
    assert "v" * 31 + "…" in page
    assert "v" * 32 not in page
    assert "36 further columns" in page
    assert "The most likely</h3>" not in page


def test_a_page_of_sixty_columns_is_small() -> None:
    names = [f"a long name of a measurement, number {k:03}" for k in range(60)]
    rng = np.random.default_rng(0)
    found = findings(pa.table({name: rng.normal(size=100) for name in names}))
    update = {"evidence": evidence(names, rows=300), "least_likely": extremes(-9, names)}
    page = render(found.model_copy(update=update))
    assert len(page) < 2_000_000
    pictures = page.count('alt="Places of the values of')
    assert pictures == 12 + 4
    assert page.count("<details>") == 2
    for name in names:
        assert page.count(f"<bdi>{name}</bdi></td>") >= 3  # columns, and both tables of evidence


def test_rows_of_other_data_are_not_called_held_out() -> None:
    found = _judged()
    assert "held out of training" in render(found)
    text = _text(render(found.model_copy(update={"held_out": False})))
    assert f"On {found.model.n} rows of table.csv" in text
    assert f"{found.rows_valid} of this data, 0 with a missing cell" in text
    assert f"{found.rows_valid} rows, none with a missing cell." in text
    holes = _text(render(found.model_copy(update={"held_out": False, "rows_with_holes": 50})))
    assert "50 of 200 rows (25.0%) have a missing cell. They were not scored" in holes
    for wrong in ("held-out", "held out", "said when to stop", "training row)", "training rows)"):
        assert wrong not in text, wrong


def test_of_many_baselines_the_best_is_named_and_few_rows_that_carry_a_difference() -> None:
    found = findings(table().select(_FIVE))

    def baseline(name: str, mean: float, median: float, n: int = 150) -> Baseline:
        ahead = Score(n=n, mean=mean, standard_error=0.01, median=median)
        return Baseline(name=name, score=Score(n=n, mean=-mean, standard_error=0.1, median=-median), ahead=ahead)

    some = (baseline("kernel density", 3.0, 2.8), baseline("mixture", 0.5, 0.1, 40), baseline("Gaussian", 2.0, 1.9))
    text = _text(render(found.model_copy(update={"baselines": some})))
    assert "0.50 above the mixture, the best of 3 simpler densities; 2.00 to 3.00 above the others." in text
    assert "Few rows carry much of the difference from the mixture (0.50 in the mean, 0.10 in the median)." in text
    assert "mixture (on 40 of them)" in text
    assert "kernel density (on" not in text


def test_baselines_far_behind_do_not_press_the_others_together() -> None:
    near = [
        Baseline(name=n, score=Score(n=9, mean=m, standard_error=0.1), ahead=Score(n=9))
        for n, m in (("b", -2.0), ("c", -3.0))
    ]
    far = Baseline(name="far", score=Score(n=9, mean=-1e12, standard_error=1.0), ahead=Score(n=9))
    model = Score(n=9, mean=-1.0, standard_error=0.1)
    with_far = figures.scores._floor([model, *(b.score for b in near), far.score])
    assert -1e12 < with_far < -3.0
    assert figures.comparison(model, [*near, far])


@pytest.mark.parametrize("counts", [(), (0,), (5,), (0,) * 20, (10**9,) + (0,) * 19, (3,) * 7])
def test_bars_of_any_counts(counts: tuple[int, ...]) -> None:
    found = Uniformity(name="$", counts=counts, mean=-1e300, deviation=1e300, distance=1.0, p_value=0.0)
    assert figures.evenness(found)
    for fields in ({"latents": (found,)}, {"ranks": (found,)}, {"length": found}, {"levels": found}):
        e = Evidence(rows=0, **({"latents": ()} | fields))
        assert "This model." in render(findings(table().select(["a"])).model_copy(update={"evidence": e}))


def test_evidence_to_json_and_back() -> None:
    found = _judged(values=True)
    assert Findings.from_json(found.to_json()) == found
