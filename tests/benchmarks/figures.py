"""What a measurement gives: figures, each beside the reference that says what this machine can do at all."""

from dataclasses import dataclass
from enum import StrEnum


class Comparison(StrEnum):
    """What a target's bound is compared with."""

    RATIO_AT_LEAST = "ratio at least"
    RATIO_AT_MOST = "ratio at most"
    VALUE_AT_MOST = "at most"
    EXCESS_AT_MOST = "above the reference by at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    comparison: Comparison
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Something simpler, measured in the same run and in the figure's unit unless it names its own."""

    name: str
    value: float
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    name: str
    value: float
    unit: str
    reference: Reference
    target: Target | None = None

    @property
    def ratio(self) -> float:
        return self.value / self.reference.value

    @property
    def missed(self) -> bool:
        if self.target is None:
            return False
        bound = self.target.bound
        match self.target.comparison:
            case Comparison.RATIO_AT_LEAST:
                return self.ratio < bound
            case Comparison.RATIO_AT_MOST:
                return self.ratio > bound
            case Comparison.VALUE_AT_MOST:
                return self.value > bound
            case Comparison.EXCESS_AT_MOST:
                return self.value - self.reference.value > bound

    @property
    def verdict(self) -> str:
        return "" if self.target is None else "missed" if self.missed else "met"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMeasured:
    name: str
    reason: str


Result = Figure | NotMeasured


def percentile95(values: list[float]) -> float:
    """The value that 95 of 100 do not exceed."""
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def number(value: float) -> str:
    """Three digits that mean something: 0.612, 48.3, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line(result: Result) -> str:
    """A result as the terminal shows it."""
    match result:
        case NotMeasured():
            return f"{result.name}: not measured: {result.reason}"
        case Figure():
            beside = f"{result.reference.name}: {number(result.reference.value)} {result.reference.unit or result.unit}"
            aim = f"  [{target(result)}: {result.verdict}]" if result.target else ""
            return f"{result.name}: {number(result.value)} {result.unit}  ({beside})  ratio {number(result.ratio)}{aim}"


def target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    compared_with_ratio = figure.target.comparison in (Comparison.RATIO_AT_LEAST, Comparison.RATIO_AT_MOST)
    return f"{figure.target.comparison} {number(figure.target.bound)}" + ("" if compared_with_ratio else f" {figure.unit}")
