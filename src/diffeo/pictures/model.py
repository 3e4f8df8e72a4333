"""A model of pictures: a density of grey levels, and how it came about. Fit, score, sample, interpolate, save, load."""

import json
import math
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from diffeo import artefact
from diffeo.config import PictureConfig, first_fault
from diffeo.data.pictures import Pictures
from diffeo.errors import DataError, ModelError, shown, whole
from diffeo.outset import Clock
from diffeo.pictures.card import PictureCard
from diffeo.pictures.findings import PictureFindings
from diffeo.pictures.fitting import Fitted, fit_pictures
from diffeo.pictures.material import Material, Progress, Shots, one_hot, parted, read
from diffeo.pictures.plan import PicturePlan
from diffeo.pictures.recipes import build
from diffeo.pictures.showing import great_circle
from diffeo.processors import threads
from diffeo.quantized import Quantized, log_sum_exp
from diffeo.resume import go_on, keep, refuse, repeated, signals
from diffeo.training import Interrupted
from diffeo.version import __version__

__all__ = ["PictureModel"]

FINDINGS, HISTORY = "findings.json", "history.jsonl"
POINTS = 4  # draws of the bound that is quoted
RANKED = 2000  # training pictures that scores are ranked among
DRAWN = 64  # pictures drawn at a time
LAST = 0.08  # of the budget, for the last look at what was held out and the evidence
TOLD = ("version", "torch", "source", "parameters", "epochs", "steps", "skipped", "returns", "seconds")


