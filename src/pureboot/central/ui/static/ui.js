// The pages work without this. With it they stay fresh: what changed at central is fetched again, where it is shown.
"use strict";
(() => {
  const body = document.body;

  // One stream for a page that is looked at: a browser has few connections to one host, and hidden pages need none.
  const address = body.dataset.events;
  let count = body.dataset.count, source = null, pause = 1;

  function hear() {
    if (source || document.hidden || !address) return;
    source = new EventSource(`${address}?since=${count}`);
    source.onopen = () => { pause = 1; };
    source.addEventListener("change", (event) => {
      count = event.lastEventId;
      for (const topic of event.data.split(" ")) window.htmx.trigger(body, `live:${topic}`);
    });
    source.addEventListener("end", () => again(10));
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) refused(); };
  }
  function refused() {
    // The stream does not say why; what the navigation fetches does, where nobody is signed in any more.
    if (!document.getElementById("signed-out")) window.htmx.trigger(body, "live:alerts");
    again(pause = Math.min(pause * 2, 60));
  }
  function deaf() { if (source) source.close(); source = null; }
  function again(seconds) { deaf(); setTimeout(hear, seconds * 1000); }

  document.addEventListener("visibilitychange", () => document.hidden ? deaf() : hear());
  window.addEventListener("pagehide", deaf);
  window.addEventListener("pageshow", hear);

  // What a page fetches by itself says so, and waits while somebody is at work in that piece.
  const isLive = (detail) => (detail.triggeringEvent?.type || "").startsWith("live:");
  const chosen = (select) => Math.max([...select.options].findIndex((option) => option.defaultSelected), 0);
  const changed = (field) => field.matches("select") ? field.selectedIndex !== chosen(field)
    : field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked
    : field.type !== "hidden" && field.value !== field.defaultValue;
  const busy = (piece) =>
    piece.contains(document.activeElement) && document.activeElement.matches("input, select, textarea") ||
    piece.querySelector("details[open]") !== null ||
    [...piece.querySelectorAll("input, select, textarea")].some(changed);
  body.addEventListener("htmx:configRequest", ({ detail }) => { if (isLive(detail)) detail.headers["X-Live"] = "true"; });
  body.addEventListener("htmx:beforeRequest", (event) => {
    if (isLive(event.detail.requestConfig) && busy(event.detail.elt)) event.preventDefault();
  });

  // "3 min ago" grows older.
  const units = [["d", 86400], ["h", 3600], ["min", 60]];
  function ago(seconds) {
    for (const [unit, length] of units) if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit} ago`;
    return seconds < 1 ? "now" : `${Math.floor(seconds)} s ago`;
  }
  const offset = Date.now() - Date.parse(body.dataset.now);
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const seconds = (Date.now() - offset - Date.parse(time.dateTime)) / 1000;
      if (seconds >= 0) time.textContent = ago(seconds);
    }
  }, 10000);

  // One box for all boxes of a table.
  body.addEventListener("change", ({ target }) => {
    if (!target.matches("input[data-all]")) return;
    for (const box of target.closest("form").querySelectorAll(`input[name="${target.dataset.all}"]`)) box.checked = target.checked;
  });

  hear();
})();
