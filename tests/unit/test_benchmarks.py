"""What `make bench` makes of measurements: ratios, verdicts, the exit code, the page."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest

from tests.benchmarks import figures
from tests.benchmarks.figures import Comparison, Figure, NotMeasured, Reference, Result, Target, percentile95
from tests.benchmarks.run import MEASUREMENTS, run


def figure(value: float, *, target: Target | None = None) -> Figure:
    return Figure(name="turns", value=value, unit="ms", reference=Reference(name="commits", value=40), target=target)


def aim(comparison: Comparison, bound: float) -> Target:
    return Target(comparison=comparison, bound=bound)


@pytest.mark.parametrize(
    ("target", "met", "missed"),
    [
        (aim(Comparison.RATIO_AT_LEAST, 0.5), 20, 19),
        (aim(Comparison.RATIO_AT_MOST, 1.25), 50, 51),
        (aim(Comparison.VALUE_AT_MOST, 100), 100, 101),
        (aim(Comparison.EXCESS_AT_MOST, 20), 60, 61),
    ],
)
def test_a_target_is_met_up_to_its_bound_and_missed_beyond(target: Target, met: float, missed: float) -> None:
    assert figure(met, target=target).verdict == "met"
    assert figure(missed, target=target).verdict == "missed"


def test_a_figure_without_a_target_is_neither_met_nor_missed() -> None:
    assert figure(1_000).verdict == ""


def test_the_ratio_is_the_value_to_the_reference() -> None:
    assert figure(10).ratio == 0.25


def test_the_95th_percentile_is_exceeded_by_one_in_twenty() -> None:
    assert percentile95([float(each) for each in range(1, 101)]) == 95
    assert percentile95([7.0]) == 7


@pytest.mark.parametrize(("value", "code"), [(100, 0), (101, 1)])
def test_a_missed_target_is_the_exit_code(value: float, code: int) -> None:
    target = aim(Comparison.VALUE_AT_MOST, 100)
    assert run(["one"], lambda _: ("One.", [figure(value, target=target)]), None) == code


def test_what_could_not_be_measured_misses_nothing_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["one"], lambda _: ("One.", [NotMeasured(name="turns", reason="no server")]), None) == 0
    assert capsys.readouterr().out == "turns: not measured: no server\n"


def test_the_terminal_shows_value_reference_ratio_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    run(["one"], lambda _: ("One.", [figure(1234.5, target=aim(Comparison.EXCESS_AT_MOST, 20))]), None)
    assert capsys.readouterr().out == ("turns: 1,234 ms  (commits: 40 ms)  ratio 30.9  [above the reference by at most 20 ms: missed]\n")


def test_the_page_explains_each_measurement_and_lists_its_figures(tmp_path: Path) -> None:
    sections: dict[str, tuple[str, Sequence[Result]]] = {
        "one": ("Turns of a day.\n\nAll of them.\n", [figure(10, target=aim(Comparison.RATIO_AT_MOST, 1.5))]),
        "two": ("Deltas.\n\nNone of them.\n", [figure(48.25), NotMeasured(name="lag", reason="no server")]),
    }
    run(list(sections), sections.__getitem__, tmp_path / "page.md")
    head = "| Figure | Measured | Reference | Ratio | Target | |\n|---|---|---|---|---|---|\n"
    one = f"## Turns of a day\n\nAll of them.\n\n{head}| turns | 10 ms | commits: 40 ms | 0.25 | ratio at most 1.5 | met |\n"
    unmeasured = "| lag | not measured: no server | | | | |\n"
    two = f"## Deltas\n\nNone of them.\n\n{head}| turns | 48.2 ms | commits: 40 ms | 1.21 |  |  |\n{unmeasured}"
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks\n")
    assert "\nMeasured on: " in text
    assert text.endswith(f"{one}\n{two}")


def test_an_interrupted_run_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    def measure(name: str) -> tuple[str, Sequence[Result]]:
        if name == "two":
            raise KeyboardInterrupt
        return "One.", [figure(1)]

    page = tmp_path / "page.md"
    page.write_text("from the last run", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        run(["one", "two"], measure, page)
    assert page.read_text(encoding="utf-8") == "from the last run"


def test_every_measurement_is_run() -> None:
    folder = Path(figures.__file__).parent
    modules = {path.stem: import_module(f"tests.benchmarks.{path.stem}") for path in folder.glob("*.py") if path.stem != "__main__"}
    assert {name for name, module in modules.items() if hasattr(module, "FULL")} == set(MEASUREMENTS)
    assert all(module.__doc__ and module.QUICK != module.FULL for name, module in modules.items() if name in MEASUREMENTS)
