"""Bindings: the places on chat platforms where a conversation is shown. It is begun at its home, and followed elsewhere.

Who changes a binding holds its conversation's row, so that two people who do it at the same moment do it one after another.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from core import conversations, messages, wording
from core.access import Principal, require
from core.errors import Conflict, InvalidInput, NotConfirmed, NotFound, RateLimited
from core.events import ConversationChanged
from core.ids import new_id
from core.models import (
    FORMER,
    NEW_THREAD,
    Account,
    Binding,
    BindingCheck,
    BindingMode,
    ChannelKind,
    Conversation,
    InboxEntry,
    InboxKey,
    KnownPlace,
    Place,
    Visibility,
)
from core.ports import UnitOfWork
from core.text import clean, clip

MAX_PLACES = 20
"""Where a conversation is followed at a time."""
NOT_A_READER = "not_a_reader"
PLACE_TAKEN = "place_taken"
_MAX_LABEL, _MAX_URL = 80, 300
_MINUTE = timedelta(minutes=1)
_PER_MINUTE = 60
_KNOWN = 100
_NAMED = 5

Notice = Literal["followed", "mode", "unfollowed", "ended", "back"]
"""What a notice in the conversation tells of a binding, as its metadata has it under `notice`, beside `binding_id`."""


async def bind(
    uow: UnitOfWork,
    principal: Principal,
    conversation_id: UUID,
    place: Place,
    *,
    mode: BindingMode = BindingMode.TWO_WAY,
    opened: bool = True,
    kind: ChannelKind | None = None,
) -> Binding:
    """Makes a place a conversation's home: shows it there from now on, beginning with the oldest message that waits for an answer.

    Where the platform's thread is still to be made, `opened` is False and the place's thread a name of ours. It takes the place of what
    was shown there once. Raises Conflict where it shows a conversation.
    """
    conversation = await conversations.get(uow, principal, conversation_id)
    await _free(uow, principal, await uow.bindings.at(place), BindingCheck.NONE)
    return await _add(uow, principal, conversation, place, mode=mode, opened=opened, kind=kind)


async def follow(
    uow: UnitOfWork,
    principal: Principal,
    conversation_id: UUID,
    place: Place,
    *,
    mode: BindingMode,
    kind: ChannelKind | None,
    label: str = "",
    opened: bool = True,
    check: BindingCheck = BindingCheck.NONE,
    confirmed: bool = False,
    source: str,
) -> Binding:
    """Has a conversation shown at a place, too. Where it is shown there already, its mode is changed, or it is brought back.

    `check` is what the platform is to be asked first: with it a place without a thread is a channel of which nothing is known yet. Raises
    Conflict where the place shows another conversation, InvalidInput where nobody knows the person on that platform, and NotConfirmed for
    a private conversation that other people would read there.
    """
    conversation = await _held(uow, principal, conversation_id)
    if check is not BindingCheck.NONE and not place.thread:
        place, opened = replace(place, thread=f"{NEW_THREAD}{new_id()}"), False
    there = await uow.bindings.at(place)
    if there and there.conversation_id == conversation_id:
        there = await seen(uow, there, kind) if kind else there
        return await _change(uow, principal, conversation, there, mode, check=check, confirmed=confirmed, source=source)
    await _free(uow, principal, there, check)
    await _ask_first(uow, principal, conversation, kind, confirmed=confirmed)
    await _require_identity(uow, principal, place, check)
    await _within_pace(uow, principal)
    shown = await uow.bindings.of_conversation(conversation_id)
    if sum(each.followed and each.is_on for each in shown) >= MAX_PLACES:
        raise Conflict(f"This is followed in {MAX_PLACES} places already. Unfollow it in one of them first.")
    about = {"kind": kind, "label": _label(kind, label), "followed": True, "check": check}
    binding = await _add(uow, principal, conversation, place, mode=mode, opened=opened, **about)
    if check is BindingCheck.NONE:
        await _tell(uow, binding, "followed", by=principal.user_id, source=source)
    return binding


async def change_mode(
    uow: UnitOfWork,
    principal: Principal,
    binding_id: UUID,
    mode: BindingMode,
    *,
    check: BindingCheck = BindingCheck.PERSON,
    confirmed: bool = False,
    source: str,
) -> Binding:
    """Changes whether what is said goes in and out at a place, for any reader of the conversation. OFF ends it.

    What is off, or ended, is brought back by another mode; `check` says what the platform is asked before that. Raises as `follow` does.
    """
    found = await uow.bindings.get(binding_id)
    if found is None or found.is_former or await uow.conversations.get(found.conversation_id, principal) is None:
        raise NotFound(f"There is no binding {binding_id}.")
    conversation = await _held(uow, principal, found.conversation_id)
    binding = await _present(uow, binding_id)
    if mode is BindingMode.OFF:
        return await _unfollow(uow, principal.user_id, binding, source)
    return await _change(uow, principal, conversation, binding, mode, check=check, confirmed=confirmed, source=source)


async def unfollow_at(uow: UnitOfWork, principal: Principal, place: Place, *, source: str) -> Binding:
    """Ends what is shown at a place, for whoever was admitted there, whether they may see the conversation or not.

    Raises Conflict where nothing is shown.
    """
    found = await uow.bindings.at(place)
    if found is None or not found.is_on:
        raise Conflict("Nothing is followed here.")
    await uow.conversations.update(found.conversation_id)
    return await _unfollow(uow, principal.user_id, await _present(uow, found.id), source)


async def at(uow: UnitOfWork, place: Place) -> Binding | None:
    """What a place shows; also where nothing is delivered to it any more."""
    return await uow.bindings.at(place)


async def of_conversation(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> Sequence[Binding]:
    """The places where it is shown, the oldest first; ended ones and those that are off, too."""
    await conversations.get(uow, principal, conversation_id)
    return await uow.bindings.of_conversation(conversation_id)


async def known_places(uow: UnitOfWork, principal: Principal) -> Sequence[KnownPlace]:
    """Open channels that can be chosen by name: they show something that the person may read, on a platform where they are known."""
    require(principal, "chat")
    return await uow.bindings.known_places(principal, limit=_KNOWN)


# --- what the platform tells ---------------------------------------------------------------------------------------------


async def checked(
    uow: UnitOfWork, binding: Binding, *, channel: str, thread: str, opened: bool, kind: ChannelKind, label: str, url: str
) -> Binding:
    """Notes what a place is; a place that was to be checked is shown its conversation from now on.

    `label` is kept of an open place only. Where the place turns out to show something already, the binding ends.
    """
    about = {"kind": kind, "label": _label(kind, label), "url": url if len(url) <= _MAX_URL else ""}
    if binding.check is BindingCheck.NONE:
        is_known = all(getattr(binding, name) == value for name, value in about.items())
        return binding if is_known else await _changed(uow, binding, **about)
    await uow.conversations.update(binding.conversation_id)
    binding = await _present(uow, binding.id)
    there = await uow.bindings.at(Place(account=binding.place.account, channel=channel, thread=thread))
    if there and there.id != binding.id:
        if there.is_on:
            await end(uow, binding, PLACE_TAKEN)
            return await _present(uow, binding.id)
        await _put_away(uow, there)
    where = {"channel": channel, "thread": thread, "opened": opened}
    binding = await _changed(uow, binding, check=BindingCheck.NONE, **where, **about)
    if binding.is_on:
        await _tell(uow, binding, "followed", by=binding.bound_by, source=binding.surface)
    return binding


async def seen(uow: UnitOfWork, binding: Binding, kind: ChannelKind) -> Binding:
    """Notes what kind of place it is by now: where it is not open any more, its name is nobody else's."""
    return binding if binding.kind is kind else await _changed(uow, binding, kind=kind, label=_label(kind, binding.label))


