"""The routes, a module for each thing that they are about."""

from fastapi import APIRouter

from web import page, socket
from web.routes import (
    accounts,
    admin,
    attachments,
    auth,
    bindings,
    chat,
    conversations,
    health,
    link,
    me,
    messages,
    models,
    projects,
    search,
    sign_in,
    tasks,
    tokens,
    turns,
    usage,
)

ROUTERS: tuple[APIRouter, ...] = (
    page.router,
    sign_in.router,
    link.router,
    auth.router,
    me.router,
    tokens.router,
    accounts.router,
    chat.router,
    turns.router,
    conversations.router,
    bindings.router,
    messages.router,
    search.router,
    attachments.router,
    tasks.router,
    projects.router,
    models.router,
    usage.router,
    admin.router,
    health.router,
    socket.router,
)
