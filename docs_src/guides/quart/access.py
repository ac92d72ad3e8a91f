from quart import Quart, Response, abort, g

from lilya.websockets.quart import init_app, websocket

app = Quart(__name__)
init_app(app)
TOKENS = {"s3cret": "ann", "guest": "guest"}


@app.before_websocket
async def signed_in() -> None:
    g.user = TOKENS.get(websocket.query_params.get("token", ""))
    if g.user is None:
        abort(Response("Sign in first.", 401))
    if g.user == "guest":
        abort(Response("Guests may only read.", 403))


@app.websocket("/edit")
async def edit() -> None:
    async with websocket:
        await websocket.send_text(f"Hello, {g.user}.")
