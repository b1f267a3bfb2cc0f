// The terminal of a shell in a runner.
"use strict";
const place = document.querySelector("[data-shell]");
const standing = document.querySelector("[data-standing]");
// The policy of the page allows no style elements: their rules go into a sheet that script may write.
const create = document.createElement.bind(document);
document.createElement = (name, ...more) => {
  if (name !== "style") return create(name, ...more);
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  return Object.defineProperty(create("template"), "textContent", { set: (rules) => sheet.replaceSync(rules) });
};
const hue = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const terminal = new Terminal({
  fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"), fontSize: 13, scrollback: 5000, screenReaderMode: true, minimumContrastRatio: 4.5,
  theme: { background: hue("card"), foreground: hue("text"), cursor: hue("accent"), cursorAccent: hue("card"), selectionBackground: hue("accent"), selectionForeground: hue("on-accent"), red: hue("bad"), brightRed: hue("bad"), green: hue("good"), brightGreen: hue("good"), yellow: hue("wait"), brightYellow: hue("wait"), blue: hue("accent"), brightBlue: hue("accent") },
});
const fit = new FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open(place);
// The shell gets the Tab key, so that completion works: something else has to lead out of the terminal.
terminal.attachCustomKeyEventHandler(({ key, shiftKey }) => !(key === "Tab" && shiftKey));
fit.fit();
function end(words, bad) {
  standing.textContent = words;
  standing.classList.toggle("problem", bad);
  terminal.options.disableStdin = true;
}
let ended = false;
const query = new URLSearchParams({ page: document.body.dataset.page, columns: terminal.cols, rows: terminal.rows });
const socket = new WebSocket(location.origin.replace(/^http/, "ws") + place.dataset.shell + "?" + query);
socket.binaryType = "arraybuffer";
socket.onopen = () => terminal.focus();
socket.onmessage = ({ data }) => {
  if (typeof data !== "string") { terminal.write(new Uint8Array(data)); return; }
  const { exit, error } = JSON.parse(data);
  ended = true;
  end(error ? `The shell has ended: ${error}` : `The shell has ended with exit code ${exit}. Load the page for another one.`, Boolean(error));
};
socket.onclose = () => { if (!ended) end("There is no connection to the runner: load the page again. Its page says whether it can be entered.", true); };
const send = (message) => { if (socket.readyState === WebSocket.OPEN) socket.send(message); };
// A pasted text may be larger than a message.
const type = (bytes) => { for (let at = 0; at < bytes.length; at += 16384) send(bytes.subarray(at, at + 16384)); };
terminal.onData((typed) => type(new TextEncoder().encode(typed)));
terminal.onBinary((typed) => type(Uint8Array.from(typed, (each) => each.charCodeAt(0))));
terminal.onResize(({ cols, rows }) => send(JSON.stringify({ columns: cols, rows })));
addEventListener("resize", () => fit.fit());
