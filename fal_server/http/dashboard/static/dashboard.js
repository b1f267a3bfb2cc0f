// What pages do beyond being read: live parts, buttons that copy. Every page can be read without it.
"use strict";
const token = document.body.dataset.page;

// Each request of this page shows that the page made it.
document.addEventListener("htmx:config:request", (event) => { event.detail.ctx.request.headers["x-fal-page"] = token; });

// A live part is the same part of the same page, a few seconds later. Nobody looks at a hidden window.
for (const live of document.querySelectorAll("[data-live]")) {
  live.setAttribute("hx-get", (live.dataset.live || location.pathname) + location.search.replace(/([?&])notice=[^&]*&?/, "$1"));
  live.setAttribute("hx-trigger", "every 3s");
  live.setAttribute("hx-select", "#" + live.id + " > *");
  live.setAttribute("hx-swap", "innerHTML");
}
document.addEventListener("htmx:before:request", (event) => {
  const live = event.target.hasAttribute("data-live") || event.target.hasAttribute("hx-get");
  const busy = event.target.contains(document.activeElement) && document.activeElement.matches("input, textarea, select, summary, button");
  if (live && (document.hidden || busy || !getSelection().isCollapsed)) event.preventDefault();
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
document.addEventListener("htmx:after:swap", (event) => addCopyButtons(event.target));

// A log is followed from its last line on. It stays at its end while its end is in sight.
const log = document.querySelector("[data-follow]");
const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
if (log) {
  log.scrollTop = log.scrollHeight;
  log.setAttribute("hx-sse:connect", log.dataset.follow);
  log.setAttribute("hx-sse:close", "end");
  log.setAttribute("hx-swap", "beforeend");
  // As it answers live parts of a page whose session has ended.
  log.addEventListener("htmx:sse:after:connection", (event) => {
    if (event.detail.connection.status === 204) location.assign("/ui/login?next=" + encodeURIComponent(location.pathname + location.search));
  });
  let follows = true;
  log.addEventListener("htmx:sse:before:message", (event) => {
    follows = atEnd();
    const id = /id="([^"]+)"/.exec(event.detail.message.data);
    if (id && document.getElementById(id[1])) event.preventDefault();
    document.querySelector("[data-no-lines]")?.remove();
  });
  log.addEventListener("htmx:after:swap", () => { if (follows) log.scrollTop = log.scrollHeight; });
}

// htmx may have read the page before these parts had their attributes.
globalThis.htmx?.process(document.body);

// Charts: the numbers stand in the page, the colours come from its style.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const count = (value) => (value == null ? "-" : Math.round(value).toLocaleString());
const seconds = (value) => (value == null ? "-" : value < 1 ? Math.round(value * 1000) + " ms" : value.toFixed(value < 10 ? 1 : 0) + " s");
const hour = (time) => new Date(time * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
const line = (label, name, value, more) => ({ label, stroke: colour(name), width: 2, points: { show: true, size: 5, fill: colour(name) }, value: (_, each) => value(each), ...more });
function draw(place, series, data, values, across = hour, scales = {}) {
  const axis = { font: "12px " + getComputedStyle(document.body).fontFamily, stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const chart = new uPlot({
    width: place.clientWidth - 16, height: 170, cursor: { drag: { x: false, y: false } }, scales,
    axes: [{ ...axis, values: (_, all) => all.map(across) }, { ...axis, values: (_, all) => all.map(values), size: 56 }],
    series: [{ label: "at", value: (_, at) => (at == null ? "-" : across(at)) }, ...series],
  }, data, place);
  addEventListener("resize", () => chart.setSize({ width: place.clientWidth - 16, height: 170 }));
}
for (const charts of document.querySelectorAll("[data-columns]")) {
  const [at, good, bad, ...quantiles] = JSON.parse(charts.dataset.columns);
  const place = (name) => charts.querySelector(`[data-chart=${name}]`);
  const bars = { paths: uPlot.paths.bars({ size: [0.7, 24] }), points: { show: false }, width: 0 };
  const stacked = good.map((each, index) => each + bad[index]);
  draw(place("count"), [
    line("failed", "bad", count, { ...bars, fill: colour("bad") }),
    line("ended", "accent", count, { ...bars, fill: colour("accent") }),
  ].reverse(), [at, stacked, bad], count);
  draw(place("seconds"), [
    line("half", "accent", seconds), line("95 %", "wait", seconds), line("99 %", "bad", seconds),
  ], [at, ...quantiles], seconds);
}
for (const place of document.querySelectorAll("[data-simulated]")) {
  const plain = { points: { show: false } };
  draw(place, [
    line("runners", "accent", count, plain), line("in flight", "good", count, plain), line("waiting", "bad", count, plain),
  ], JSON.parse(place.dataset.simulated), count, (at) => (at < 600 ? Math.round(at) + " s" : Math.round(at / 60) + " min"), { x: { time: false } });
}
