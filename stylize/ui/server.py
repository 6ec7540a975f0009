"""Serves the page to this machine alone: loopback, a token in the address, nothing from or to elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import webbrowser
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import platformdirs

from stylize.errors import ToolError
from stylize.ui.studio import Studio

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # is read when Gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse

from stylize.ui.assets import CSS
from stylize.ui.page import HEAD, THEME, build_page

__all__ = ["make_app", "serve"]

HOST = "127.0.0.1"
COOKIE = "stylize-token"
LARGEST_UPLOAD = "20gb"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""Content security policy: the browser loads nothing from elsewhere, and no other page shows this one."""

Next = Callable[[Request], Awaitable[Response]]


def serve(path: Path | None, folder: Path, *, port: int = 0, browser: bool = True) -> None:
    """Show the page until Ctrl-C.

    Args:
        path: what is opened at once; None: nothing.
        folder: where results of uploads and ``stylize.toml`` go.
        port: 0: one that is free.
        browser: open the address.

    Raises StylizeError where `path` cannot be opened, the port is taken, or another page is served.
    """
    data = Path(platformdirs.user_data_dir("firewatch-stylizer", appauthor=False)) / "ui"
    token = secrets.token_urlsafe(24)
    with _bound(port) as sock, Studio(folder, data) as studio:
        if path is not None:
            studio.open(path)
        number = sock.getsockname()[1]
        address = f"http://{HOST}:{number}/?token={token}"
        app = make_app(studio, token, number)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="on"))
        click.echo(f"{address}\nuploads: {studio.uploads} (emptied at the end); Ctrl-C ends the page")
        if browser:
            webbrowser.open(address)
        logging.getLogger("httpx").setLevel(logging.WARNING)
        logging.getLogger("asyncio").addFilter(_tells)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again once it has shut down
            server.run(sockets=[sock])


def _tells(record: logging.LogRecord) -> bool:
    """Whether a message is for people: that a page still listened at the end is not."""
    return "closing of asynchronous generator" not in record.getMessage()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen()  # who comes before the page is ready waits
    except OSError as error:
        sock.close()
        raise ToolError(f"port {port} is taken ({error.strerror}): choose another --port") from error
    return sock


def make_app(studio: Studio, token: str, port: int) -> FastAPI:
    """The page as an application; every request needs the token, as a cookie or once in the address."""
    studio.uploads.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(studio.uploads / "gradio")
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next: Next) -> Response:
        hosts = {f"{name}:{port}" for name in (HOST, "localhost")}  # another name would be a rebinding of DNS
        if request.headers.get("host") not in hosts:
            return PlainTextResponse("this page is for this machine alone", 421)
        origin = request.headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in hosts}:
            return PlainTextResponse("this page takes nothing from other pages", 403)
        given = request.query_params.get("token", "")
        if request.url.path == "/" and given and secrets.compare_digest(given.encode(), token.encode()):
            response: Response = RedirectResponse("/", 303)
            response.set_cookie(f"{COOKIE}-{port}", token, httponly=True, samesite="strict")
            return response
        if not secrets.compare_digest(request.cookies.get(f"{COOKIE}-{port}", "").encode(), token.encode()):
            return PlainTextResponse("open the address that stylize ui has printed, with its token", 403)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.get("/result/{name}")
    def result(name: str) -> Response:
        job = studio.queue.find(name)
        if job is None or job.status not in ("done", "damaged") or not job.task.target.is_file():
            return PlainTextResponse("there is no such result", 404)
        return FileResponse(job.task.target, filename=job.task.target.name)

    mounted: FastAPI = gr.mount_gradio_app(
        app,
        build_page(studio),
        path="/",
        server_name=HOST,
        server_port=port,
        footer_links=[],
        show_error=False,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        theme=THEME,
        css=CSS,
        head=HEAD,
    )
    return mounted