async def end(uow: UnitOfWork, binding: Binding, reason: str) -> None:
    """Nothing is delivered to the place any more. `reason` is a stable code, such as `is_archived`."""
    await uow.conversations.update(binding.conversation_id)
    present = await uow.bindings.get(binding.id)
    if present is None or present.ended:
        return
    present = await _changed(uow, present, ended=reason)
    if present.mode is not BindingMode.OFF:
        await _tell(uow, present, "ended", by=None, source=present.surface)


async def revive(uow: UnitOfWork, binding: Binding) -> None:
    """Delivers to the place again, without what was said meanwhile and is answered: a year of it may be missing there.

    Not where it was never found fit to show the conversation.
    """
    if not binding.ended or binding.check is not BindingCheck.NONE:
        return
    await uow.conversations.update(binding.conversation_id)
    present, conversation = await uow.bindings.get(binding.id), await uow.conversations.find(binding.conversation_id)
    if present is None or conversation is None or not present.ended:
        return
    present = await _changed(uow, present, ended=None, cursor=await _before_what_is_new(uow, conversation))
    if present.is_on:
        await _tell(uow, present, "back", by=None, source=present.surface)


async def keep_private(uow: UnitOfWork, conversation_id: UUID) -> None:
    """The place where the conversation is held became private, and so does the conversation: who follows it elsewhere was not asked."""
    conversation = await uow.conversations.find(conversation_id)
    if conversation is None or conversation.visibility is Visibility.PRIVATE:
        return
    for binding in await uow.bindings.of_conversation(conversation_id):
        if binding.followed and binding.is_on:
            await _unfollow(uow, None, binding, binding.surface)
    await conversations.make_private(uow, conversation_id)


