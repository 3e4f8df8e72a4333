"""A model: a schema and a density that belong together, and how they came about. Fit, score, sample, save, load."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import ValidationError

from diffeo import artefact
from diffeo.calibration import evidence, samples_for, thinned
from diffeo.card import Card
from diffeo.config import FitConfig, PictureConfig, first_fault
from diffeo.data.embedded import path_of
from diffeo.data.files import read
from diffeo.data.frames import Restore, restorer, to_table
from diffeo.data.pictures import are_pictures
from diffeo.data.schema import Schema
from diffeo.errors import DataError, ModelError, shown, whole
from diffeo.fitting import FAINTEST, PERCENTILE_ROWS, Clock, Fitted, check_device, fit_density
from diffeo.mixed import Mixed
from diffeo.prepare import Prepared, prepare
from diffeo.processors import threads
from diffeo.recipes import Plan, build, least_numbers
from diffeo.report.evidence import Extreme
from diffeo.report.findings import Findings, compare, score_of
from diffeo.report.verdict import verdict
from diffeo.resume import go_on, keep, refuse, repeated, signals
from diffeo.rows import Layout
from diffeo.seen import Seen, of_other_rows
from diffeo.training import Interrupted
from diffeo.version import __version__

if TYPE_CHECKING:
    from diffeo.pictures.model import PictureModel

__all__ = ["Model", "fit", "load"]

SAMPLE_ROWS = 10_000  # rows drawn at a time, and rows that a report draws
EXTREMES = 10  # rows named at either end
HISTORY, FINDINGS = "history.jsonl", "findings.json"
Progress = Callable[[dict[str, Any]], None]


class Model:
    """A fitted density of tables. Frames go in and come back as they were: polars, pandas, arrow, arrays.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(300, 2)) * [1, 100]
    >>> model = Model.fit(x, config=FitConfig(epochs=1, hidden=8))
    >>> model.log_prob(x).shape, model.sample(5).shape
    ((300,), (5, 2))
    """

    def __init__(self, card: Card, density: Mixed, findings: Findings | None, folder: Path | None = None) -> None:
        self.card, self.density, self.folder = card, density, folder
        self._findings = findings
        self._record: dict[str, Any] = {}
        self._restore: Restore | None = None

    @property
    def schema(self) -> Schema:
        """The columns and their kinds."""
        return self.card.data_schema

    @property
    def findings(self) -> Findings:
        """What a report says. Raises ModelError where the file of a saved model is missing or damaged."""
        if self._findings is None:
            assert self.folder is not None
            self._findings = Findings.from_json(artefact.read_text(self.folder, self._record, FINDINGS))
        return self._findings

    # Fitting ----------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        data: Any,
        *,
        config: FitConfig | None = None,
        valid: Any = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        resume: bool = False,
        schedule: str | Path | None = None,
        progress: Progress | None = None,
    ) -> "Model":
        """Fit a density to a frame, an array or the path of a file, and save it in the folder `out` if one is named.

        `valid`: rows to validate on, instead of held-out ones. `resume`: go on with the interrupted run in `out`.
        `schedule`: a model whose run by the clock is to be repeated. `progress` is called with records: messages, and
        one after every round. Raises DataError for data that cannot be modelled, ModelError for `out`,
        TrainingError where training diverges, Interrupted after Ctrl-C or SIGTERM, with the state saved.
        """
        config = config or FitConfig()
        if not isinstance(config, FitConfig):
            raise ModelError(f"config: expected a FitConfig, got {shown(config)}; or pass its fields to diffeo.fit")
        report = progress or (lambda record: None)
        clock = Clock(time.monotonic(), config.budget)
        check_device(config.device)
        folder = None if out is None else artefact.open_folder(out, overwrite, resume)
        if resume:
            refuse(folder, schedule)
            if folder is not None and not (folder / artefact.RESUME).exists():
                report({"message": f"{folder} is finished already"})
                return cls.load(folder)
        with threads(config.threads), signals(folder is not None) as stopped:
            prepared = prepare(_found(data), _found(valid), config, lambda text: report({"message": text}))
            earlier = go_on(folder, config, prepared.fingerprint, Plan) if resume and folder is not None else None
            repeat = None if schedule is None else repeated(Path(schedule), config, prepared.fingerprint, Plan)
            seen = Seen.of(prepared, config.budget)
            try:
                fitted = fit_density(prepared, config, clock, report, stopped, earlier, repeat)
            except Interrupted as end:
                if folder is not None and end.run is not None:
                    keep(folder, config, prepared.fingerprint, end.run)
                raise
            model = cls._of(prepared, config, fitted, clock, seen)
            if folder is not None:
                model.save(folder, overwrite=True)
                artefact.clear_resume(folder)
        return model

    @classmethod
    def _of(cls, data: Prepared, config: FitConfig, fitted: Fitted, clock: Clock, seen: "Seen") -> "Model":
        """Score what was held out, and write down everything that is to be remembered."""
        density, state = fitted.density, fitted.state
        each = density.score(data.valid).numpy()
        valid, weights = each.sum(1), data.valid_weights.numpy()
        some = np.random.default_rng(0).permutation(data.train.n)[:PERCENTILE_ROWS]
        ranked = density.score(data.train[torch.from_numpy(np.sort(some))]).sum(1).numpy()
        score = score_of(valid, weights)
        parts = np.average(each.clip(FAINTEST), axis=0, weights=weights)
        alike = thinned(weights, config.seed)
        shown = evidence(density, data.x_valid[alike], valid[alike], budget=config.budget, seed=config.seed)
        card = Card(
            version=__version__,
            torch=str(torch.__version__),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=data.source,
            frame=data.frame,
            fingerprint=data.fingerprint,
            rows=data.rows,
            rows_train=data.train.n,
            rows_valid=data.valid.n,
            rows_with_holes=data.rows_with_holes,
            holes=data.holes,
            config=config,
            plan=fitted.plan,
            training=fitted.settings,
            data_schema=data.schema,
            start=fitted.start,
            start_log_prob=state.history[0]["valid"],
            valid_log_prob=score.mean,
            valid_standard_error=score.standard_error,
            parts={name: float(part) for (name, _), part in zip(density.parts, parts, strict=True)},
            bounds=tuple(data.layout.rounded),
            percentiles=tuple(float(q) for q in np.quantile(ranked.clip(-1e30), np.linspace(0, 1, 1001))),
            parameters=sum(p.numel() for p in density.parameters()),
            epochs=state.history[-1]["epoch"],
            steps=state.step,
            skipped=state.skipped,
            returns=state.returns,
            seconds=round(time.monotonic() - clock.began, 3),
            schedule=tuple(state.schedule),
        )
        findings = seen.findings(card, valid, weights, state.history).model_copy(update={"evidence": shown})
        if data.schema.given_columns:  # a report has nothing to draw samples for
            findings = compare(findings, _beside(density, data.x_valid[alike]), data.schema)
        findings = findings.model_copy(update=_extremes(valid, data.valid_numbers))
        model = cls(card, density, findings.model_copy(update={"verdict": verdict(findings)}))
        model._restore = data.restore
        return model

    # Scoring ----------------------------------------------------------------------------------------------------

    def log_prob(self, data: Any) -> np.ndarray:
        """Log-density in nats of each row of a frame, an array or a file, in the units of the data: float64 [n].

        Discrete columns and rounding cells count with their log-probabilities. NaN where a cell is missing, -inf
        where a row is impossible. Raises DataError where the data does not fit the schema.
        """
        return self._log_prob(self.schema.encode(self._table(data)), 1)

    def _log_prob(self, x: np.ndarray, first_row: int) -> np.ndarray:
        """Of encoded rows x [n, D]: [n]."""
        found = np.full(len(x), np.nan)
        whole = ~np.isnan(x).any(1)
        with threads(None):
            found[whole] = self.density.log_prob(torch.from_numpy(x[whole])).numpy()
        if np.isnan(found[whole]).any():
            row = int(np.flatnonzero(whole)[np.isnan(found[whole])][0]) + first_row
            raise ModelError(f"the log-density of row {row} is not a number; the model is damaged, fit it again")
        return found

    def score_table(self, table: pa.Table, first_row: int = 1) -> pa.Table:
        """One line a row: log_prob; percentile, the share of training rows (in %) that are no more probable; and the
        reason where a row could not be scored. `first_row`: the number of the table's first row, for messages."""
        x = self.schema.encode(table, first_row=first_row)
        log_prob = self._log_prob(x, first_row)
        percentile = 100.0 * np.searchsorted(self.card.percentiles, log_prob, side="right") / 1001
        missing = np.isnan(log_prob)
        reasons: list[str | None] = [None] * len(x)
        for row in np.flatnonzero(missing):
            names = [c.name for c, hole in zip(self.schema.columns, np.isnan(x[row]), strict=True) if hole]
            reasons[row] = f"missing: {', '.join(names)}"
        return pa.table(
            {
                "log_prob": pa.array(log_prob, mask=missing),
                "percentile": pa.array(percentile, mask=missing),
                "reason": pa.array(reasons, pa.string()),
            }
        )

    # Sampling ---------------------------------------------------------------------------------------------------

    def sample(self, n: int, *, given: Any = None, seed: int | None = None) -> Any:
        """n new rows, in the kind of frame that the model was fitted to (arrow for files). With `given` columns in
        the model, one row for each of n rows of `given`, taken in turn, which stand beside what was drawn; the same
        seed gives the same rows."""
        tables = list(self.samples(n, given=None if given is None else self._table(given), seed=seed))
        return self._as_fitted(pa.concat_tables(tables))

    def samples(self, n: int, *, given: pa.Table | None = None, seed: int | None = None) -> Iterator[pa.Table]:
        """The same as arrow tables of at most 10,000 rows, one at a time."""
        for x in self._drawn(n, given, seed):
            yield self.schema.decode(x)

    def _drawn(self, n: int, given: pa.Table | None, seed: int | None) -> Iterator[np.ndarray]:
        """Encoded rows [at most 10,000, D], given columns as they were given."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise DataError(f"n: expected a number of rows, 1 or more, got {n!r}")
        if seed is not None:
            whole("seed", seed, 0)
        known = self._given_rows(given)
        row = [i for i, column in enumerate(self.schema.columns) if column.role == "row"]
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        with threads(None):
            for start in range(0, n, SAMPLE_ROWS):
                x = known[np.arange(start, min(start + SAMPLE_ROWS, n)) % len(known)]
                x[:, row] = self.density.sample_given(self.density.layout.rows(x), generator)
                yield x

    def _given_rows(self, given: pa.Table | None) -> np.ndarray:
        """Encoded rows [m, D] with the given columns filled, to be taken in turn; one, empty, where none are given."""
        places = [i for i, column in enumerate(self.schema.columns) if column.role == "given"]
        if given is None and places:
            names = ", ".join(self.schema.columns[i].name for i in places)
            raise DataError(f"given: this density is conditioned on {names}; pass rows of them as given=")
        if given is None:
            return np.zeros((1, len(self.schema.columns)))
        if not places:
            raise DataError("given: this density is not conditioned on any column; leave given= out")
        columns = [column.name for column in self.schema.given_columns if column.name in given.column_names]
        known = self.schema.encode(given.select(columns), given_only=True)
        if np.isnan(known).any():
            row, column = np.argwhere(np.isnan(known))[0]
            name = self.schema.given_columns[column].name
            raise DataError(f"given: row {row + 1} lacks {name!r}; fill it or drop the row")
        if not len(known):
            raise DataError("given: expected at least one row, got none")
        x = np.zeros((len(known), len(self.schema.columns)))
        x[:, places] = known
        return x

    def _as_fitted(self, table: pa.Table) -> Any:
        """A table in the kind of frame that the model was fitted to."""
        if self._restore is None:
            self._restore = restorer(self.card.frame)
        return self._restore(table)

    def _table(self, data: Any) -> pa.Table:
        """Rows of the columns of this model; files are read as the types that the columns have."""
        if isinstance(data, str | Path):
            return read(_found(data), types=self.schema.types)
        return to_table(data)[0]

    # Saving -----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model into a folder: weights first, `model.json` last, so that no half-written model is ever
        seen. Raises ModelError where a model is there already, or where nothing can be written."""
        folder = artefact.open_folder(path, overwrite, resume=False)
        lines = [json.dumps(step.model_dump(mode="json")) for step in self.findings.history]
        beside = {HISTORY: "".join(f"{line}\n" for line in lines), FINDINGS: self.findings.to_json()}
        record = self.card.model_dump(mode="json")
        artefact.write_set(folder, artefact.MODEL, record, self.density.state_dict(), "weights", beside)
        self.folder = folder
        return folder

    @classmethod
    def load(cls, path: str | Path) -> "Model":
        """The model in a folder, equal bit for bit to the one saved; nothing in it is run as code. Raises ModelError
        where it is missing, damaged, altered, foreign or newer than this diffeo."""
        folder = artefact.folder_of(path)
        record = artefact.read_json(folder)
        if record.get("kind") == "pictures":
            raise ModelError(f"{folder} holds a model of pictures; load it by diffeo.load")
        tensors = artefact.read_tensors(folder, record, "weights")
        try:
            card = Card.model_validate(artefact.fields_of(record))
        except ValidationError as fault:
            raise ModelError(f"{folder / artefact.MODEL} is damaged: {first_fault(fault)}") from None
        density = _rebuilt(card.plan, Layout(card.data_schema), tensors, folder)
        model = cls(card, density, None, folder)
        model._record = record
        return model

    # Telling ----------------------------------------------------------------------------------------------------

    def report(self, data: Any = None, *, folder: str | Path | None = None, rows: bool = False) -> Path:
        """Write report.html and report.json into the model's folder (or `folder`); the path of the page.

        With `data` the scores, the evidence and the pictures are of these rows, else of those that the fit held out
        and saw. `rows`: show the values of the most and the least likely rows of `data`, too.
        """
        if rows and data is None:
            raise DataError("rows: the model keeps no row of the data; name the data whose rows are to be shown")
        target = folder or self.folder
        if target is None:
            raise ModelError("folder: this model is not saved; save it, or pass the folder to write the report into")
        findings = self.findings if data is None else self._findings_of(data, rows)
        if not self.schema.given_columns:
            samples = np.concatenate(list(self._drawn(SAMPLE_ROWS, None, 0)))
            findings = compare(findings, samples, self.schema)
        from diffeo.report.page import write_report  # brings matplotlib

        return write_report(findings, target)

    def _findings_of(self, data: Any, values: bool) -> Findings:
        """The findings with scores, evidence and summaries of other rows."""
        table = self._table(data)
        x = self.schema.encode(table)
        whole = ~np.isnan(x).any(1)
        if whole.sum() < 2:
            raise DataError("the data has fewer than 2 rows without missing cells; a report needs them")
        x, numbers = x[whole], np.flatnonzero(whole) + 1
        with threads(None):
            log_prob = self.density.log_prob(torch.from_numpy(x)).numpy()
            name = Path(data).name if isinstance(data, str | Path) else "a frame"
            findings = of_other_rows(self.findings, self.schema, x, log_prob, name)
            found = evidence(self.density, x, log_prob, seed=self.card.config.seed)
            if self.schema.given_columns:
                findings = compare(findings, _beside(self.density, x), self.schema)
        update = {"evidence": found, "rows_with_holes": int((~whole).sum())}
        update |= _extremes(log_prob, numbers, table.select(self.schema.names) if values else None)
        findings = findings.model_copy(update=update)
        return findings.model_copy(update={"verdict": verdict(findings)})

    def info(self) -> list[str]:
        """Lines that say what the model is."""
        card = self.card
        score = "" if card.valid_log_prob is None else f"{card.valid_log_prob:.4f} nats a held-out row"
        error = "" if card.valid_standard_error is None else f" (standard error {card.valid_standard_error:.4f})"
        return [
            f"{card.recipe} fitted on {card.source}: {score}{error}",
            f"{card.rows} rows: {card.rows_train} learned from, {card.rows_valid} held out, "
            f"{card.rows_with_holes} with missing cells",
            f"started from {card.start} ({card.start_log_prob:.4f}); {card.parameters:,} parameters",
            f"{card.epochs:.4g} epochs in {card.seconds:.0f} s, seed {card.config.seed}; "
            f"diffeo {card.version}, torch {card.torch}",
            *self.schema.describe(),
        ]

    def __repr__(self) -> str:
        return "\n".join(self.info())

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"


