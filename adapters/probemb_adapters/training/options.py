"""Options of an experiment, and the part of them that its models keep: what they were made with.

Each experiment derives its settings and its options from those here, so that every field is declared once::

    @dataclass(frozen=True)
    class Settings(TrainingSettings):   # in the model's file, equal when a training continues
        width: float = 1.0

    @dataclass(frozen=True)
    class Options(Settings, RunOptions):   # of the command line: where to compute, what to do
        root: Path | None = None

    settings = Settings.of(options)
    assert Settings.read(settings.stored()) == settings
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from probemb_adapters.files import missing_extra

try:
    import tyro
except ImportError as error:
    raise missing_extra("options of experiments need tyro", "train", error) from error

AnySettings = TypeVar("AnySettings", bound="TrainingSettings")
AnyOptions = TypeVar("AnyOptions", bound="RunOptions")
Value = TypeVar("Value")


@dataclass(frozen=True)
class TrainingSettings:
    """How a model was trained; None is chosen for the data."""

    REQUIRED: ClassVar[tuple[str, ...]] = ()
    """without these no network can be built: every file must have them, while other fields came later"""

    MADE_BY: ClassVar[str] = "this library"
    """the command or script that trains such models, for messages"""

    epochs: int | None = None
    """passes over the training data"""
    batch_size: int | None = None
    """clouds a step, over all processes"""
    learning_rate: float | None = None
    """of Adam, highest"""
    schedule: Literal["halved", "one-cycle"] | None = None
    """learning rate: halved twice, or risen and let down to 0 along a cosine, better for short trainings"""
    halve_at: tuple[float, float] = (0.1, 0.3)
    """fractions of the training after which it is halved"""
    max_norm: float | None = None
    """gradients of a larger norm are scaled down to it"""
    seed: int = 0
    """of everything random"""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """of the network; losses and clustering are in float32 or better in any case"""

    @classmethod
    def of(cls: type[AnySettings], options: TrainingSettings) -> AnySettings:
        """Those among the options; a field that is no option has its default.

        >>> TrainingSettings.of(RunOptions(epochs=3, resume=True)) == TrainingSettings(epochs=3)
        True
        """
        return cls(**{f.name: getattr(options, f.name) for f in fields(cls) if hasattr(options, f.name)})

    def stored(self) -> dict[str, Any]:
        """As the file of a model keeps them, and as a training that continues compares them: numbers, text, tuples."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def read(cls: type[AnySettings], stored: Mapping[str, Any]) -> AnySettings:
        """The settings that a file keeps. Fields that older files lack have their defaults.

        Unknown ones are an error: a setting of a newer version may change what the network computes or how its
        embeddings are clustered, and numbers would be wrong without a word.

        Raises:
            ValueError: a field that is unknown, missing or no value of its type.

        >>> TrainingSettings.read({"epochs": 3, "halve_at": [0.2, 0.4]}).halve_at
        (0.2, 0.4)
        """
        hints = {f.name: get_type_hints(cls)[f.name] for f in fields(cls)}
        if unknown := sorted(stored.keys() - hints.keys()):
            raise ValueError(
                f"unknown settings {', '.join(unknown)}: of another kind of model, or of a newer version of this "
                "library: update it to read the file"
            )
        if missing := [name for name in cls.REQUIRED if name not in stored]:
            raise ValueError(f"expected the settings {', '.join(cls.REQUIRED)}, got none of {', '.join(missing)}")
        return cls(**{name: _value(name, value, hints[name]) for name, value in stored.items()})


@dataclass(frozen=True)
class RunOptions(TrainingSettings):
    """Options of every experiment; None is chosen for the data."""

    # --- machine
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""
    devices: int = 1
    """processes, each with its own GPU or share of the CPU; torchrun decides this itself"""
    workers: int | None = None
    """processes that read the data, for each process; by default 4 for --root, else one in rooms and none of shapes"""
    # --- what to do
    output: Path = Path("runs")
    """folder for checkpoints, metrics, pictures and the report"""
    resume: bool = False
    """go on from the last checkpoint in the output folder; to the numbers of an uninterrupted training"""
    finish: bool = False
    """with --resume, train no further: evaluate and write the model as the last checkpoint has it"""
    save_every: int = 1
    """epochs between checkpoints"""
    evaluate: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="CHECKPOINT ...")] = ()
    """no training: evaluate these models, in one table"""
    predict: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILES ...")] = ()
    """no training: segment clouds, files or folders of them, with the model of --evaluate; needs no labels"""
    report_shapes: int = 30
    """most clouds to show in the report"""

    def __post_init__(self) -> None:
        if self.finish and not self.resume:
            raise ValueError("--finish makes a model of the last checkpoint of a training: give --resume with it")


def with_defaults(options: AnyOptions, defaults: Mapping[str, Any]) -> AnyOptions:
    """The options with what is None taken from ``defaults``.

    >>> with_defaults(RunOptions(epochs=3), {"epochs": 20, "batch_size": 4}).epochs
    3
    """
    return replace(options, **{name: value for name, value in defaults.items() if getattr(options, name) is None})


def chosen(value: Value | None) -> Value:
    """A setting that :func:`with_defaults` has filled in; for code that runs after it."""
    if value is None:
        raise ValueError("expected options whose defaults were chosen, got None: call resolve first")
    return value


def _value(name: str, value: Any, hint: Any) -> Any:
    """What a file keeps as a value of a field's type."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for option in options:
        if option is NoneType and value is None:
            return value
        if get_origin(option) is Literal and value in get_args(option):
            return value
        if get_origin(option) is tuple and isinstance(value, list | tuple) and get_args(option)[1:] == (...,):
            return tuple(_value(name, item, get_args(option)[0]) for item in value)
        if get_origin(option) is tuple and isinstance(value, list | tuple) and len(value) == len(get_args(option)):
            return tuple(_value(name, item, part) for item, part in zip(value, get_args(option), strict=True))
        if option is Path and isinstance(value, str):
            return Path(value)
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if option in (bool, int, str) and type(value) is option:
            return value
    kinds = " or ".join(str(o).removeprefix("typing.") if get_origin(o) else o.__name__ for o in options)
    raise ValueError(f"{name}: expected {kinds}, got {value!r}")
