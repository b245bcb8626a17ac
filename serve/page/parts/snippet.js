// Programs that do what the screen shows: curl, OpenAI's client, and plain Python.
import { html, useState } from "../vendor/htm-preact-standalone.module.js";
import { copyText } from "./picture.js";

/** The address of the service, without a slash at its end. */
const base = () => new URL(".", location.href).href.replace(/\/$/, "");
const quoted = (text) => `'${String(text).replace(/'/g, "'\\''")}'`;
/** A value in Python. Texts are left as they are: a name may contain the word "null". */
const python = (value) => {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(",")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const pairs = Object.entries(value).map(([name, each]) => `${python(name)}:${python(each)}`);
  return `{${pairs.join(",")}}`;
};

const authorised = (login) => (login ? ` \\\n  -H "Authorization: Bearer $GENRAY_API_KEY"` : "");
const headers = (login) =>
  login
    ? `headers = {"Authorization": f"Bearer {os.environ['GENRAY_API_KEY']}"}\n`
    : "headers = {}\n";
const imports = (login, ...names) =>
  [...names, ...(login ? ["os"] : []), "urllib.request"]
    .sort()
    .map((name) => `import ${name}`)
    .join("\n");

/** Programs for POST /v1/images/generations with a JSON body. */
export function generationSnippets(body, login) {
  const { model, n, size, ...extra } = body;
  const key = login ? `os.environ["GENRAY_API_KEY"]` : `"none"`;
  return {
    curl: `curl -s ${base()}/v1/images/generations${authorised(login)} \\
  -H "Content-Type: application/json" \\
  -d ${quoted(JSON.stringify(body))} \\
  | python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))' > picture.png`,
    OpenAI: `import base64${login ? ", os" : ""}
from openai import OpenAI

client = OpenAI(base_url="${base()}/v1", api_key=${key})
made = client.images.generate(
    model=${python(model)}, prompt="", n=${n}, size=${python(size)},
    extra_body=${python(extra)},
)
with open("picture.png", "wb") as file:
    file.write(base64.b64decode(made.data[0].b64_json))`,
    Python: `${imports(login, "base64", "json")}

body = ${python(body)}
headers = {"Content-Type": "application/json"${login ? `, "Authorization": f"Bearer {os.environ['GENRAY_API_KEY']}"` : ""}}
request = urllib.request.Request(
    "${base()}/v1/images/generations", json.dumps(body).encode(), headers
)
made = json.load(urllib.request.urlopen(request))
with open("picture.png", "wb") as file:
    file.write(base64.b64decode(made["data"][0]["b64_json"]))`,
  };
}

/** Programs for POST /v1/images/edits with pictures and fields; `masked`: also with a mask. */
export function editSnippets(fields, files, login, masked = false) {
  const { model, size, ...extra } = fields;
  const key = login ? `os.environ["GENRAY_API_KEY"]` : `"none"`;
  const opened = files.map((file) => `open(${python(file)}, "rb")`);
  // Not -F: curl would read a file for a value that begins with @ or <.
  const parts = [
    ...files.map((file) => `  -F image=@${quoted(file)}`),
    ...(masked ? ["  -F mask=@mask.png"] : []),
    ...Object.entries(fields).map(([name, value]) => `  --form-string ${name}=${quoted(value)}`),
  ];
  return {
    curl: `curl -s ${base()}/v1/images/edits${authorised(login)} \\
${parts.join(" \\\n")} \\
  | python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))' > result.png`,
    OpenAI: `import base64${login ? ", os" : ""}
from openai import OpenAI

client = OpenAI(base_url="${base()}/v1", api_key=${key})
made = client.images.edit(
    model=${python(model)}, prompt="", size=${python(size)},
    image=${files.length > 1 ? `[${opened.join(", ")}]` : opened[0]},${masked ? ` mask=open("mask.png", "rb"),` : ""}
    extra_body=${python(extra)},
)
with open("result.png", "wb") as file:
    file.write(base64.b64decode(made.data[0].b64_json))`,
    Python: `import base64${login ? ", os" : ""}
import requests

made = requests.post(
    "${base()}/v1/images/edits",
    files=[${files.map((file) => `("image", open(${python(file)}, "rb"))`).join(", ")}${masked ? `, ("mask", open("mask.png", "rb"))` : ""}],
    data=${python(fields)},${login ? `\n    headers={"Authorization": f"Bearer {os.environ['GENRAY_API_KEY']}"},` : ""}
).json()
with open("result.png", "wb") as file:
    file.write(base64.b64decode(made["data"][0]["b64_json"]))`,
  };
}

/** Programs for a route that takes a picture or a text as its body, or no body (`file` empty). */
export function routeSnippets(
  path,
  { file = "", type = "image/png", save = "", login = false } = {},
) {
  const url = `${base()}/${path}`,
    text = type === "text/plain";
  const body = !file
    ? ""
    : text
      ? ` \\\n  -H "Content-Type: text/plain" --data-raw ${quoted(file)}`
      : ` \\\n  --data-binary @${quoted(file)}`;
  const data = !file
    ? ""
    : text
      ? `, ${python(file)}.encode()`
      : `, open(${python(file)}, "rb").read()`;
  const read = save
    ? `with open("${save}", "wb") as file:\n    file.write(urllib.request.urlopen(request).read())`
    : `print(json.load(urllib.request.urlopen(request)))`;
  return {
    curl: `curl -s ${quoted(url)}${authorised(login)}${body}${save ? ` \\\n  --output ${save}` : ""}`,
    Python: `${imports(login, ...(save ? [] : ["json"]))}

${headers(login)}${text ? `headers["Content-Type"] = "text/plain"\n` : ""}request = urllib.request.Request(
    ${python(url)}${data}, headers=headers
)
${read}`,
  };
}

/** The programs, one shown at a time. */
export function Snippets({ programs }) {
  const names = Object.keys(programs);
  const [name, setName] = useState(names[0]);
  const [said, setSaid] = useState("");
  const shown = names.includes(name) ? name : names[0];
  const copy = () =>
    copyText(programs[shown]).then(
      () => setSaid("Copied."),
      (problem) => setSaid(problem.message),
    );
  return html`<section class="snippets" aria-labelledby="snippets-title">
    <h2 id="snippets-title">The same from a program</h2>
    <div class="switch" role="toolbar" aria-label="Language">
      ${names.map(
        (each) =>
          html`<button
            type="button"
            key=${each}
            aria-pressed=${each === shown ? "true" : "false"}
            onClick=${() => {
              setName(each);
              setSaid("");
            }}
          >
            ${each}
          </button>`,
      )}
      <button type="button" class="tool" onClick=${copy}>Copy program</button
      ><span role="status">${said}</span>
    </div>
    <pre tabindex="0" aria-label=${`Program for ${shown}`}><code>${programs[shown]}</code></pre>
  </section>`;
}
