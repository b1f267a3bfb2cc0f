"use strict";
// The playground: the fields write the JSON, and the JSON writes the same call for other programs.
const form = document.querySelector("[data-playground]");
const LITERALS = { true: "True", false: "False", null: "None" };
const WRITERS = {
  json: (text) => text,
  shell: (text) => text.replaceAll("'", "'\\''"),
  // Words of JSON outside its texts, which a text is matched before.
  python: (text) => text.replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g, (part) => LITERALS[part] ?? part),
};
function readField(field) {
  if (field.dataset.kind === "switch") return field.checked;
  if (field.value === "") return undefined;
  if (field.dataset.kind === "number") return Number(field.value);
  if (field.dataset.kind !== "json" && field.dataset.kind !== "choice") return field.value;
  try { const value = JSON.parse(field.value); return field.dataset.kind === "json" || typeof value !== "object" ? value : field.value; }
  catch { return field.value; }
}
function writeCalls() {
  let text = form.elements.json.value;
  try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { return; }
  for (const body of document.querySelectorAll("[data-body]")) body.textContent = WRITERS[body.dataset.body](text);
}
if (form) {
  form.addEventListener("input", (event) => {
    if (event.target.name.startsWith("in.")) {
      const fields = [...form.querySelectorAll("[data-kind]")].map((field) => [field.name.slice(3), readField(field)]);
      form.elements.json.value = JSON.stringify(Object.fromEntries(fields), null, 2);
    }
    writeCalls();
  });
  form.addEventListener("submit", () => document.body.classList.add("busy"));
}

