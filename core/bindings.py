"""Bindings: the places on chat platforms where a conversation is shown. It is begun at its home, and followed elsewhere.

Who changes what people see of a binding holds its conversation first (`conversations.hold`), and takes the binding's row last: so two who
do it at the same moment do it one after another, and neither waits for the other for ever. Two things are written without that,
with nothing of the conversation behind them: what only delivery knows, and that a place at rest was given away.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from core import conversations, messages, wording
from core.access import Principal, require
from core.errors import Conflict, NotConfirmed, NotFound, RateLimited
from core.events import ConversationChanged
from core.ids import new_id
from core.models import (
    FORMER,
    INTRO,
    NEW_THREAD,
    PLACE_TAKEN,
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
_MAX_LABEL, _MAX_URL = 80, 300
_MINUTE = timedelta(minutes=1)
_PER_MINUTE = 60
_KNOWN = 100
_NAMED = 5
_NOTICES = 10
"""In a row, in a minute."""
_TAKES_PART = "whoever writes there takes part from then on: all of it is theirs to read, also when it is unfollowed"

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

    In a channel it is followed in one thread of its own, which there may be. `check` is what the platform is to be asked first: with it a
    place without a thread is a channel of which nothing is known yet. Without it the person is there, and nothing is asked any more. Raises
    Conflict where the place shows another conversation, or nobody knows the person on that platform, and NotConfirmed for
    a private conversation that other people would read there.
    """
    conversation = await _held(uow, principal, conversation_id)
    if check is not BindingCheck.NONE and not place.thread:
        place, opened = replace(place, thread=f"{NEW_THREAD}{new_id()}"), False
    there = await leads_to(uow, conversation_id, place, kind)
    if there and there.conversation_id == conversation_id:
        there = await seen(uow, there, kind, label) if kind else there
        return await _change(uow, principal, conversation, there, mode, check=check, confirmed=confirmed, source=source)
    await _free(uow, principal, there, check)
    await _ask_first(uow, conversation, kind, mode, confirmed=confirmed)
    await _require_identity(uow, principal, place, check)
    await _within_pace(uow, principal, conversation_id)
    shown = await uow.bindings.of_conversation(conversation_id)
    for each in shown:
        if each.ended and each.check is not BindingCheck.NONE and each.bound_by == principal.user_id:  # it came to nothing, as they saw
            await _put_away(uow, each)
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
    await conversations.hold(uow, found.conversation_id)
    return await _unfollow(uow, principal.user_id, await _present(uow, found.id), source)


async def at(uow: UnitOfWork, place: Place) -> Binding | None:
    """What a place shows; also where nothing is delivered to it any more."""
    return await uow.bindings.at(place)


async def leads_to(uow: UnitOfWork, conversation_id: UUID, place: Place, kind: ChannelKind | None) -> Binding | None:
    """What whoever follows it at a place comes upon: what that shows, or did; for a thread that is still to be made, one there is already.

    That is one that shows this conversation in this channel, and of this kind: a private thread may lie in an open channel.
    """
    if not place.thread.startswith(NEW_THREAD):
        return await uow.bindings.at(place)
    shown = await uow.bindings.of_conversation(conversation_id)
    here = [each for each in shown if (each.place.account, each.channel, each.ended) == (place.account, place.channel, None)]
    near = [each for each in here if each.thread != place.thread and each.kind in (None, kind) and not _is_only_a_link(each)]
    return min(near, key=lambda each: not each.is_on, default=None)


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
    """Notes what a place is that was to be checked: it is shown its conversation from now on.

    Where the place turns out to show this conversation already, that binding gets the mode of this
    one, which is removed, and is given; where it shows another one, this one ends. Raises NotFound where nobody wants it there any more.
    """
    await conversations.hold(uow, binding.conversation_id)
    binding = await _present(uow, binding.id)
    if not binding.is_on:
        return binding
    there = await leads_to(uow, binding.conversation_id, Place(account=binding.place.account, channel=channel, thread=thread), kind)
    if there and there.id != binding.id:
        if there.conversation_id == binding.conversation_id:
            await _put_away(uow, binding)
            return await _show(uow, there, binding.mode, by=binding.bound_by, source=binding.surface)
        if there.is_on:
            await end(uow, binding, PLACE_TAKEN)
            return await _present(uow, binding.id)
        await _put_away(uow, there)
    about = {"channel": channel, "thread": thread, "opened": opened, **_about(kind, label, url)}
    return await _show(uow, binding, binding.mode, by=binding.bound_by, source=binding.surface, **about)


