from litestar import Litestar
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery

from lilya.websockets.litestar import WebSocket, websocket


async def name_of(socket: WebSocket, name: FromQuery[str] = "somebody") -> str:
    socket.state.name = name
    return name.title()


@websocket("/rooms/{number:int}", dependencies={"person": Provide(name_of)})
async def room(socket: WebSocket, number: FromPath[int], person: NamedDependency[str]) -> None:
    async with socket:
        await socket.send_json({"room": number, "name": person, "as given": socket.state.name})


app = Litestar([room])