def fit(data: Any, **options: Any) -> "Model | PictureModel":
    """Fit a density to a frame, an array or a file of a table, or to pictures: `Model.fit` with the fields of FitConfig
    as keywords, or `PictureModel.fit` with those of PictureConfig.

    Pictures are arrays of whole numbers with three dimensions or four, folders and files of pictures, and data sets of
    them known by name.

    >>> model = fit({"x": [i % 7 / 3 + i / 100 for i in range(200)]}, epochs=1, hidden=8)
    >>> model.card.rows
    200
    """
    own = ("valid", "out", "overwrite", "resume", "schedule", "progress")
    arguments = {name: options.pop(name) for name in own if name in options}
    if are_pictures(_found(data)):
        from diffeo.pictures.model import PictureModel

        picture_config = PictureConfig.read(**options)
        assert isinstance(picture_config, PictureConfig)
        return PictureModel.fit(data, config=picture_config, **arguments)
    config = FitConfig.read(**options)
    assert isinstance(config, FitConfig)
    return Model.fit(data, config=config, **arguments)


def load(path: str | Path) -> "Model | PictureModel":
    """The model in a folder, of a table or of pictures. Raises ModelError where it is missing, damaged, altered,
    foreign or newer than this diffeo."""
    folder = artefact.folder_of(path)
    if artefact.read_json(folder).get("kind") == "pictures":
        from diffeo.pictures.model import PictureModel

        return PictureModel.load(folder)
    return Model.load(folder)


