// The Run buttons of a page. The first click starts Python in a web worker, which all buttons share.
const folder = new URL(".", import.meta.url);
let python; // the worker, once there is one
let asked = 0; // how many requests
const waiting = new Map(); // requests without an answer
const panels = [];

function start() {
  python = new Worker(new URL("worker.js", folder), { type: "module", name: "Python" });
  python.onmessage = ({ data }) => {
    if (data.id === undefined) return panels[data.panel].show(data);
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error === undefined) resolve(data.result);
    else reject(new Error(data.error));
  };
  python.onerror = (event) => end(new Error(event.message || "The browser does not start the worker."));
}

function ask(what, values) {
  if (!python) start();
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    python.postMessage({ id: asked, do: what, ...values });
  });
}

// End Python, whatever it is doing. The next click starts it again.
function end(why) {
  python?.terminate();
  python = undefined;
  for (const panel of panels) panel.ended();
  for (const { reject } of waiting.values()) reject(why);
  waiting.clear();
}

class Stopped extends Error {}

// An element with attributes and children. Text is text: nothing is read as HTML.
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

class Panel {
  constructor(host) {
    this.host = host;
    this.file = host.dataset.example;
    this.panel = panels.push(this) - 1; // its number on the page
    this.isOpen = false; // whether Python has the example
    this.status = make("p", { class: "ws-run-status", role: "status" });
    this.button = this.makeButton("Run it here", () => this.run(), "ws-run-main");
    this.button.setAttribute("aria-describedby", (this.status.id = `ws-run-${this.panel}`));
    this.stopButton = this.makeButton("Stop", () => end(new Stopped()));
    this.stopButton.hidden = true;
    this.bar = make("div", { class: "ws-run-bar" }, this.button, this.stopButton);
    host.append(this.bar, this.status);
  }

  makeButton(text, onclick, kind = "") {
    return make("button", { type: "button", class: `ws-run-button ${kind}`.trim(), onclick }, text);
  }

  // The state is for the style and for tests; the text is for the reader.
  say(state, text) {
    this.host.dataset.state = state;
    this.status.textContent = text;
    this.stopButton.hidden = !python;
  }

  ended() {
    this.isOpen = false;
    if (this.host.dataset.state) this.say("stopped", "Stopped. Run starts Python again.");
  }

  // Do something that may fail, one after the other.
  async attempt(what) {
    if (this.isBusy) return;
    this.isBusy = true;
    try {
      await what();
    } catch (error) {
      if (error instanceof Stopped) return;
      end(new Stopped()); // what could not be loaded, or has ended, begins anew at the next click
      this.say("failed", error.message.trim().split("\n").at(-1));
      this.addProblem(this.results ?? this.host, error.message);
    } finally {
      this.isBusy = false;
      this.stopButton.hidden = !python;
    }
  }

  run() {
    return this.attempt(async () => {
      await this.open();
      this.results.replaceChildren();
      this.log.replaceChildren();
      this.say("running", "Running …");
      const { problems, lines } = await ask("run", { panel: this.panel, source: this.code.value });
      this.isOver = true; // whatever the reader had connected
      this.mark(problems);
      const sessions = this.results.querySelectorAll("ol").length;
      const what = `${sessions} ${sessions === 1 ? "session" : "sessions"}, ${lines} lines`;
      if (!problems.length) this.say("same", `${what}: all as on this page.`);
      else this.say("different", `${problems.length} of ${what}: not as on this page.`);
      this.suggest(0);
    });
  }

  async open() {
    if (this.isOpen) return;
    this.say("loading", python ? "Loading the example …" : "Loading Python, once for this page …");
    const opening = ask("open", { panel: this.panel, file: this.file });
    this.say("loading", this.status.textContent);
    const { source, said } = await opening;
    this.isOpen = true;
    this.suggestions = said;
    if (!this.code) this.build(source);
  }

