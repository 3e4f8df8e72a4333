"""What the page says of evidence: faults that are there are named, and those that chance makes are not."""

import pytest

from diffeo.report.checks import Passage, passages
from diffeo.report.evidence import Coverage, Evidence, TwoSample
from diffeo.report.reading import holm

from .cases import evidence

NAMES = [f"c{k}" for k in range(20)]


def _by_title(e: Evidence) -> dict[str, Passage]:
    found = {passage.title.split()[-1]: passage for passage in passages(e)}
    assert list(found) == ["it", "whole", "alone", "density", "data?"]
    return found


def test_nothing_is_named_where_all_is_right() -> None:
    """Of 60 tables of 20 columns chance makes a fault in one of a hundred; more than three by one seed in 300."""
    off = 0
    for seed in range(60):
        found = passages(evidence(NAMES, seed=seed))
        off += any(passage.fault for passage in found)
        for passage in found:
            assert passage.fault or passage.word in ("fine", "no")
            assert passage.fault or passage.said.startswith("Fine: ")
            assert passage.fault or not any(line.fault for line in (*passage.lines, *passage.regions))
    assert off <= 3


@pytest.mark.parametrize(
    ("moved", "word"),
    [
        ((0.0, 1.5), "too narrow"),
        ((0.0, 0.6), "too wide"),
        ((0.4, 1.0), "shifted up"),
        ((-0.4, 1.0), "shifted down"),
        ((0.5, 1.8), "too narrow and shifted up"),
    ],
)
def test_the_column_that_is_off_is_named(moved: tuple[float, float], word: str) -> None:
    """Deviations of five standard errors and more; none is missed in 30 tables."""
    for seed in range(30):
        found = _by_title(evidence(NAMES, off={"c7": moved}, seed=seed))
        for check in (found["it"], found["alone"]):
            assert check.fault
            assert check.word == "1 of 20 off"
            assert f"{word.capitalize()}: c7." in check.said
            assert [(line.name, line.word) for line in check.lines if line.fault] == [("c7", word)]
            assert check.drawn[0][0].name == "c7"


def test_columns_of_one_fault_are_named_together() -> None:
    off = {"c1": (0.0, 1.5), "c2": (0.0, 1.6), "c5": (0.6, 1.0)}
    said = _by_title(evidence(NAMES, off=off))["it"].said
    assert said.startswith("Shifted up: c5; too narrow: c2 and c1. In c5 the upper half holds 7")
    many = _by_title(evidence(NAMES, off=dict.fromkeys(NAMES[:9], (0.0, 1.5))))["it"]
    assert many.word == "9 of 20 off"
    assert "and 5 more." in many.said
    assert "two outermost bars hold" in many.said


def test_tails_are_seen_where_the_distance_is_small() -> None:
    (right,) = evidence(["a"], rows=5000).latents
    tails = right.model_copy(update={"deviation": 1.3, "distance": 0.012, "p_value": 0.4})
    passage = passages(Evidence(rows=5000, latents=(tails,)))[0]
    assert passage.fault
    assert passage.word == "too narrow"


def test_what_is_certain_but_small_is_said_to_be_so() -> None:
    passage = _by_title(evidence(["a", "b"], rows=100_000, off={"a": (0.05, 1.0)}))["it"]
    assert not passage.fault
    assert passage.word == "fine"
    assert "Certain but too small to matter: a." in passage.said
    assert passage.lines[0].word == "slightly shifted up"


def test_few_rows_show_nothing_rather_than_that_all_is_fine() -> None:
    """Chance makes a fault of 20 columns in one of a hundred choices of the seed."""
    for title, passage in _by_title(evidence(NAMES, rows=60)).items():
        assert not passage.fault
        if title != "data?":
            assert passage.word == "nothing seen"
            assert "With 60 rows only a distance above" in passage.said
            assert "Fine" not in passage.said


def test_rows_as_a_whole() -> None:
    narrow = _by_title(evidence(NAMES, whole=(0.5, 1.0)))
    assert narrow["whole"].word == narrow["density"].word == "too narrow"
    assert "far from the centre" in narrow["whole"].said
    assert "region holds" in narrow["density"].said
    wide = _by_title(evidence(NAMES, whole=(-0.5, 1.0)))
    assert wide["whole"].word == wide["density"].word == "too wide"


def test_regions_without_levels() -> None:
    def said(found: float) -> Passage:
        region = Coverage(nominal=0.9, found=found, standard_error=0.006)
        return passages(Evidence(rows=2500, latents=(), regions=(region,)))[0]

    assert said(0.91).said == "Fine: every region holds about what it should."
    assert (said(0.842).fault, said(0.842).word) == (True, "too narrow")
    assert said(0.842).said == "Too narrow: its 90% region holds 84.2% of the rows."
    assert said(0.842).regions[0][:3] == ("90%", ("84.2%", "0.6%"), "too few rows")
    assert said(0.96).word == "too wide"
    off = [
        Coverage(nominal=q, found=found, standard_error=0.003) for q, found in ((0.5, 0.66), (0.9, 0.91), (0.99, 0.96))
    ]
    passage = passages(Evidence(rows=2500, latents=(), regions=tuple(off)))[0]
    assert passage.said == "Uneven: its 50% region holds 66.0%, its 99% region holds 96.0% of the rows."


@pytest.mark.parametrize(
    ("accuracy", "error", "word"),
    [(0.5, 0.01, "no"), (0.45, 0.01, "no"), (0.55, 0.01, "hardly"), (0.7, 0.01, "yes"), (0.6, 0.05, "nothing seen")],
)
def test_two_samples(accuracy: float, error: float, word: str) -> None:
    test = TwoSample(classifier="trees", accuracy=accuracy, standard_error=error, n=2500)
    passage = passages(Evidence(rows=1250, latents=(), two_sample=test))[0]
    assert passage.word == word
    assert passage.fault == (word == "yes")
    assert f"right about {100 * accuracy:.1f}% ± {100 * error:.1f}% of 2,500 rows." in passage.said


def test_holm_is_never_above_bonferroni() -> None:
    p = [0.001, 0.02, 0.02, 0.9, 0.04]
    adjusted = holm(p)
    assert all(mine <= min(1.0, len(p) * each) for mine, each in zip(adjusted, p, strict=True))
    assert sorted(adjusted) == [adjusted[k] for k in sorted(range(5), key=lambda k: p[k])]
    assert holm([]) == []


def test_one_small_p_value_among_many_columns_is_no_fault() -> None:
    many = evidence(NAMES).latents
    one = many[0].model_copy(update={"distance": 0.06, "p_value": 2e-4})
    assert passages(Evidence(rows=2000, latents=(one,)))[0].fault
    assert not passages(Evidence(rows=2000, latents=(one, *many[1:])))[0].fault
    stretched = many[0].model_copy(update={"counts": (3,) * 20, "deviation": 1.35, "p_value": 0.5})
    assert passages(Evidence(rows=60, latents=(stretched,)))[0].fault
    assert not passages(Evidence(rows=60, latents=(stretched, *many[1:])))[0].fault


def test_a_bulge_in_the_middle_is_too_wide() -> None:
    (right,) = evidence(["a"]).latents
    bulge = right.model_copy(update={"mean": -0.05, "deviation": 0.61, "distance": 0.253, "p_value": 0.0})
    assert passages(Evidence(rows=2000, latents=(bulge,)))[0].word == "too wide"
