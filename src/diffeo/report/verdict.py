"""The verdict: whether to trust a density, in one sentence, from the evidence among its findings.

A defect counts where it is both large enough to matter and clear of chance: with many rows every difference is
significant, and with few none is.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from diffeo.report.evidence import Evidence, Verdict
from diffeo.report.findings import Baseline, Findings
from diffeo.report.reading import CLEAR, LARGE, LARGE_SPREAD, LARGE_WHOLE, read, read_whole

__all__ = ["LIMITS", "Limit", "verdict"]

Trust = Literal["yes", "with care", "no"]


class Limit(NamedTuple):
    """From which size on a defect asks for care, and from which on a density is not to be trusted; and why."""

    care: float
    no: float
    why: str


FEW = 100  # held-out rows; the 90 % region of fewer is known to 3 points at best, and nothing finer shows
LIMITS = {
    "behind": Limit(0.0, 0.05, "nats a row; 0.05 is a twentieth more likely, and simpler besides"),
    "impossible": Limit(0.0, 0.01, "share of rows; what happens cannot be impossible, but one odd row is no density"),
    "region": Limit(0.02, 0.05, "share of rows; beyond 5 points a 90 % region is no 90 % region"),
    "told apart": Limit(0.6, 0.75, "accuracy; from three in four on samples do not stand in for rows"),
    "column": Limit(LARGE, 0.2, "distance of distribution functions; a fifth of the rows are out of place"),
    "length": Limit(LARGE_WHOLE, 0.25, "distance of distribution functions, of all columns together"),
    "holes": Limit(0.2, 1.1, "share of rows left out for missing cells; the rest may be unlike them"),
}


class _Reason(NamedTuple):
    trust: Trust
    text: str
    weight: float = 0.0  # how far beyond the limit; the worst is said first


def verdict(findings: Findings) -> Verdict:
    """Whether to trust the density, the sentence that says so, and every reason for and against it."""
    reasons = sorted(_reasons(findings), key=lambda reason: -reason.weight)
    against = [reason for reason in reasons if reason.trust != "yes"]
    no = [reason for reason in against if reason.trust == "no"]
    rest = [reason.text for reason in reasons if reason.trust == "yes"]
    if no:
        trust, sentence = "no", f"Do not trust it: {_joined([reason.text for reason in no[:3]])}."
    elif against:
        trust, sentence = "with care", f"Trust it with care: {_joined([reason.text for reason in against[:3]])}."
    else:
        trust, sentence = "yes", f"Trust it: {_rows(findings)}, {_joined(rest)}."
    every = [reason.text for reason in (*no, *(r for r in against if r.trust != "no"))] + rest
    return Verdict(trust=trust, sentence=sentence, reasons=tuple(every))


def _reasons(f: Findings) -> Iterator[_Reason]:
    yield from _too_few(f)
    yield from _impossible(f)
    yield from _against_simpler(f)
    if f.evidence is not None:
        yield from _regions(f.evidence)
        yield from _told_apart(f.evidence)
        yield from _columns(f.evidence)
    else:
        yield _Reason("with care", "no held-out row could be looked at", 9.0)
    yield from _holes(f)


# What is looked at ---------------------------------------------------------------------------------------------------


def _too_few(f: Findings) -> Iterator[_Reason]:
    n = f.model.n if f.evidence is None else f.evidence.rows
    if n < FEW:
        said = "held out" if f.held_out else "looked at"
        yield _Reason("with care", f"{_count(n, 'row')} {said} {'is' if n == 1 else 'are'} too few to tell", 8.0)


def _impossible(f: Findings) -> Iterator[_Reason]:
    n, share = f.model.minus_infinite, f.model.minus_infinite / max(f.model.n, 1)
    if n:
        trust: Trust = "no" if share > LIMITS["impossible"].no and n > 1 else "with care"
        yield _Reason(trust, f"{_count(n, 'row')} of {f.model.n:,} ({share:.1%}) cannot happen under it", 7 + share)


def _against_simpler(f: Findings) -> Iterator[_Reason]:
    known = [b for b in f.baselines if b.ahead.mean is not None]
    if not known:
        return
    best = min(known, key=lambda b: b.ahead.mean or 0.0)
    ahead, error = best.ahead.mean or 0.0, _error(best)
    name = f"the best simpler density ({_short(best.name)})"
    if ahead < -CLEAR * error and ahead < -LIMITS["behind"].no:
        yield _Reason("no", f"it is {_size(-ahead)} nats a row below a simpler density ({_short(best.name)})", 6.0)
    elif ahead < -2 * error:
        yield _Reason(
            "with care", f"it is {_size(-ahead)} nats a row below a simpler density ({_short(best.name)})", 3.0
        )
    elif ahead > 2 * error:
        yield _Reason("yes", f"it is {_size(ahead)} nats a row above {name}", 3.0)
    else:
        yield _Reason("yes", f"it is no worse, within the error, than {name}", 3.0)


def _error(b: Baseline) -> float:
    return b.ahead.standard_error if b.ahead.standard_error is not None else abs(b.ahead.mean or 0.0)


def _regions(e: Evidence) -> Iterator[_Reason]:
    limit, bad = LIMITS["region"], False
    for one in e.regions:
        off = one.found - one.nominal
        if abs(off) < CLEAR * one.standard_error or abs(off) < limit.care:
            continue
        bad = True
        trust: Trust = "no" if abs(off) > limit.no and one.nominal >= 0.9 else "with care"
        yield _Reason(trust, f"its {one.nominal:.0%} region holds {one.found:.1%} of the rows", 4 + abs(off))
    main = [one for one in e.regions if one.nominal == 0.9]
    if main and not bad:
        text = f"its regions hold what they should ({main[0].found:.1%} in the 90% region)"
        yield _Reason("yes", text, 2.0)


def _told_apart(e: Evidence) -> Iterator[_Reason]:
    test = e.two_sample
    if test is None:
        return
    limit, clear = LIMITS["told apart"], test.accuracy - 0.5 > CLEAR * test.standard_error
    text = f"a classifier tells its samples from data in {test.accuracy:.0%} of cases"
    trust: Trust = (
        "yes" if not clear or test.accuracy < limit.care else "no" if test.accuracy > limit.no else "with care"
    )
    yield _Reason(trust, text, 1.0 if trust == "yes" else 5 + test.accuracy)


def _columns(e: Evidence) -> Iterator[_Reason]:
    """The columns that are off by themselves (ranks) or given those before them (latents), and all together."""
    limit, no = LIMITS["column"], False
    found: dict[str, tuple[float, str]] = {}
    for what, many in (("alone", e.ranks), ("given the others", e.latents)):
        for one, reading in zip(many, read(many), strict=True):
            size = max(one.distance / LARGE, abs(one.deviation - 1) / LARGE_SPREAD)
            if reading.fault and size > found.get(one.name, (0.0, ""))[0]:
                found[one.name] = (size, what)
            no = no or (what == "alone" and reading.certain and one.distance > limit.no)
    if found:
        worst = sorted(found, key=lambda name: -found[name][0])
        listed = _listed([f"{_short(name)} ({found[name][1]})" for name in worst[:3]], len(worst) - 3)
        noun = "column is" if len(worst) == 1 else "columns are"
        yield _Reason("no" if no else "with care", f"{len(worst)} {noun} not as in the data: {listed}", 2.5)
    elif e.ranks or e.latents:
        yield _Reason("yes", "every column is as in the data", 0.5)
    if e.length is not None and read_whole(e.length).fault:
        far = e.length.distance > LIMITS["length"].no
        yield _Reason("no" if far else "with care", "its columns do not depend on one another as in the data", 2.0)


def _holes(f: Findings) -> Iterator[_Reason]:
    share = f.rows_with_holes / max(f.rows, 1)
    if share > LIMITS["holes"].care:
        yield _Reason("with care", f"{share:.0%} of the rows have a missing cell and are not described", 1.0)


# Words ---------------------------------------------------------------------------------------------------------------


def _rows(f: Findings) -> str:
    return (
        f"on {_count(f.model.n, 'row')} held out of training"
        if f.held_out
        else f"on {_count(f.model.n, 'row')} of {_short(f.data)}"
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _size(nats: float) -> str:
    return f"{nats:,.1f}" if nats >= 10 else f"{nats:.2f}"


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _joined(texts: list[str]) -> str:
    """
    >>> _joined(["a", "b", "c"])
    'a, b, and c'
    """
    if len(texts) < 3:
        return " and ".join(texts)
    return ", ".join(texts[:-1]) + f", and {texts[-1]}"


def _listed(names: list[str], more: int) -> str:
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