// Parts of an answer as they arrive: the events of a stream, or the messages of a realtime session.
const MOST_PARTS = 500;
const realtime = form?.dataset.kind === "realtime";
const parts = document.querySelector("[data-parts]");
const standing = document.querySelector("[data-standing]");
const [sender, closer] = ["[data-send]", "[data-close]"].map((name) => document.querySelector(name));
const PICTURES = { "\x89PNG": "png", "GIF8": "gif", "\xff\xd8\xff": "jpeg", "RIFF": "webp" };
let socket = null;
function say(words, bad = false) {
  standing.hidden = false;
  standing.textContent = words;
  standing.classList.toggle("problem", bad);
}
function addPart(value) {
  document.querySelector("#answer .empty")?.remove();
  parts.hidden = false;
  const item = document.createElement("li");
  for (const address of picturesOf(value)) {
    const picture = document.createElement("img");
    picture.className = "media";
    picture.src = address;
    picture.alt = "An image that the app answered";
    item.append(picture);
  }
  const text = document.createElement("pre");
  text.tabIndex = 0;
  text.textContent = typeof value === "string" ? value : JSON.stringify(value, (_, each) => (each instanceof Uint8Array ? `${each.length} bytes` : each), 2);
  item.append(text);
  parts.prepend(item);
  if (parts.childElementCount > MOST_PARTS) parts.lastElementChild.remove();
}
function picturesOf(value) {
  if (value instanceof Uint8Array) {
    const text = String.fromCharCode(...value.subarray(0, 4));
    const kind = Object.entries(PICTURES).find(([start]) => text.startsWith(start))?.[1];
    if (!kind) return [];
    let whole = "";
    for (let at = 0; at < value.length; at += 8192) whole += String.fromCharCode(...value.subarray(at, at + 8192));
    return [`data:image/${kind};base64,${btoa(whole)}`];
  }
  if (typeof value === "string") return /^(data:image\/|https?:\/\/[^?#]+\.(png|jpe?g|gif|webp|avif)([?#]|$))/i.test(value) ? [value] : [];
  return value && typeof value === "object" ? Object.values(value).flatMap(picturesOf) : [];
}

// MessagePack, in which realtime endpoints answer.
function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const number = (name, size) => { const value = view[name](at); at += size; return typeof value === "bigint" ? Number(value) : value; };
  const take = (size) => { at += size; return bytes.subarray(at - size, at); };
  const text = (size) => new TextDecoder().decode(take(size));
  const list = (size) => Array.from({ length: size }, read);
  const map = (size) => Object.fromEntries(Array.from({ length: size }, () => [read(), read()]));
  const length = (kind) => number(...[["getUint8", 1], ["getUint16", 2], ["getUint32", 4]][kind]);
  const NUMBERS = { 0xca: ["getFloat32", 4], 0xcb: ["getFloat64", 8], 0xcc: ["getUint8", 1], 0xcd: ["getUint16", 2], 0xce: ["getUint32", 4], 0xcf: ["getBigUint64", 8], 0xd0: ["getInt8", 1], 0xd1: ["getInt16", 2], 0xd2: ["getInt32", 4], 0xd3: ["getBigInt64", 8] };
  function read() {
    const kind = number("getUint8", 1);
    if (kind < 0x80) return kind;
    if (kind < 0x90) return map(kind & 15);
    if (kind < 0xa0) return list(kind & 15);
    if (kind < 0xc0) return text(kind & 31);
    if (kind >= 0xe0) return kind - 256;
    if (kind in NUMBERS) return number(...NUMBERS[kind]);
    if (kind >= 0xc4 && kind <= 0xc6) return take(length(kind - 0xc4)).slice();
    if (kind >= 0xd9 && kind <= 0xdb) return text(length(kind - 0xd9));
    if (kind === 0xdc || kind === 0xdd) return list(length(kind - 0xdb));
    if (kind === 0xde || kind === 0xdf) return map(length(kind - 0xdd));
    if (kind === 0xc2 || kind === 0xc3) return kind === 0xc3;
    if (kind === 0xc0) return null;
    throw new TypeError("a message has a kind of value that this page does not know");
  }
  return read();
}

async function connect() {
  const answer = await fetch(form.dataset.token, { method: "POST", headers: { "x-fal-page": document.body.dataset.page } });
  if (!answer.ok) throw new Error(`the controller refused a token (${answer.status}): load the page again`);
  const address = location.origin.replace(/^http/, "ws") + form.dataset.socket + "?fal_jwt_token=" + encodeURIComponent(await answer.text());
  const made = new WebSocket(address);
  made.binaryType = "arraybuffer";
  await new Promise((done, fail) => {
    made.onopen = done;
    made.onerror = () => fail(new Error("the app does not take the connection: its page says why"));
  });
  return made;
}
// A stream of events is cut at its empty lines; any other body is one text that grows.
function streamed() {
  let rest = "", events = false;
  const decoder = new TextDecoder();
  return (message) => {
    if (typeof message === "string") {
      const { type, status, headers } = JSON.parse(message);
      events = type === "start" ? (headers["content-type"] ?? "").startsWith("text/event-stream") : events;
      if (type === "start") { say(`${status}, at work`, status >= 400); return; }
      if (rest.trim()) addPart(valueOf(rest));
      say(`${status}, ${parts.childElementCount} ${parts.childElementCount === 1 ? "part" : "parts"}, the newest first`, status >= 400);
      socket.close();
      return;
    }
    rest += decoder.decode(message, { stream: true });
    if (!events) return;
    const blocks = rest.replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) addPart(valueOf(data.join("\n")));
    }
  };
}
function valueOf(text) { try { return JSON.parse(text); } catch { return text; } }
function received(message) {
  const value = typeof message === "string" ? valueOf(message) : unpack(new Uint8Array(message));
  if (value?.type === "x-fal-error") say(`${value.error}: ${value.reason}`, true);
  else addPart(value);
}
if (form && sender) {
  sender.hidden = false;
  sender.addEventListener("click", async () => {
    try {
      const text = JSON.stringify(JSON.parse(form.elements.json.value));
      if (!realtime || socket?.readyState !== WebSocket.OPEN) {
        socket?.close();
        parts.replaceChildren();
        say("Connecting");
        const take = realtime ? received : streamed();
        const made = socket = await connect();
        made.onmessage = (event) => { try { take(event.data); } catch (problem) { say(problem.message, true); } };
        made.onclose = () => { if (made === socket) { closer.hidden = true; if (realtime && !standing.classList.contains("problem")) say("The session has ended"); } };
        closer.hidden = false;
        if (realtime) say("The session is open");
      }
      socket.send(text);
    } catch (problem) {
      say(problem instanceof SyntaxError ? `That is not JSON: ${problem.message}` : problem.message, true);
    }
  });
  closer.addEventListener("click", () => socket?.close());
}
