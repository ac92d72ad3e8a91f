import { useEffect, useRef, useState } from "react";

export function useRoom(client, name) {
  const [state, setState] = useState(client.state);
  const [messages, setMessages] = useState([]);
  const room = useRef(null);

  useEffect(() => client.on("state", ({ state }) => setState(state)), [client]);

  useEffect(() => {
    const joined = (room.current = client.join(name, { history: 20 }));
    joined.on("event", (event) => setMessages((all) => [...all, event]));
    return () => {
      joined.leave();
      setMessages([]);
    };
  }, [client, name]);

  return { state, messages, publish: (text) => room.current.publish(text) };
}

export function Room({ client, name }) {
  const { state, messages, publish } = useRoom(client, name);
  const [text, setText] = useState("");

  function send(event) {
    event.preventDefault();
    publish(text).catch((error) => alert(error.message));
    setText("");
  }

  return (
    <>
      <p>{state}</p>
      <ul>
        {messages.map(({ id, data }) => (
          <li key={id}>
            {data.from}: {data.text}
          </li>
        ))}
      </ul>
      <form onSubmit={send}>
        <input value={text} onChange={(event) => setText(event.target.value)} />
      </form>
    </>
  );
}