class PictureModel:
    """A fitted density of pictures, uint8 [n, C, H, W]: folders, files and arrays of them.

    >>> from diffeo.config import PictureConfig
    >>> x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    >>> model = PictureModel.fit(x, config=PictureConfig(epochs=1, budget=None, hidden=8, layers=1))
    >>> model.bits_per_dim(x).shape, model.sample(5).shape
    ((40,), (5, 1, 8, 8))
    """

    def __init__(
        self, card: PictureCard, density: Quantized, findings: PictureFindings | None, folder: Path | None = None
    ) -> None:
        self.card, self.density, self.folder = card, density, folder
        self._findings = findings
        self.lenient = False  # whether files that cannot be read are left out, and told in `skipped`
        self._record: dict[str, Any] = {}

    @property
    def findings(self) -> PictureFindings:
        """What a report says. Raises ModelError where the file of a saved model is missing or damaged."""
        if self._findings is None:
            assert self.folder is not None
            self._findings = PictureFindings.from_json(artefact.read_text(self.folder, self._record, FINDINGS))
        return self._findings

    # Fitting ----------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        data: Any,
        *,
        config: PictureConfig | None = None,
        valid: Any = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        resume: bool = False,
        schedule: str | Path | None = None,
        progress: Progress | None = None,
    ) -> "PictureModel":
        """Fit a density to pictures: uint8 [n, H, W] or [n, C, H, W], a list of them, a folder, a file, or a name.

        `valid`: pictures to validate on, instead of held-out ones. `resume`: go on with the interrupted run in `out`.
        `schedule`: a model whose run by the clock is to be repeated. `progress` is called with records: messages, and
        one after every round; grids of samples from the same noise go into the folder `out`/samples. Raises DataError
        for data that cannot be modelled, ModelError for `out`, TrainingError where training diverges, Interrupted after
        Ctrl-C or SIGTERM, with the state saved.
        """
        config = config or PictureConfig()
        if not isinstance(config, PictureConfig):
            raise ModelError(f"config: expected a PictureConfig, got {shown(config)}; or pass its fields to diffeo.fit")
        report = progress or (lambda record: None)
        clock = Clock(time.monotonic(), config.budget)
        folder = None if out is None else artefact.open_folder(out, overwrite, resume)
        if resume:
            refuse(folder, schedule)
            if folder is not None and not (folder / artefact.RESUME).exists():
                report({"message": f"{folder} is finished already"})
                return cls.load(folder)
        with threads(config.threads), signals(folder is not None) as stopped:
            pictures = read(data, config, report)
            if pictures.size is not None:  # chosen for what it is: to be done again to all that is scored
                config = config.model_copy(update={"size": pictures.size, "crop": pictures.crop})
            held = None if valid is None else read(valid, config, report, pictures.event, pictures.grays)
            material, fingerprint, parts = parted(pictures, held, config)
            earlier = go_on(folder, config, fingerprint, PicturePlan) if resume and folder is not None else None
            repeat = None if schedule is None else repeated(Path(schedule), config, fingerprint, PicturePlan)
            shot = None if folder is None else Shots(folder, pictures.grays, fresh=earlier is None)
            try:
                fitted = fit_pictures(
                    material, config, lambda: _for_training(clock), report, stopped, shot, earlier, repeat
                )
            except Interrupted as end:
                if folder is not None and end.run is not None:
                    keep(folder, config, fingerprint, end.run)
                raise
            model = cls._of(pictures, parts, material, config, fitted, clock, fingerprint, report)
            if folder is not None:
                model.save(folder, overwrite=True)
                artefact.clear_resume(folder)
        return model

    @classmethod
    def _of(
        cls,
        pictures: Pictures,
        parts: tuple[Pictures, Pictures],
        material: Material,
        config: PictureConfig,
        fitted: Fitted,
        clock: Clock,
        fingerprint: str,
        report: Progress,
    ) -> "PictureModel":
        """Score what was held out, and write down everything that is to be remembered."""
        from diffeo.pictures.evidence import findings_of, shares_of

        report({"message": "scoring the pictures held out"})
        density, state = fitted.density, fitted.state
        ranked = _ranked(density, material, config.budget)
        if not np.isfinite(ranked).any():
            raise ModelError("the log-probabilities of training pictures are not finite; fit with a smaller rate")
        facts = {
            "source": pictures.source,
            "recipe": fitted.plan.recipe,
            "plan": fitted.plan.model_dump(mode="json"),
            "training": fitted.settings.model_dump(mode="json", exclude={"schedule"}),
            "parameters": sum(p.numel() for p in density.parameters()),
            "epochs": state.history[-1]["epoch"],
            "steps": state.step,
            "skipped": state.skipped,
            "returns": state.returns,
            "seconds": round(time.monotonic() - clock.began, 3),
            "seed": config.seed,
            "version": __version__,
            "torch": str(torch.__version__),
        }
        findings = findings_of(
            density, facts, *parts, state.history, points=POINTS, seed=config.seed, budget=config.budget
        )
        d = density.dimensions * math.log(2)
        card = PictureCard(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=fingerprint,
            rows=len(pictures.pixels),
            rows_train=len(material.train),
            rows_valid=len(material.valid),
            skipped_files=len(pictures.skipped),
            classes=tuple(pictures.classes) if material.classes else (),
            class_shares=shares_of(parts[0]) if material.classes else (),
            config=config,
            plan=fitted.plan,
            training=fitted.settings,
            points=POINTS,
            valid_bits=findings.bits,
            valid_bits_error=findings.standard_error,
            valid_log_prob=None if findings.bits is None else -findings.bits * d,
            valid_standard_error=None if findings.standard_error is None else findings.standard_error * d,
            percentiles=tuple(float(q) for q in np.quantile(ranked.clip(-1e30), np.linspace(0, 1, 1001))),
            schedule=tuple(state.schedule),
            **{name: facts[name] for name in TOLD},
        )
        return cls(card, density, findings)

    # Scoring ----------------------------------------------------------------------------------------------------

    def log_prob(self, data: Any, *, points: int | None = None) -> np.ndarray:
        """Log-probability in nats of each picture, a lower bound by so many draws (4 by default): float64 [n].

        Where the density is conditioned on labels, it is of picture given label if the data has labels, else averaged
        over classes by their share in training. Raises DataError where pictures are not of this model's shape.
        """
        return self._log_prob(self.read(data), points)

    def bits_per_dim(self, data: Any, *, points: int | None = None) -> np.ndarray:
        """The same in bits per dimension: float64 [n]."""
        return -self.log_prob(data, points=points) / (self.density.dimensions * math.log(2))

    def read(self, data: Any) -> Pictures:
        """Pictures of this model's shape, from wherever they are; cut and resized as for the fit. With their labels, if
        the density is conditioned on labels and knows theirs."""
        config, plan = self.card.config, self.card.plan
        if not self.lenient:
            config = config.model_copy(update={"skip_bad": False})
        silent = partial(read, data, report=lambda record: None, event=plan.event, grays=plan.grays)
        if config.label:
            with suppress(DataError):
                found = silent(config)
                if set(found.classes) <= set(self.card.classes):
                    return found
        return replace(silent(config.model_copy(update={"label": False})), labels=None, classes=())

    def _log_prob(self, pictures: Pictures, points: int | None = None) -> np.ndarray:
        x, points = torch.from_numpy(pictures.pixels), self.card.points if points is None else points
        classes = len(self.card.classes)
        with threads(self.card.config.threads), torch.no_grad():
            if not classes:
                found = self.density.log_prob(x, None, points)
            elif pictures.labels is not None:
                labels = pictures.labels_of(self.card.classes)
                found = self.density.log_prob(x, one_hot(labels, classes), points)
            else:
                shares = torch.tensor(self.card.class_shares).log()[:, None]
                found = log_sum_exp(self._by_class(x, points) + shares)
        if bool(found.isnan().any()):
            worst = int(found.isnan().nonzero()[0])
            raise ModelError(f"the log-probability of {pictures.name(worst)} is not a number; the model is damaged")
        return found.double().numpy()

    def _by_class(self, x: Tensor, points: int) -> Tensor:
        """log p(x | class) [classes, n]."""
        each = torch.eye(len(self.card.classes))
        return torch.stack([self.density.log_prob(x, row.expand(len(x), -1), points) for row in each])

    def class_probabilities(self, data: Any) -> np.ndarray:
        """p(class | picture) by Bayes' rule, classes as often as in training: float64 [n, classes]. Raises ModelError
        where the density is not conditioned on labels."""
        if not self.card.classes:
            raise ModelError("this density is not conditioned on labels; fit it with --label")
        x = torch.from_numpy(self.read(data).pixels)
        with threads(self.card.config.threads), torch.no_grad():
            joint = self._by_class(x, self.card.points) + torch.tensor(self.card.class_shares).log()[:, None]
            return joint.double().softmax(0).T.numpy()

    # Sampling ---------------------------------------------------------------------------------------------------

    def sample(
        self, n: int, *, label: str | int | None = None, seed: int | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """n new pictures uint8 [n, C, H, W]; of one class if the density is conditioned on labels and one is named,
        else of all classes as often as in training. The same seed gives the same pictures, at any temperature from the
        same noise."""
        if isinstance(n, bool) or not hasattr(n, "__index__") or n < 1:
            raise DataError(f"n: expected a number of pictures, 1 or more, got {n!r}")
        if seed is not None:
            whole("seed", seed, 0)
        if not (isinstance(temperature, int | float) and 0 <= temperature < math.inf):
            raise DataError(f"temperature: expected a number, 0 or more, got {temperature!r}")
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        z = self.density.flow.base.sample(n, generator=generator) * float(temperature)
        context = self._contexts(n, label, generator)
        return self.from_latent(z.numpy(), context=context)

    def _contexts(self, n: int, label: str | int | None, generator: torch.Generator) -> Tensor | None:
        classes = self.card.classes
        if not classes:
            if label is not None:
                raise ModelError("label: this density is not conditioned on labels; fit it with --label")
            return None
        if label is None:
            shares = torch.tensor(self.card.class_shares)
            place = torch.multinomial(shares, n, replacement=True, generator=generator)
        else:
            place = torch.full((n,), self._class(label))
        return torch.eye(len(classes))[place]

    def _class(self, label: str | int) -> int:
        classes = self.card.classes
        if str(label) in classes:
            return classes.index(str(label))
        raise ModelError(f"label: expected one of {', '.join(classes)}, got {shown(label)}")

    def to_latent(self, data: Any) -> np.ndarray:
        """The noise of the middles of pictures' cells, all levels of it: float32 [n, D]."""
        pictures = self.read(data)
        context = self._given(pictures)
        with threads(self.card.config.threads):
            return self.density.to_latent(torch.from_numpy(pictures.pixels), context).flatten(1).numpy()

    def _given(self, pictures: Pictures) -> Tensor | None:
        """What the density is conditioned on: labels, or the most probable class where there are none."""
        classes = len(self.card.classes)
        if not classes:
            return None
        if pictures.labels is not None:
            return one_hot(pictures.labels_of(self.card.classes), classes)
        with torch.no_grad():
            best = self._by_class(torch.from_numpy(pictures.pixels), 1).argmax(0)
        return torch.eye(classes)[best]

    def from_latent(self, z: np.ndarray, *, context: Tensor | None = None) -> np.ndarray:
        """Pictures uint8 [n, C, H, W] of noise [n, D]."""
        noise = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        latent = self.density.flow.base.event_shape
        if noise.ndim < 1 or noise[:1].numel() != math.prod(latent):
            raise DataError(f"z: expected noise [n, {math.prod(latent)}], got {list(noise.shape)}")
        noise = noise.reshape(len(noise), *latent)
        with threads(self.card.config.threads):
            pieces = [
                self.density.from_latent(noise[i : i + DRAWN], None if context is None else context[i : i + DRAWN])
                for i in range(0, len(noise), DRAWN)
            ]
        return torch.cat(pieces).numpy()

    def interpolate(self, a: Any, b: Any, steps: int = 9) -> np.ndarray:
        """Pictures between two, both included: uint8 [steps, C, H, W]; through the noise of all levels, along the great
        circle between them (as the noise of pictures lies near a sphere), its length from the one's to the other's."""
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
            raise DataError(f"steps: expected 2 or more, got {steps!r}")
        ends = [self.read(data) for data in (a, b)]
        for name, end in zip("ab", ends, strict=True):
            if len(end.pixels) != 1:
                raise DataError(
                    f"{name}: expected one picture, got {len(end.pixels)}; name one by its file, or its number"
                )
        contexts = [self._given(end) for end in ends]
        z = [self.density.to_latent(torch.from_numpy(e.pixels), c) for e, c in zip(ends, contexts, strict=True)]
        share = torch.linspace(0, 1, steps)
        road = great_circle(z[0].flatten(), z[1].flatten(), share)
        context = None
        if contexts[0] is not None and contexts[1] is not None:
            context = torch.lerp(contexts[0].expand(steps, -1), contexts[1].expand(steps, -1), share[:, None])
        found = self.from_latent(road.numpy(), context=context)
        found[0], found[-1] = ends[0].pixels[0], ends[1].pixels[0]
        return found

    # Saving -----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model into a folder: weights first, `model.json` last, so that no half-written model is ever
        seen. Raises ModelError where a model is there already, or where nothing can be written."""
        folder = artefact.open_folder(path, overwrite, resume=False)
        lines = [json.dumps(step) for step in self.findings.model_dump(mode="json")["history"]]
        beside = {HISTORY: "".join(f"{line}\n" for line in lines), FINDINGS: self.findings.to_json()}
        record = self.card.model_dump(mode="json")
        artefact.write_set(folder, artefact.MODEL, record, self.density.state_dict(), "weights", beside)
        self.folder = folder
        return folder

    @classmethod
    def load(cls, path: str | Path) -> "PictureModel":
        """The model in a folder, equal bit for bit to the one saved; nothing in it is run as code. Raises ModelError
        where it is missing, damaged, altered, foreign or newer than this diffeo, or not one of pictures."""
        folder = artefact.folder_of(path)
        record = artefact.read_json(folder)
        if record.get("kind") != "pictures":
            raise ModelError(f"{folder} holds a model of a table; load it by diffeo.load")
        tensors = artefact.read_tensors(folder, record, "weights")
        try:
            card = PictureCard.model_validate(artefact.fields_of(record))
        except ValidationError as fault:
            raise ModelError(f"{folder / artefact.MODEL} is damaged: {first_fault(fault)}") from None
        least, found = card.plan.steps * card.plan.width**2, sum(value.numel() for value in tensors.values())
        if least > found:  # of any recipe; nothing is allocated before
            raise ModelError(f"{folder}: the plan asks for {least:,} numbers or more, and {found:,} are there")
        with torch.random.fork_rng(devices=[]):
            density = build(card.plan)
        artefact.fill(density, tensors, str(folder))
        model = cls(card, density.eval(), None, folder)
        model._record = record
        return model

    # Telling ----------------------------------------------------------------------------------------------------

    def report(self, data: Any = None, *, folder: str | Path | None = None) -> Path:
        """Write report.html and report.json into the model's folder (or `folder`); the path of the page. With `data`
        the scores are of these pictures, else of those that the fit held out."""
        target = folder or self.folder
        if target is None:
            raise ModelError("folder: this model is not saved; save it, or pass the folder to write the report into")
        findings = self.findings
        if data is not None:
            from diffeo.pictures.evidence import of_other_pictures

            with threads(self.card.config.threads):
                findings = of_other_pictures(findings, self.density, self.read(data))
        from diffeo.pictures.page import write_report  # brings matplotlib

        return write_report(findings, target)

    def info(self) -> list[str]:
        """Lines that say what the model is."""
        card = self.card
        c, height, width = card.plan.event
        error = "" if card.valid_bits_error is None else f" (standard error {card.valid_bits_error:.4f})"
        score = "" if card.valid_bits is None else f"{card.valid_bits:.4f} bits per dimension of held-out pictures"
        classes = f"; given one of {len(card.classes)} classes" if card.classes else ""
        return [
            f"{card.recipe} fitted on {card.source}: {score}{error}",
            f"pictures of {width} x {height}, {c} channel{'s' * (c > 1)}, {card.plan.grays} grey levels{classes}",
            f"{card.rows} pictures: {card.rows_train} learned from, {card.rows_valid} held out",
            f"{card.parameters:,} parameters, {card.epochs:.4g} epochs in {card.seconds:.0f} s, "
            f"{card.skipped} steps skipped, seed {card.config.seed}; diffeo {card.version}, torch {card.torch}",
        ]

    def __repr__(self) -> str:
        return "\n".join(self.info())

    def _repr_html_(self) -> str:
        from html import escape

        shown = self.findings.sheet("samples")
        picture = "" if shown is None else f'<br><img alt="samples" src="data:image/png;base64,{shown.png}">'
        return f"<pre>{escape(repr(self))}</pre>{picture}"


@torch.no_grad()
def _ranked(density: Quantized, data: Material, budget: float | None) -> np.ndarray:
    """Log-probabilities of training pictures that scores are ranked among, as many as 1 % of the budget bears."""
    found, began = list[Tensor](), time.monotonic()
    for some in torch.from_numpy(np.random.default_rng(0).permutation(len(data.train))[:RANKED]).split(DRAWN):
        context = None if data.train_context is None else data.train_context[some]
        found.append(density.log_prob(data.train[some], context, POINTS).double())
        if budget is not None and time.monotonic() - began > 0.01 * budget:
            break
    return torch.cat(found).numpy()


def _for_training(clock: Clock) -> float | None:
    """The seconds that are left of the budget, less what comes after training."""
    left = clock.left()
    return None if left is None else max(0.5, left - LAST * (clock.budget or 0.0))
