"""Whether to believe a density of pictures, in one sentence, with every reason for and against it.

A defect counts where it is both clear of chance and large enough to matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from diffeo.pictures.findings import Anchor, PictureFindings
from diffeo.report.evidence import Verdict
from diffeo.report.words import counted, listed, percent

__all__ = ["judged", "with_error"]

Trust = Literal["yes", "with care", "no"]

FEW = 100  # pictures, of which a mean is known to a tenth of the spread between them
FEWEST = 16  # samples, and held-out pictures, whose median distance says something
CLEAR = 3.0  # standard errors
LEVEL = 0.1  # bits per dimension, from which on a lead is one even where few pictures carry it
GAP = 0.1  # bits per dimension between training and held-out pictures
UNLIKE = 0.3  # bits per dimension between samples and held-out pictures
NEAR = (0.1, 0.5)  # share of samples nearer to a training picture than 99 % of the held-out ones: care, no
ASTRAY = 1.5  # times as far from training pictures as held-out pictures are, in the median
SKIPPED = 0.01  # share of the steps


class _Reason(NamedTuple):
    trust: Trust
    text: str
    weight: float = 0.0  # the worst is said first


def judged(findings: PictureFindings) -> Verdict:
    """Whether to trust the density, the sentence that says so, and every reason."""
    reasons = sorted(_reasons(findings), key=lambda reason: -reason.weight)
    no = [r.text for r in reasons if r.trust == "no"]
    care = [r.text for r in reasons if r.trust == "with care"]
    yes = [r.text for r in reasons if r.trust == "yes"]
    score = _score(findings)
    trust: Trust = "no" if no else "with care" if care else "yes"
    start = {"yes": "Trust it", "with care": "Trust it with care", "no": "Do not trust it"}[trust]
    but = no or care
    sentence = f"{start}: {score}; but {'; '.join(but[:3])}." if but else f"{start}: {score}; {'; '.join(yes[:3])}."
    return Verdict(trust=trust, sentence=sentence, reasons=(*no, *care, *yes))


def with_error(mean: float, error: float | None) -> str:
    """A figure of bits, as many digits as its standard error allows.

    >>> with_error(3.1234, 0.0123), with_error(3.1234, 0.2), with_error(3.1, None)
    ('3.123 ± 0.012', '3.12 ± 0.20', '3.10')
    """
    digits = 2 if error is None or error >= 0.02 else 3 if error >= 0.0005 else 4
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _score(f: PictureFindings) -> str:
    pictures = counted(f.model.n, "picture")
    where = f"{pictures} held out of training" if f.held_out else f"{pictures} of {f.scored_source}"
    if f.model.mean is None:
        return f"some of {where} cannot happen under this density"
    said = f"this density explains {where} in {with_error(f.model.mean, f.model.error)} bits per dimension"
    best = _best(f)
    if best is None or best.ahead.mean is None:
        return said
    way = "below" if best.ahead.mean >= 0 else "above"
    return f"{said}, {abs(best.ahead.mean):.2f} {way} the best of {len(f.anchors)} simple measures ({best.name})"


def _best(f: PictureFindings) -> Anchor | None:
    known = [anchor for anchor in f.anchors if anchor.bits.mean is not None]
    return min(known, key=lambda anchor: anchor.bits.mean or 0.0, default=None)


def _reasons(f: PictureFindings) -> Iterator[_Reason]:
    if f.model.impossible:
        yield _Reason("no", f"{counted(f.model.impossible, 'picture')} of {f.model.n:,} cannot happen under it", 9.0)
    if f.samples_broken:
        yield _Reason("no", f"{f.samples_broken} of {counted(f.samples_drawn, 'sample')} are not numbers", 8.5)
    yield from _way_back(f)
    yield from _against_anchors(f)
    yield from _copies(f)
    if f.model.n < FEW:
        yield _Reason("with care", f"{counted(f.model.n, 'picture')} {_are(f.model.n)} too few to tell", 5.0)
    yield from _gap(f)
    yield from _typical(f)
    yield from _latents(f)
    yield from _steps(f)


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _way_back(f: PictureFindings) -> Iterator[_Reason]:
    trip = f.round_trip
    if trip.levels or trip.v_error is None:
        wrong = f"{trip.levels:,} of {trip.numbers:,} grey levels do not come back from their noise"
        yield _Reason("no", wrong, 8.0)
    else:
        yield _Reason("yes", f"all {trip.numbers:,} grey levels tried come back from their noise exactly", 2.0)


def _against_anchors(f: PictureFindings) -> Iterator[_Reason]:
    behind = []
    for anchor in f.anchors:
        ahead, error = anchor.ahead.mean, anchor.ahead.error
        if ahead is None or ahead > min(CLEAR * (error or 0.0), LEVEL):
            continue
        sure = error is not None and ahead < -CLEAR * error
        if anchor.name == "histogram" and sure:
            yield _Reason("no", f"a histogram of each pixel alone explains them {-ahead:.2f} bits better", 7.0)
        elif sure:
            behind.append(f"{anchor.name} ({-ahead:.2f} bits better)")
        else:
            behind.append(f"{anchor.name} (no different)")
    if behind:
        yield _Reason("with care", f"it is not ahead of {listed(behind, length=60)}", 4.5)


def _copies(f: PictureFindings) -> Iterator[_Reason]:
    c = f.copies
    if c is None or not c.samples:
        return
    error = (max(c.limit * (1 - c.limit), c.closer * (1 - c.closer)) / c.samples) ** 0.5
    clear = c.closer - c.limit > CLEAR * error
    text = (
        f"{percent(c.closer, 0)} of its samples lie nearer to a training picture than {percent(1 - c.limit, 0)} of the "
        "held-out pictures do"
    )
    if clear and c.closer > NEAR[0]:
        yield _Reason("no" if c.closer > NEAR[1] else "with care", text, 6.0)
    else:
        yield _Reason("yes", "its samples are no copies of training pictures", 1.5)
    if c.held_out_median and c.median > ASTRAY * c.held_out_median and min(c.samples, c.held_out) >= FEWEST:
        times = c.median / c.held_out_median
        far = f"its samples lie {times:.1f} times as far from training pictures as held-out pictures do"
        yield _Reason("with care", far, 3.6)


def _gap(f: PictureFindings) -> Iterator[_Reason]:
    if not f.held_out or f.model.mean is None or f.train.mean is None:
        return
    gap = f.model.mean - f.train.mean
    error = ((f.model.error or 0.0) ** 2 + (f.train.error or 0.0) ** 2) ** 0.5
    if gap > max(GAP, CLEAR * error):
        yield _Reason(
            "with care", f"it explains training pictures {gap:.2f} bits better, having learned them by heart", 4
        )
    else:
        yield _Reason("yes", "held-out pictures are as probable as those of training", 1.0)


def _typical(f: PictureFindings) -> Iterator[_Reason]:
    if f.spread is None:
        return
    ours, theirs = f.spread.samples_bits, f.spread.pictures_bits
    if ours.mean is None or theirs.mean is None:
        if ours.impossible:
            text = f"{counted(ours.impossible, 'sample')} of {ours.n} cannot happen under the density itself"
            yield _Reason("with care", text, 4.2)
        return
    away = ours.mean - theirs.mean
    error = ((ours.error or 0.0) ** 2 + (theirs.error or 0.0) ** 2) ** 0.5
    if abs(away) > max(UNLIKE, CLEAR * error):
        kind = "more" if away > 0 else "less"
        text = f"its samples take {abs(away):.2f} bits per dimension {kind} than pictures do"
        yield _Reason("with care", text, 3.5)
    else:
        yield _Reason("yes", "its samples are as probable as pictures", 0.9)


def _latents(f: PictureFindings) -> Iterator[_Reason]:
    whose = "held-out pictures" if f.held_out else "these pictures"
    off = [f"{level.name} ({', '.join(level.words)})" for level in f.latents if level.words]
    if off:
        yield _Reason("with care", f"the noise of {whose} is not normal in {listed(off, 3, 90)}", 3.0)
    elif f.latents:
        yield _Reason("yes", f"the noise of {whose} is about normal", 0.8)


def _steps(f: PictureFindings) -> Iterator[_Reason]:
    if f.returns:
        yield _Reason("with care", f"training went back to earlier weights {counted(f.returns, 'time')}", 2.5)
    if f.skipped:
        share = f.skipped / max(f.steps or f.skipped, 1)
        trust: Trust = "with care" if share > SKIPPED else "yes"
        said = f"{counted(f.skipped, 'training step')} of {f.steps or 0:,} gave no number and {_was(f.skipped)} skipped"
        yield _Reason(trust, said, 2.4 if trust == "with care" else 0.6)
    elif f.steps:
        yield _Reason("yes", "no training step was skipped", 0.5)


def _was(n: int) -> str:
    return "was" if n == 1 else "were"