async def learned(uow: UnitOfWork, binding: Binding, *, kind: ChannelKind, label: str, url: str) -> Binding:
    """Notes what a place is by now where a conversation is shown already."""
    about = _about(kind, label, url)
    is_known = all(getattr(binding, name) == value for name, value in about.items())
    return binding if is_known else await _changed(uow, binding, **about)


async def seen(uow: UnitOfWork, binding: Binding, kind: ChannelKind, label: str = "") -> Binding:
    """Notes what kind of place it is by now, and its name, where that is known: where it is not open any more, that is nobody else's."""
    about = {"kind": kind, "label": _label(kind, label or binding.label)}
    if (binding.kind, binding.label) == (about["kind"], about["label"]):
        return binding
    await conversations.hold(uow, binding.conversation_id)
    return await _changed(uow, binding, **about)


async def end(uow: UnitOfWork, binding: Binding, reason: str) -> None:
    """Nothing is delivered to the place any more. `reason` is a stable code, such as `is_archived`."""
    await conversations.hold(uow, binding.conversation_id)
    present = await uow.bindings.get(binding.id)
    if present is None or present.ended or present.is_former:
        return
    present = await _changed(uow, present, ended=reason)
    if present.mode is not BindingMode.OFF and present.check is BindingCheck.NONE:  # else whoever wanted it sees it where they look
        await _tell(uow, present, "ended", by=None, source=present.surface)


async def revive(uow: UnitOfWork, binding: Binding) -> None:
    """Delivers to the place again, without what was said meanwhile and is answered: a year of it may be missing there.

    Not where it was never found fit to show the conversation.
    """
    if not binding.ended or binding.check is not BindingCheck.NONE:
        return
    await conversations.hold(uow, binding.conversation_id)
    present = await uow.bindings.get(binding.id)
    if present is None or not present.ended:
        return
    present = await _changed(uow, present, ended=None, cursor=await _before_what_is_new(uow, binding.conversation_id))
    if present.is_on:
        await _tell(uow, present, "back", by=None, source=present.surface)


async def keep_private(uow: UnitOfWork, conversation_id: UUID) -> None:
    """The place where the conversation is held became private, and so does the conversation: who follows it elsewhere was not asked."""
    conversation = await uow.conversations.find(conversation_id)
    if conversation is None or conversation.visibility is Visibility.PRIVATE:
        return
    await conversations.hold(uow, conversation_id)
    for binding in await uow.bindings.of_conversation(conversation_id):
        if binding.followed and binding.is_on:
            await _unfollow(uow, None, binding, binding.surface)
    await conversations.make_private(uow, conversation_id)


async def leave_direct(uow: UnitOfWork, user_id: UUID, account: Account | None = None) -> None:
    """Nothing more is shown in somebody's direct messages, on one account or all, without a word there: they may not be theirs any more."""
    for found in await uow.bindings.direct_of(user_id):
        if found.is_delivered_to and account in (None, found.place.account):
            await conversations.hold(uow, found.conversation_id)
            if (binding := await uow.bindings.get(found.id)) and binding.is_delivered_to:
                await _unfollow(uow, None, binding, binding.surface)
                await _changed(uow, binding, mode=BindingMode.OFF, until=None)


# --- helpers -------------------------------------------------------------------------------------------------------------


def _is_only_a_link(binding: Binding) -> bool:
    """To a thread of which nobody knows yet whether there is such a one."""
    return binding.kind is None and binding.opened and binding.check is not BindingCheck.NONE


