// Python in a web worker: opens examples, replays their transcripts, and does what the reader's lines say.
// Everything comes from the folder of this file. The Python side is `ws_doctest._in_browser`.
import { loadPyodide } from "./pyodide/pyodide.mjs";

const folder = new URL(".", import.meta.url).href;
const packages = new Map(); // by name, a promise that it is unpacked
const examples = new Map(); // by their number on the page
let current; // the number of the one whose code may print something
const MOST = 100_000; // characters that are shown after one request; each item counts as 100 more
let left = MOST;

// The largest file is compressed on any host, also on one that compresses nothing.
const fetchPlain = self.fetch;
self.fetch = async (resource, options) => {
  const address = String(resource.url ?? resource);
  if (!address.endsWith(".wasm")) return fetchPlain(resource, options);
  const { body } = await get(`${address}.gz`);
  const headers = { "content-type": "application/wasm" };
  return new Response(body.pipeThrough(new DecompressionStream("gzip")), { headers });
};

async function get(address) {
  const response = await fetchPlain(address).catch((error) => {
    throw new Error(`${address} cannot be loaded (${error.message}). Are you offline?`);
  });
  if (!response.ok) throw new Error(`${address}: HTTP status ${response.status}`);
  return response;
}

function unpack(python, config, name) {
  const load = async () => {
    const content = await (await get(`${folder}packages/${name}`)).arrayBuffer();
    python.unpackArchive(content, "wheel", { extractDir: config.into });
  };
  if (!packages.has(name)) packages.set(name, load());
  return packages.get(name);
}

// Have the page show something. A loop that never ends must not fill it: then nobody could click on Stop.
function show(panel, size, message) {
  if (left < 0) return;
  left -= size + 100;
  if (left < 0) postMessage({ panel, type: "print", text: "… The rest of the output is not shown." });
  else postMessage({ panel, ...message() });
}

async function start() {
  new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)); // where a policy forbids it, this says so
  const print = { batched: (text) => show(current, text.length, () => ({ type: "print", text })) };
  const [python, config, archive] = await Promise.all([
    loadPyodide({ indexURL: `${folder}pyodide/`, env: { HOME: "/home/pyodide", PYTHONDONTWRITEBYTECODE: "1" } }),
    get(`${folder}config.json`).then((response) => response.json()),
    get(`${folder}examples.zip`).then((response) => response.arrayBuffer()),
  ]);
  python.setStdout(print);
  python.setStderr(print);
  python.unpackArchive(archive, "zip", { extractDir: "/project" });
  await Promise.all(config.base.map((name) => unpack(python, config, name)));
  const module = python.pyimport("ws_doctest._in_browser");
  module.log_without_threads();
  return { python, config, module };
}

const started = start();

const does = {
  async open({ panel, file }) {
    const { python, config, module } = await started;
    await Promise.all(config.examples[file].map((name) => unpack(python, config, name)));
    const tell = (kind, json) => {
      if (kind === "script" || kind === "verdict") postMessage({ panel, ...JSON.parse(json) });
      else show(panel, json.length, () => JSON.parse(json));
    };
    examples.set(panel, module.Example("/project", file, tell, config.disconnect));
    return examples.get(panel).opened();
  },
  async run({ panel, source }) {
    const example = examples.get(panel);
    await example.end();
    return example.run(source);
  },
  say({ panel, source, lines }) {
    return examples.get(panel).say(source, lines);
  },
};

onmessage = async ({ data }) => {
  current = data.panel;
  left = MOST;
  try {
    postMessage({ id: data.id, result: JSON.parse(await does[data.do](data)) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error.message ?? error) });
  }
};