async def leave_direct(uow: UnitOfWork, user_id: UUID, account: Account | None = None) -> None:
    """Nothing more is shown in somebody's direct messages, on one account or all, without a word there: they may not be theirs any more."""
    for binding in await uow.bindings.direct_of(user_id):
        if binding.is_delivered_to and account in (None, binding.place.account):
            await _unfollow(uow, None, binding, binding.surface)
            await _changed(uow, binding, mode=BindingMode.OFF, until=None)


# --- helpers -------------------------------------------------------------------------------------------------------------


async def _held(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> Conversation:
    """The conversation as it is now, its row held until the transaction ends."""
    await conversations.get(uow, principal, conversation_id)
    await uow.conversations.update(conversation_id)
    return await conversations.get(uow, principal, conversation_id)


async def _present(uow: UnitOfWork, binding_id: UUID) -> Binding:
    binding = await uow.bindings.get(binding_id)
    if binding is None:
        raise NotFound(f"There is no binding {binding_id}.")
    return binding


async def _free(uow: UnitOfWork, principal: Principal, there: Binding | None, check: BindingCheck) -> None:
    """Makes room where something was shown once. Raises Conflict where it still is, or is about to be and nobody who is there minds.

    What is shown in a private place is named to nobody who may not be there.
    """
    if there is None:
        return
    is_there = check is BindingCheck.NONE or there.kind is ChannelKind.OPEN
    if there.is_on and (there.check is BindingCheck.NONE or check is not BindingCheck.NONE):
        shown = await uow.conversations.get(there.conversation_id, principal) if is_there else None
        what = shown.task_ref if shown and shown.task_ref else "another conversation"
        raise Conflict(f"This place shows {what} already. Unfollow that first.")
    await _put_away(uow, there)


async def _put_away(uow: UnitOfWork, binding: Binding) -> None:
    """Frees its place. What was said there can still be edited and deleted there, so the row stays where there was such a place."""
    if binding.opened or binding.check is BindingCheck.NONE:
        aside = {"thread": f"{FORMER}{binding.id}", "opened": True, "mode": BindingMode.OFF, "until": None, "status_shown": False}
        await uow.bindings.update(binding.id, **aside)
    else:
        await uow.bindings.remove(binding.id)
    uow.emit(ConversationChanged(conversation_id=binding.conversation_id))


async def _add(uow: UnitOfWork, principal: Principal, conversation: Conversation, place: Place, **fields: Any) -> Binding:
    binding = Binding(
        id=new_id(),
        conversation_id=conversation.id,
        surface=place.account.surface,
        account=place.account.id,
        channel=place.channel,
        thread=place.thread,
        cursor=await _before_what_is_new(uow, conversation),
        ended=None,
        status_shown=False,
        bound_by=principal.user_id,
        created_at=uow.now,
        updated_at=uow.now,
        **fields,
    )
    await uow.bindings.add(binding)
    uow.emit(ConversationChanged(conversation_id=conversation.id))
    return binding


async def _change(
    uow: UnitOfWork,
    principal: Principal,
    conversation: Conversation,
    binding: Binding,
    mode: BindingMode,
    *,
    check: BindingCheck,
    confirmed: bool,
    source: str,
) -> Binding:
    """To another mode than OFF."""
    if binding.is_on and binding.mode is mode:
        return binding
    await _within_pace(uow, principal)
    if not binding.is_on or mode is BindingMode.TWO_WAY:
        await _ask_first(uow, principal, conversation, binding.kind, confirmed=confirmed)
    if binding.is_on:
        binding = await _changed(uow, binding, mode=mode)
        if binding.check is BindingCheck.NONE:
            await _tell(uow, binding, "mode", by=principal.user_id, source=source)
        return binding
    await _require_identity(uow, principal, binding.place, check)
    cursor = await _before_what_is_new(uow, conversation)
    back = {"mode": mode, "check": check, "bound_by": principal.user_id, "ended": None, "until": None, "cursor": cursor}
    binding = await _changed(uow, binding, **back)
    if check is BindingCheck.NONE:
        await _tell(uow, binding, "back", by=principal.user_id, source=source)
    return binding


async def _unfollow(uow: UnitOfWork, by: UUID | None, binding: Binding, source: str) -> Binding:
    """The place is told, too. One where nothing may be shown is listed no more."""
    if binding.mode is BindingMode.OFF:
        return binding
    if binding.check is not BindingCheck.NONE:
        await _put_away(uow, binding)
        return replace(binding, mode=BindingMode.OFF)
    notice = await _tell(uow, binding, "unfollowed", by=by, source=source)
    return await _changed(uow, binding, mode=BindingMode.OFF, until=None if binding.ended else notice)


async def _changed(uow: UnitOfWork, binding: Binding, **changes: Any) -> Binding:
    await uow.bindings.update(binding.id, **changes)
    uow.emit(ConversationChanged(conversation_id=binding.conversation_id))
    return replace(binding, updated_at=uow.now, **changes)


async def _require_identity(uow: UnitOfWork, principal: Principal, place: Place, check: BindingCheck) -> None:
    if check is BindingCheck.PERSON and not await uow.identities.of_users(place.account, [principal.user_id]):
        raise InvalidInput(wording.link_first(place.account.surface))


async def _ask_first(
    uow: UnitOfWork, principal: Principal, conversation: Conversation, kind: ChannelKind | None, *, confirmed: bool
) -> None:
    if confirmed or conversation.visibility is Visibility.SHARED or kind is ChannelKind.DIRECT:
        return
    names = await uow.users.names(await conversations.readers(uow, conversation) or ())
    readers = wording.listed(sorted(names.values()), at_most=_NAMED)
    verb = "reads" if len(names) == 1 else "read"
    raise NotConfirmed(f"This conversation is private: only {readers} {verb} it. Everybody in that channel or thread would read it, too.")


async def _within_pace(uow: UnitOfWork, principal: Principal) -> None:
    """Counts it as a message: each is told in the conversation, and may be asked of a platform."""
    earlier = await uow.inbox.nth_last(principal.user_id, _PER_MINUTE)
    if earlier and earlier > uow.now - _MINUTE:
        raise RateLimited("Too much was followed and unfollowed. Try again in a minute.", retry_after=60.0)
    key = InboxKey(source="binding", scope=str(principal.user_id), event_id=str(new_id()))
    await uow.inbox.add(InboxEntry(key=key, body_sha256=""), user_id=principal.user_id, at=uow.now)


async def _before_what_is_new(uow: UnitOfWork, conversation: Conversation) -> int:
    """The seq before the oldest message that waits for an answer, or the last one."""
    unfinished = await uow.turns.unfinished(conversation.id)
    return (unfinished[0].seq if unfinished else conversation.next_seq) - 1


async def _tell(uow: UnitOfWork, binding: Binding, notice: Notice, *, by: UUID | None, source: str) -> int:
    """Says in the conversation what becomes of the place; gives the notice's seq."""
    name = (await uow.users.names([by])).get(by, "somebody") if by else ""
    where = wording.place({"surface": binding.surface, "kind": binding.kind, "label": binding.label})
    text = _sentence(notice, name, where, binding)
    about = {"notice": notice, "binding_id": str(binding.id)}
    return (await messages.notice(uow, binding.conversation_id, text, author=by, source=source, metadata=about)).seq


def _sentence(notice: Notice, name: str, where: str, binding: Binding) -> str:
    read_only = binding.mode is BindingMode.WATCH
    how = ", read-only" if read_only else ""
    match notice:
        case "followed":
            return f"{name} follows this in {where} from now on{how}."
        case "mode":
            return f"{name} made this read-only in {where}." if read_only else f"{name} opened this for answers from {where}."
        case "unfollowed":
            return f"{name} stopped following this in {where}." if name else f"This is not shown in {where} any more."
        case "ended":
            begun = f"is not shown in {where} any more" if binding.check is BindingCheck.NONE else f"could not be shown in {where}"
            return f"This {begun}. {wording.ended(binding.ended or '')}"
        case "back":
            return f"{name} follows this in {where} again{how}." if name else f"This is shown in {where} again{how}."


def _label(kind: ChannelKind | None, label: str) -> str:
    return clip(clean(label), _MAX_LABEL) if kind is ChannelKind.OPEN else ""
