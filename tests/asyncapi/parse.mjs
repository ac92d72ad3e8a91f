// Reads documents with the AsyncAPI project's own parser, and the examples in them with Ajv, a validator of JSON
// Schema: `node parse.mjs FILE…`. It prints what is wrong by file, as JSON; advice is left out.
import { readFile } from "node:fs/promises";
import { DiagnosticSeverity, Parser } from "@asyncapi/parser";
import { Ajv } from "ajv";

const parser = new Parser();
const found = {};
for (const file of process.argv.slice(2)) {
  const text = await readFile(file, "utf8");
  const { document, diagnostics } = await parser.parse(text);
  const problems = diagnostics
    .filter((each) => each.severity <= DiagnosticSeverity.Warning)
    .map((each) => `${each.code} at ${each.path.join("/")}: ${each.message}`);
  if (!document) problems.push("it is no document");
  if (document && file.endsWith(".json")) problems.push(...wrongExamples(JSON.parse(text)));
  if (problems.length) found[file] = problems;
}
console.log(JSON.stringify(found, null, 2));

function* wrongExamples(document) {
  const ajv = new Ajv({ strict: false, validateFormats: false });
  ajv.addSchema(document, "document");
  for (const [channel, { messages = {} }] of Object.entries(document.channels ?? {})) {
    for (const [name, { examples = [] }] of Object.entries(messages)) {
      const place = `document#/channels/${channel}/messages/${encodeURIComponent(name)}/payload`;
      for (const { payload } of examples) {
        if (!ajv.validate({ $ref: place }, payload)) yield `example of ${channel}/${name}: ${ajv.errorsText()}`;
      }
    }
  }
}
