"""Calls that go wrong, as a test bids."""

from dataclasses import dataclass


@dataclass(slots=True)
class Fault:
    """`status` None: the connection is cut. `seconds`: it is only slow."""

    method: str
    route: str
    times: int
    after: bool
    status: int | None = None
    code: int = 0
    message: str = ""
    retry_after: float | None = None
    via: bool = True
    everywhere: bool = False
    seconds: float | None = None

    def meets(self, method: str, name: str, route: str, path: str) -> bool:
        """`route` is the call's name, or a part of its route or path."""
        return self.times > 0 and self.method in ("", method) and (self.route == name or self.route in route or self.route in path)


class Faults:
    def __init__(self) -> None:
        self._all: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._all.append(fault)

    def clear(self) -> None:
        self._all.clear()

    def take(self, method: str, name: str, route: str, path: str, *, after: bool) -> list[Fault]:
        """Those that meet the call: any delay, and the first failure."""
        met = [fault for fault in self._all if fault.after is after and fault.meets(method, name, route, path)]
        slow = [fault for fault in met if fault.seconds is not None]
        failing = [fault for fault in met if fault.seconds is None][:1]
        for fault in slow + failing:
            fault.times -= 1
        return slow + failing