def _beside(density: Mixed, x: np.ndarray) -> np.ndarray:
    """Encoded samples beside the given values of rows x [n, D], these taken in turn: as many as a report shows."""
    few = x[: SAMPLE_ROWS // 4]
    turns = max(1, SAMPLE_ROWS // 4 // len(few)) if len(few) else 0
    return samples_for(density, np.tile(few, (turns, 1)), torch.Generator().manual_seed(0))


def _extremes(log_prob: np.ndarray, numbers: np.ndarray, table: pa.Table | None = None) -> dict[str, Any]:
    """The most and the least likely of rows with log-densities [n], by their numbers [n] in the data, and with their
    values where the table that is numbered so is passed."""
    rising = np.argsort(log_prob, kind="stable")
    ends = {"most_likely": rising[::-1][:EXTREMES], "least_likely": rising[:EXTREMES]}
    return {name: tuple(_extreme(log_prob[i], int(numbers[i]), table) for i in rows) for name, rows in ends.items()}


def _extreme(log_prob: float, row: int, table: pa.Table | None) -> Extreme:
    values = None if table is None else {name: _shown(table[name][row - 1]) for name in table.column_names}
    return Extreme(row=row, log_prob=float(log_prob) if np.isfinite(log_prob) else None, values=values)


def _shown(cell: pa.Scalar) -> str:
    """A cell as a file of text shows it."""
    value = cell.as_py()
    if pa.types.is_float32(cell.type):
        value = np.float32(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _found(data: Any) -> Any:
    """A path, or the embedded data set of that name."""
    return path_of(str(data)) if isinstance(data, str | Path) else data


def _rebuilt(plan: Plan, layout: Layout, tensors: dict[str, torch.Tensor], folder: Path) -> Mixed:
    """The density of a plan filled with tensors; its size is checked before anything is allocated."""
    least, found = least_numbers(plan, layout), sum(value.numel() for value in tensors.values())
    if least > found:
        raise ModelError(
            f"{folder}: the plan asks for {least:,} numbers or more, and {found:,} are there; it is damaged"
        )
    density = build(plan, layout)
    artefact.fill(density, tensors, str(folder))
    density.set_slopes()
    return density.eval()
