// Evaluates the expressions that come as lines of JSON, and answers each with a line.
// node evaluate.mjs MODULE [ws]
import { createInterface } from "node:readline";

const [module, ws] = process.argv.slice(2);
Object.assign(globalThis, await import(module));
if (ws) globalThis.WebSocket = (await import("ws")).default;

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { value: await (0, eval)(`(async () => (${JSON.parse(line)}))()`) };
  } catch (error) {
    answer = { error: `${error.stack}` };
  }
  console.log(JSON.stringify(answer));
}