  // What there is to see after the first click.
  build(source) {
    const id = this.status.id;
    this.source = source;
    this.button.textContent = "Run again";
    this.resetButton = this.makeButton("Reset the code", () => {
      this.code.value = this.source;
      this.number();
      this.code.focus();
    });
    this.code = make("textarea", {
      id: `${id}-code`, class: "ws-run-code", wrap: "off", spellcheck: "false", autocapitalize: "off",
      autocomplete: "off", oninput: () => this.number(),
    });
    this.code.value = source;
    this.numbers = make("pre", { class: "ws-run-numbers", "aria-hidden": "true" });
    this.number();
    this.editor = make("details", { class: "ws-run-editor" },
      make("summary", {}, "Edit the code"),
      make("label", { for: this.code.id }, `${this.file}: change it, then run it again`),
      make("div", { class: "ws-run-text" }, this.numbers, this.code),
      this.resetButton);
    this.results = make("div", { class: "ws-run-results" });
    this.input = make("textarea", {
      id: `${id}-lines`, class: "ws-run-lines", rows: "2", wrap: "off", spellcheck: "false",
      autocapitalize: "off", autocomplete: "off", "aria-describedby": `${id}-hint`,
      onkeydown: (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.send();
      },
    });
    this.log = make("ol", { class: "ws-run-steps", role: "log", "aria-label": "Your session" });
    const send = this.makeButton("Send", () => this.send());
    this.talk = make("div", { class: "ws-run-talk" },
      make("label", { for: this.input.id }, "Your own session: what does the client do next?"),
      make("div", { class: "ws-run-say" }, this.input, send),
      make("p", { id: `${id}-hint`, class: "ws-run-hint" },
        "Lines as in the session above, such as ", make("code", {}, "connect /"), ", ",
        make("code", {}, "text hello"), ", ", make("code", {}, 'json {"a": 1}'), " and ",
        make("code", {}, "close"), ". Enter sends, Shift+Enter begins another line."),
      this.log);
    this.host.append(this.results, this.editor, this.talk);
  }

  // The numbers of the lines. `wrong` is the one that a traceback names.
  number(wrong) {
    const lines = this.code.value.split("\n").length;
    this.code.rows = Math.min(lines + 1, 40);
    const shown = Array.from({ length: lines }, (_, index) => `${index + 1 === wrong ? "▸" : ""}${index + 1}`);
    this.numbers.textContent = shown.join("\n");
  }

  // Show the line of the code that failed.
  mark(problems) {
    const name = this.file.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
    const found = [...problems.join("\n").matchAll(new RegExp(`File "${name}", line (\\d+)`, "g"))].at(-1);
    this.number(found && Number(found[1]));
    if (found) this.editor.open = true;
  }

  // Something that Python shows.
  show({ type, ...data }) {
    if (type === "script") {
      this.results.append(make("p", { class: "ws-run-name" }, data.name));
      this.steps = make("ol", { class: "ws-run-steps", "aria-label": data.name });
      this.results.append(this.steps);
    } else if (type === "step") this.add(this.steps, data.lines, data.same);
    else if (type === "verdict" && data.problem) this.addProblem(this.results, data.problem);
    else if (type === "line") this.add(this.log, data.lines);
    else if (type === "problem") this.addProblem(this.log, data.text);
    else if (type === "print") this.add(this.host.dataset.state === "running" ? this.steps : this.log, [data.text], undefined, "ws-run-print");
  }

  add(list, lines, same, kind = "") {
    const item = make("li", { class: kind }, make("code", {}, lines.join("\n")));
    if (same !== undefined) {
      item.className = same ? "ws-run-same" : "ws-run-different";
      item.prepend(make("span", { class: "ws-run-mark", role: "img", "aria-label": same ? "as on the page" : "different" }, same ? "✓" : "✗"));
    }
    list.append(item);
    return item;
  }

  addProblem(place, text) {
    const shown = make("pre", { class: "ws-run-problem", tabindex: "0", "aria-label": "What went wrong" }, make("code", {}, text));
    place.append(place === this.log ? make("li", {}, shown) : shown);
  }

  // Put the next line of the transcript into the field, for the reader to send or to change.
  suggest(position) {
    this.position = position;
    this.input.value = this.suggestions[position] ?? "";
    this.input.rows = Math.max(2, this.input.value.split("\n").length);
  }

  send() {
    return this.attempt(async () => {
      const lines = this.input.value;
      if (!lines.trim()) return;
      await this.open(); // after a stop
      const { problem } = await ask("say", { panel: this.panel, source: this.code.value, lines });
      if (problem) {
        this.addProblem(this.log, problem);
        this.mark([problem]);
      } else this.suggest(this.position + 1);
      this.input.focus();
    });
  }
}

for (const host of document.querySelectorAll(".ws-run")) new Panel(host);
