"""Defines the WebSocket on which a person plays inside a world model.

The service sends lines of JSON: first one about the game, with the real screen from which it
starts, then one for each step. The client sends `{"action": 3}` when a key changes, `{"seen":
41}` when it has drawn a step, and `{"agent": "NAME"}` when an agent shall play, or `{"agent": ""}`
when the player plays again. The game waits for a client that is slower. The last line has `end`,
the reason for the end, or `error`.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from genray.rl.networks import QNetwork
from serve.errors import ApiError, BadRequest, Busy
from serve.games import DreamedGame, check_world
from serve.models import Predictor
from serve.pilots import check_pilot, pilots
from serve.routes.common import MAX_SEED, note_model
from serve.service import Service

AHEAD_S = 0.5
"""The game is at most this many seconds of steps ahead of what the client has drawn."""
LONGEST = 1000
"""Characters of a message from the client."""
SPEEDS = (1, 120)
"""Least and most steps a second."""
POLICY, BUSY = 1008, 1013
"""Codes with which a WebSocket is closed: a refusal, and "try again later"."""


def world_routes(service: Service) -> APIRouter:
    """Return the route on which games inside world models are played."""
    router = APIRouter(prefix="/api", tags=["genray"])

    @router.websocket("/worlds/{name}")
    async def play_inside(socket: WebSocket, name: str) -> None:
        # A refusal is sent as a line, because browsers do not show the status of a WebSocket.
        await socket.accept()
        code = 1000
        try:
            await _play(service, socket, name)
        except WebSocketDisconnect:
            return
        except ApiError as error:
            code = BUSY if isinstance(error, Busy) else POLICY
            await _send_last(socket, {"error": error.message, "code": error.code})
        await _close(socket, code)

    return router


async def _play(service: Service, socket: WebSocket, name: str) -> None:
    """Play one game until it ends, the client is idle or disconnects. Raises ApiError."""
    given, limits = socket.query_params, service.limits
    seed, start = _whole(given, "seed", 0, 0, MAX_SEED), _whole(given, "start", 0, 0, MAX_SEED)
    fps = _whole(given, "fps", 15, *SPEEDS)
    predictor = service.model(name)
    note_model(socket.scope["state"], predictor)
    check_world(predictor)
    with service.places.place():
        game = await asyncio.to_thread(
            service.dreams.begin, predictor, start, seed, limits.max_dream_steps
        )
        player = _Player(game, service)
        agents = pilots(predictor, service.models())
        await socket.send_text(await asyncio.to_thread(game.first, agents))
        listening = asyncio.create_task(player.listen(socket))
        playing = asyncio.create_task(_run(game, player, socket, fps, limits.dream_idle_s))
        try:
            await asyncio.wait((listening, playing), return_when=asyncio.FIRST_COMPLETED)
            # The listener ends only by an error: a bad message, or the client has gone.
            for task in (listening, playing):
                if task.done():
                    task.result()
        finally:
            for task in (listening, playing):
                task.cancel()
            await asyncio.gather(listening, playing, return_exceptions=True)


async def _run(
    game: DreamedGame, player: "_Player", socket: WebSocket, fps: int, idle_s: float
) -> None:
    """Send steps at the given rate until the game ends or nobody plays."""
    ahead, due = max(2, int(AHEAD_S * fps)), time.monotonic()
    while not game.ended:
        if time.monotonic() - player.touched > idle_s:
            game.ended = f"No key was pressed for {idle_s:g} s: the game was closed."
        elif game.step_number - player.seen >= ahead:
            await player.wait(1.0)
        else:
            await socket.send_text(await asyncio.to_thread(game.step, player.action, player.agent))
            # After a delay of up to one second the game catches up, after a longer one not.
            due = max(due + 1 / fps, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    await _send_last(socket, {"end": game.ended})


class _Player:
    """What a client last said."""

    def __init__(self, game: DreamedGame, service: Service):
        self._game, self._service, self._said = game, service, asyncio.Event()
        self.agent: Predictor | None = None
        """The agent that plays; None: the person."""
        self.action, self.seen, self.touched = 0, 0, time.monotonic()

    async def listen(self, socket: WebSocket) -> None:
        """Read messages. Raises WebSocketDisconnect, and BadRequest for a bad message."""
        while True:
            message = _message(await socket.receive())
            action, seen, agent = (message.get(name) for name in ("action", "seen", "agent"))
            if action is not None:
                most = self._game.num_actions - 1
                if type(action) is not int or not 0 <= action <= most:
                    raise BadRequest(f"action {str(action)[:40]}: must lie in 0..{most}")
                self.action, self.touched = action, time.monotonic()
            if seen is not None:
                if type(seen) is not int or not 0 <= seen <= self._game.step_number:
                    raise BadRequest(f"seen {str(seen)[:40]}: no such step was sent")
                self.seen = max(self.seen, seen)
            if agent is not None:
                self.agent = self._agent(agent) if agent else None
                self.touched = time.monotonic()
            self._said.set()

    def _agent(self, name: Any) -> Predictor:
        """Return an agent that can play the game. Raises BadRequest and NotFound."""
        found = self._service.model(str(name)[:LONGEST])
        if not isinstance(found.model, QNetwork):
            raise BadRequest(f"model {found.name!r} ({found.kind}) is no agent", param="agent")
        check_pilot(found, self._game.predictor)
        return found

    async def wait(self, seconds: float) -> None:
        """Wait for the next message, at most some seconds."""
        self._said.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._said.wait()


def _message(received: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's message. Raises WebSocketDisconnect and BadRequest."""
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code") or 1000)
    text = received.get("text") or ""
    try:
        message = json.loads(text) if len(text) <= LONGEST else None
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise BadRequest(
            'send one JSON object a message, e.g. {"action": 3} or {"seen": 41}, of at most '
            f"{LONGEST} characters"
        )
    return message


def _whole(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """Return a whole number of the query. Raises BadRequest."""
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise BadRequest(
            f"{name} {text[:40]!r}: must be a whole number of {least}..{most}", param=name
        )
    return int(text)


async def _send_last(socket: WebSocket, line: dict[str, str]) -> None:
    """Send the last line, unless the client has gone."""
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_text(json.dumps(line))


async def _close(socket: WebSocket, code: int) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):  # the client has gone
        await socket.close(code)
