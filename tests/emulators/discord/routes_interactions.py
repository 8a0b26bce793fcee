"""Calls about commands and interactions."""

from typing import Any

from tests.emulators.discord import commands, shapes
from tests.emulators.discord.errors import refusal
from tests.emulators.discord.interactions import Interaction
from tests.emulators.discord.rest import Ask, Route

JSON = dict[str, Any]


def routes() -> list[Route]:
    all_, hook = "/applications/{application}/commands", "/webhooks/{webhook}/{token}"
    return [
        Route("GET", all_, "commands", list_),
        Route("PUT", all_, "commands.put", put),
        Route("POST", all_, "commands.add", add),
        Route("DELETE", f"{all_}/{{command}}", "commands.delete", remove),
        Route("POST", "/interactions/{interaction}/{token}/callback", "interaction.callback", callback, open=True),
        Route("POST", hook, "interaction.followup", follow_up, open=True),
        Route("GET", f"{hook}/messages/{{reply}}", "interaction.get", get, open=True),
        Route("PATCH", f"{hook}/messages/{{reply}}", "interaction.edit", change, open=True),
        Route("DELETE", f"{hook}/messages/{{reply}}", "interaction.delete", delete, open=True),
    ]


def list_(ask: Ask) -> list[JSON]:
    _own(ask)
    return ask.world.commands


def put(ask: Ask) -> list[JSON]:
    _own(ask)
    return commands.register(ask.world, ask.body)


def add(ask: Ask) -> JSON:
    _own(ask)
    return commands.add(ask.world, ask.body)


def remove(ask: Ask) -> None:
    _own(ask)
    kept = [one for one in ask.world.commands if one["id"] != ask["command"]]
    if len(kept) == len(ask.world.commands):
        raise refusal(10063)
    ask.world.commands = kept


def callback(ask: Ask) -> JSON | None:
    interaction = ask.world.interactions.get(ask["token"])
    if interaction is None or interaction.id != ask["interaction"]:
        raise refusal(10062)
    interaction.answer(ask.body, ask.files)
    wanted = ask.query.get("with_response", "").lower() in ("1", "true")
    return interaction.callback() if wanted else None


def follow_up(ask: Ask) -> JSON:
    return shapes.message(ask.world, _of_token(ask).follow_up(ask.body, ask.files))


def get(ask: Ask) -> JSON:
    interaction = _of_token(ask)
    interaction.demand_token()
    return shapes.message(ask.world, interaction.message(ask["reply"]))


def change(ask: Ask) -> JSON:
    return shapes.message(ask.world, _of_token(ask).change(ask["reply"], ask.body, ask.files))


def delete(ask: Ask) -> None:
    _of_token(ask).delete(ask["reply"])


def _own(ask: Ask) -> None:
    if ask["application"] != ask.world.application.id:
        raise refusal(50001)


def _of_token(ask: Ask) -> Interaction:
    if ask["webhook"] != ask.world.application.id:
        raise refusal(10015)
    found = ask.world.interactions.get(ask["token"])
    if found is None:
        raise refusal(50027)
    return found