async def _held(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> Conversation:
    """The conversation as it is now, held until the transaction ends."""
    await conversations.get(uow, principal, conversation_id)
    await conversations.hold(uow, conversation_id)
    return await conversations.get(uow, principal, conversation_id)


async def _present(uow: UnitOfWork, binding_id: UUID) -> Binding:
    """As it is now that its conversation is held: its place may have been given away meanwhile."""
    binding = await uow.bindings.get(binding_id)
    if binding is None or binding.is_former:
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
        raise Conflict(f"This place shows {what} already. Unfollow that first, with `/task unfollow` there or on its page.")
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
        cursor=await _before_what_is_new(uow, conversation.id),
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
    if binding.is_on and check is not BindingCheck.NONE:
        check = binding.check
    if binding.is_on and (binding.mode, binding.check) == (mode, check):
        return binding
    await _within_pace(uow, principal, conversation.id)
    if not binding.is_on or (mode is BindingMode.TWO_WAY and binding.mode is not mode):
        is_read = binding.is_on and binding.check is BindingCheck.NONE
        await _ask_first(uow, conversation, binding.kind, mode, is_read=is_read, confirmed=confirmed)
    if not binding.is_on:
        await _require_identity(uow, principal, binding.place, check)
    return await _show(uow, binding, mode, check=check, by=principal.user_id, source=source)


async def _show(
    uow: UnitOfWork,
    binding: Binding,
    mode: BindingMode,
    *,
    check: BindingCheck = BindingCheck.NONE,
    by: UUID | None,
    source: str,
    **about: Any,
) -> Binding:
    """What is said is shown there from now on, in a mode other than OFF; told once nothing is to be asked of the platform any more."""
    is_shown = binding.is_on and binding.check is BindingCheck.NONE
    if not is_shown and check is BindingCheck.NONE:
        notice: Notice = "back" if await _was_shown(uow, binding) else "followed"
    else:
        notice = "mode"
    changes = {"mode": mode, "check": check, **about}
    if not binding.is_on:
        cursor = await _before_what_is_new(uow, binding.conversation_id)
        changes |= {"bound_by": by, "ended": None, "until": None, "cursor": cursor}
    elif check is not binding.check:
        changes |= {"bound_by": by}
    changed = await _changed(uow, binding, **changes)
    if check is BindingCheck.NONE and not (is_shown and binding.mode is mode):
        await _tell(uow, changed, notice, by=by, source=source)
    return changed


async def _was_shown(uow: UnitOfWork, binding: Binding) -> bool:
    """Whether people were told there already what it is that is shown."""
    if not binding.followed or binding.check is BindingCheck.NONE:
        return True
    return bool(await uow.deliveries.of_binding(binding.id, [INTRO]))


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
        raise Conflict(wording.link_first(place.account.surface))


async def _ask_first(
    uow: UnitOfWork,
    conversation: Conversation,
    kind: ChannelKind | None,
    mode: BindingMode,
    *,
    is_read: bool = False,
    confirmed: bool,
) -> None:
    """`is_read`: at the place, already."""
    if confirmed or conversation.visibility is Visibility.SHARED or kind is ChannelKind.DIRECT:
        return
    if is_read:
        raise NotConfirmed(f"This conversation is private, and read there already. {_TAKES_PART[0].upper()}{_TAKES_PART[1:]}.")
    names = await uow.users.names(await conversations.readers(uow, conversation) or ())
    readers = wording.listed(sorted(names.values()), at_most=_NAMED)
    verb = "reads" if len(names) == 1 else "read"
    others = "Everybody in that channel or thread would read it, too"
    if mode is BindingMode.TWO_WAY:
        others += f", and {_TAKES_PART}"
    raise NotConfirmed(f"This conversation is private: only {readers} {verb} it. {others}.")


async def _within_pace(uow: UnitOfWork, principal: Principal, conversation_id: UUID) -> None:
    """Counts it as a message: each is told in the conversation, and may be asked of a platform. Notices must not bury what is said."""
    last = await uow.messages.page(conversation_id, limit=_NOTICES)
    if len(last) == _NOTICES and all("notice" in each.metadata for each in last) and last[0].created_at > uow.now - _MINUTE:
        raise RateLimited("This was followed and unfollowed too often in a minute. Try again in a minute.", retry_after=60.0)
    if await uow.inbox.nth_last(principal.user_id, _PER_MINUTE, since=uow.now - _MINUTE):
        raise RateLimited("Too much was said and followed in a minute. Try again in a minute.", retry_after=60.0)
    key = InboxKey(source="binding", scope=str(principal.user_id), event_id=str(new_id()))
    await uow.inbox.add(InboxEntry(key=key, body_sha256=""), user_id=principal.user_id, at=uow.now)


async def _before_what_is_new(uow: UnitOfWork, conversation_id: UUID) -> int:
    """The seq before the oldest message that waits for an answer, or the last one."""
    unfinished, conversation = await uow.turns.unfinished(conversation_id), await uow.conversations.find(conversation_id)
    if conversation is None:
        raise NotFound(f"There is no conversation {conversation_id}.")
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
            stopped = f"{name} stopped following this in {where}." if name else f"This is not shown in {where} any more."
            return stopped if read_only else f"{stopped} What is said there is not part of it any more."
        case "ended":
            return f"This is not shown in {where} any more. {wording.ended(binding.ended or '', binding.mode)}"
        case "back":
            return f"{name} follows this in {where} again{how}." if name else f"This is shown in {where} again{how}."


def _about(kind: ChannelKind, label: str, url: str) -> dict[str, Any]:
    return {"kind": kind, "label": _label(kind, label), "url": url if len(url) <= _MAX_URL else ""}


def _label(kind: ChannelKind | None, label: str) -> str:
    """Of an open place only."""
    return clip(clean(label), _MAX_LABEL) if kind is ChannelKind.OPEN else ""
