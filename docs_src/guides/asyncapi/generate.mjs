import { readFile } from "node:fs/promises";
import { TypeScriptFileGenerator } from "@asyncapi/modelina";

const [document, folder] = process.argv.slice(2);
const generator = new TypeScriptFileGenerator({
  modelType: "interface",
  enumType: "union",
  rawPropertyNames: true,
  processorOptions: { interpreter: { ignoreAdditionalProperties: true } },
});
await generator.generateToFiles(JSON.parse(await readFile(document, "utf8")), folder, { exportType: "named" });
