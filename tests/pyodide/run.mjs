// Runs pytest in Pyodide, CPython for WebAssembly: node run.mjs REPOSITORY PACKAGES ARGUMENT…
// PACKAGES is a folder with what the tests import, installed as wheels without compiled code.
import { loadPyodide } from "pyodide";

const [repository, packages, ...args] = process.argv.slice(2);
const python = await loadPyodide({ env: { HOME: "/home/pyodide", PYTHONDONTWRITEBYTECODE: "1" } });
for (const [at, root] of [["/repository", repository], ["/packages", packages]]) {
  python.FS.mkdirTree(at);
  python.FS.mount(python.FS.filesystems.NODEFS, { root }, at);
}
python.globals.set("arguments", python.toPy(args));
process.exit(python.runPython(`
import os
import sys

os.chdir("/repository")
sys.path[:0] = ["/repository/packages/lilya-websockets/src", "/repository", "/packages"]

from tests.pyodide import plugin

plugin.main(list(arguments))
`));
