"""The routes, a module for each thing that they are about."""

from fastapi import APIRouter

from web import socket
from web.routes import (
    attachments,
    auth,
    chat,
    conversations,
    health,
    me,
    messages,
    models,
    projects,
    sign_in,
    tasks,
    tokens,
    turns,
    usage,
)

ROUTERS: tuple[APIRouter, ...] = (
    sign_in.router,
    auth.router,
    me.router,
    tokens.router,
    chat.router,
    turns.router,
    conversations.router,
    messages.router,
    attachments.router,
    tasks.router,
    projects.router,
    models.router,
    usage.router,
    health.router,
    socket.router,
)
