// What pages do beyond being read: live parts, buttons that copy. Every page can be read without it.
"use strict";
const token = document.body.dataset.page;

// Each request of this page shows that the page made it.
document.addEventListener("htmx:configRequest", (event) => { event.detail.headers["x-fal-page"] = token; });

// A live part is the same part of the same page, a few seconds later. Nobody looks at a hidden window.
for (const live of document.querySelectorAll("[data-live]")) {
  live.setAttribute("hx-get", location.pathname + location.search.replace(/([?&])notice=[^&]*&?/, "$1"));
  live.setAttribute("hx-trigger", "every 3s");
  live.setAttribute("hx-select", "#" + live.id + " > *");
  live.setAttribute("hx-swap", "innerHTML");
  live.setAttribute("hx-disinherit", "*");
}
document.addEventListener("htmx:beforeRequest", (event) => {
  const live = event.target.hasAttribute("data-live") || event.target.hasAttribute("hx-get");
  const busy = event.target.contains(document.activeElement) && document.activeElement.matches("input, textarea, select, summary, button");
  if (live && (document.hidden || busy || !getSelection().isCollapsed)) event.preventDefault();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.target.hasAttribute("data-live") && event.detail.xhr.status >= 400) event.detail.shouldSwap = false;
});

function addCopyButtons(root) {
  for (const text of root.querySelectorAll("[data-copy]:not([data-ready])")) {
    text.dataset.ready = "";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    text.after(button);
  }
}
addCopyButtons(document);

// A log is followed from its last line on. It stays at its end while its end is in sight.
const log = document.querySelector("[data-follow]");
const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
if (log) {
  log.scrollTop = log.scrollHeight;
  const address = log.dataset.follow;
  log.setAttribute("hx-ext", "sse");
  log.setAttribute("sse-connect", address + (address.includes("?") ? "&" : "?") + "page=" + encodeURIComponent(token));
  log.setAttribute("sse-swap", "message");
  log.setAttribute("sse-close", "end");
  log.setAttribute("hx-swap", "beforeend");
  let follows = true;
  log.addEventListener("htmx:sseBeforeMessage", (event) => {
    follows = atEnd();
    const id = /id="([^"]+)"/.exec(event.detail.data);
    if (id && document.getElementById(id[1])) event.preventDefault();
    document.querySelector("[data-no-lines]")?.remove();
  });
  log.addEventListener("htmx:afterSwap", () => { if (follows) log.scrollTop = log.scrollHeight; });
}
